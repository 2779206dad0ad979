"""A machine with Ascend cards, as far as a test can have one: import the fixture `npu`."""

import os
import sys
import tempfile
import threading
import types

import pytest

from nets.build import BUILDERS
from nets.layers import Kernel, conv, dense, dropout, flatten, prelu
from runtime.npu import adapter, card, options
from runtime.npu.cann import HOME
from runtime.npu.cards import KIND, PCI_DEVICES
from runtime.tf1 import TF2, tf

HERE = os.path.dirname(os.path.abspath(__file__))
SAID = ("RANK_ID", "RANK_SIZE", "RANK_TABLE_FILE", "DEVICE_ID", "ASCEND_DEVICE_ID", "JOB_ID")


@pytest.fixture
def cards(monkeypatch, tmp_path):
    """The device files of eight cards, and an environment that says nothing of them."""
    nodes = tmp_path / "dev"
    nodes.mkdir()
    for name in ["davinci_manager"] + [f"davinci{number}" for number in range(8)]:
        (nodes / name).touch()
    monkeypatch.setenv(card.NODES, str(nodes))
    for name in HOME + (KIND,):  # a machine that has CANN or a card
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(PCI_DEVICES, str(tmp_path / "no_pci"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where a card's lock is: another test has its own
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in SAID:
        monkeypatch.delenv(name, raising=False)
    yield nodes
    while card._HELD:
        card._HELD.pop()[1].close()


@pytest.fixture
def npu(request, monkeypatch, cards):
    """The double of npu_bridge, imported as the adapter is; its version by the test's parameter,
    "r1.5", or "main 910B" for another card than a 910A."""
    if TF2:
        pytest.skip("the adapter is for TensorFlow 1.15")
    version, _, card_name = getattr(request, "param", "r1.15").partition(" ")
    monkeypatch.setenv("NPU_DOUBLE_VERSION", version)
    monkeypatch.setenv("NPU_DOUBLE_CARD", card_name or "910A")
    monkeypatch.syspath_prepend(HERE)
    import npu_bridge
    from npu_bridge import npu_init, sessions, world

    yield types.SimpleNamespace(
        names=npu_init, world=world, Mistake=world.Mistake, checked=sessions.checked
    )
    npu_bridge.leave()
    for name in [name for name in sys.modules if name.split(".")[0] == "npu_bridge"]:
        del sys.modules[name]


@pytest.fixture
def tiny_net(monkeypatch):
    """In the place of VGG: one convolution and one dense layer, for what is about all the rest."""

    def build(pixels_NHWC, context):
        x = prelu(conv(pixels_NHWC, 4, Kernel(3, 4), context, "conv1"), context, "prelu0")
        return dense(flatten(dropout(x, context)), context.spec.embedding_size, context, "fc1")

    monkeypatch.setitem(BUILDERS, "vgg", build)


def proto(**values):
    return adapter.configure(tf.ConfigProto(), dict(options.chosen(), **values))


def on_cards(npu, size, program):
    """program(rank) on a thread each, each inside its own graph; what they return, by rank."""
    found, errors = {}, []

    def run(rank):
        try:
            with npu.world.rank(rank), tf.Graph().as_default():
                found[rank] = program(rank)
        except BaseException as error:
            errors.append(error)

    with npu.world.ranks(size):
        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return [found[rank] for rank in range(size)]
