"""Narrow networks that the tests of this room share, each built once."""

import pytest

from export.inference_graph import embed
from tests.export.networks import narrow
from tests.nets.tiny_nets import images


class Networks:
    """networks(lineage, block, normalize) -> a Network that no test changes."""

    def __init__(self, patch):
        self.patch, self.made, self.expected = patch, {}, {}

    def __call__(self, lineage, block="ir", normalize=False):
        key = (lineage, block, normalize)
        if key not in self.made:
            self.made[key] = narrow(self.patch, *key)
        return self.made[key]

    def embeddings(self, network):
        """What the checkpoint's own graph makes of tests.nets.tiny_nets.images."""
        if id(network) not in self.expected:
            self.expected[id(network)] = embed(network, images(network.spec))
        return self.expected[id(network)]


@pytest.fixture(scope="package")
def networks():
    patch = pytest.MonkeyPatch()
    yield Networks(patch)
    patch.undo()
