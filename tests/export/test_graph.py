"""Nodes, their readers and makers."""

from export.graph import Graph


def chain():
    graph = Graph("x", "")
    graph.shapes["x"] = [None, 3]
    first = graph.add("Relu", "x", [None, 3])
    graph.add("Neg", "x", [None, 3])
    graph.output = graph.add("Sigmoid", first, [None, 3])
    return graph, first


def test_consumers_are_the_readers_of_each_tensor():
    graph, first = chain()
    assert [node.op for node in graph.consumers()["x"]] == ["Relu", "Neg"]
    assert [node.op for node in graph.consumers()[first]] == ["Sigmoid"]


def test_remove_unused_keeps_what_the_output_needs():
    graph, _ = chain()
    graph.remove_unused()
    assert [node.op for node in graph.nodes] == ["Relu", "Sigmoid"]


def test_bypass_lets_readers_read_the_nodes_input():
    graph, first = chain()
    graph.bypass(graph.producers()[first])
    assert graph.producers()[graph.output].inputs == ["x"]


def test_bypass_moves_the_output_when_the_node_was_last():
    graph, first = chain()
    graph.bypass(graph.producers()[graph.output])
    assert graph.output == first
