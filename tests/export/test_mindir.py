"""What goes to MindSpore's process, and its failures in one sentence."""

import importlib.util
import sys

import pytest

from export import mindir
from export.graph import Graph

HAS_MINDSPORE = importlib.util.find_spec("mindspore") is not None


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


def test_module_calls_the_cells_in_order_and_returns_the_output():
    graph = Graph("pixels", "", shapes={"pixels": [None]})
    first = graph.add("Relu", "pixels", [None])
    graph.output = graph.add("Add", ["pixels", first], [None])
    source = mindir.module_source(graph).replace("from mindspore import nn", "")
    scope = {"nn": type("nn", (), {"Cell": object})}
    exec(source, scope)
    cells = {first: lambda x: max(x, 0), graph.output: lambda x, y: x + y}
    network = scope["Network"](cells)
    assert [network.construct(value) for value in (-3, 4)] == [-3, 8]
