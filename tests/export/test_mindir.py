"""MindIR through MindSpore, in this Python or in the one that MINDSPORE_PYTHON names."""

import importlib.util
import os
import sys

import pytest

from export import mindir, proof
from export.pipeline import graph_of
from export.proof import Reference
from tests.nets.tiny_nets import images

PYTHON = os.environ.get("MINDSPORE_PYTHON")
HAS_MINDSPORE = importlib.util.find_spec("mindspore") is not None
needs_mindspore = pytest.mark.skipif(
    not (PYTHON or HAS_MINDSPORE), reason="MINDSPORE_PYTHON names no Python with MindSpore"
)


@needs_mindspore
@pytest.mark.parametrize("lineage, block", [("arcface_torch", "ir"), ("insightface_tf", "se")])
def test_mindir_gives_the_checkpoints_embeddings(networks, tmp_path, lineage, block):
    network = networks(lineage, block)
    reference = Reference(images(network.spec), networks.embeddings(network))
    path, python = str(tmp_path / "m.mindir"), mindir.interpreter(PYTHON)
    found = mindir.write_mindir(path, network, graph_of(network), reference, 2, python)
    assert found.largest_difference <= proof.TOLERANCE and found.batches == [2]
    assert os.listdir(str(tmp_path)) == ["m.mindir"]


@pytest.mark.skipif(HAS_MINDSPORE, reason="MindSpore is installed here")
@pytest.mark.parametrize(
    "chosen, message",
    [
        (None, "needs MindSpore, in an environment of its own"),
        ("no such python", "is not a program"),
        (sys.executable, "has no MindSpore"),
    ],
)
def test_a_python_without_mindspore_is_one_sentence(chosen, message):
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        mindir.interpreter(chosen)
    assert message in str(error.value)


def test_a_process_that_fails_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="^MindSpore in [^\n]* exited with 1: [^\n]*$"):
        mindir._run(sys.executable, str(tmp_path))
