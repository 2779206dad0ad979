"""The module that MindSpore compiles has one line a node."""

from export.mindspore_net import module_source

NODES = [
    {"op": "Relu", "inputs": ["pixels"], "output": "relu_1"},
    {"op": "Add", "inputs": ["pixels", "relu_1"], "output": "add_2"},
]


def test_source_calls_the_cells_in_order_and_returns_the_output():
    source = module_source({"input": "pixels", "output": "add_2", "nodes": NODES})
    scope = {"nn": type("nn", (), {"Cell": object})}
    exec(source.replace("from mindspore import nn", ""), scope)
    network = scope["Network"]({"relu_1": lambda x: max(x, 0), "add_2": lambda x, y: x + y})
    assert [network.construct(value) for value in (-3, 4)] == [-3, 8]
