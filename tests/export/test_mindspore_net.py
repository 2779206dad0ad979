"""MindIR through MindSpore, in this Python or in the one that MINDSPORE_PYTHON names."""

import importlib.util
import os

import pytest

from export import mindir, proof
from export.pipeline import graph_of
from export.proof import Reference
from tests.nets.tiny_nets import images

PYTHON = os.environ.get("MINDSPORE_PYTHON")
HAS_MINDSPORE = importlib.util.find_spec("mindspore") is not None


@pytest.mark.skipif(
    not (PYTHON or HAS_MINDSPORE), reason="MINDSPORE_PYTHON names no Python with MindSpore"
)
@pytest.mark.parametrize("lineage, block", [("arcface_torch", "ir"), ("insightface_tf", "se")])
def test_mindir_gives_the_checkpoints_embeddings(networks, tmp_path, lineage, block):
    network = networks(lineage, block)
    reference = Reference(images(network.spec), networks.embeddings(network))
    path, python = str(tmp_path / "m.mindir"), mindir.interpreter(PYTHON)
    found = mindir.write_mindir(path, network, graph_of(network), reference, 2, python)
    assert found.largest_difference <= proof.TOLERANCE and found.batches == [2]
    assert os.listdir(str(tmp_path)) == ["m.mindir"]
