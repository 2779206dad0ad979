"""The encoder's bytes are what the onnx package reads."""

import numpy as np
import pytest

from export import onnx_proto
from export.onnx_proto import Node, TensorInfo, ir_version, model, size, varint


def encoded():
    nodes = [Node("Conv", ["x", "w"], ["y"], {"pads": [1, 2, 3, 4], "group": 1}, "Conv_y")]
    nodes.append(Node("Elu", ["y"], ["z"], {"alpha": 0.5}, "Elu_z"))
    weights = {"w": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)}
    infos = [TensorInfo("x", "float32", ["batch", 3, 5, 6])], [TensorInfo("z", "float32", [1, 2])]
    return model(nodes, weights, infos[0], infos[1], 11, {"b": "2", "a": "1"})


@pytest.mark.parametrize(
    "value, content", [(0, b"\0"), (127, b"\x7f"), (300, b"\xac\x02"), (-1, b"\xff" * 9 + b"\x01")]
)
def test_varint_is_seven_bits_a_byte(value, content):
    assert varint(value) == content


@pytest.mark.parametrize("opset, version", [(9, 6), (11, 6), (12, 7), (18, 8), (20, 9), (22, 10)])
def test_ir_version_is_that_of_the_opsets_release(opset, version):
    assert ir_version(opset) == version


def test_size_is_the_number_of_bytes():
    assert size(encoded()) == len(b"".join(bytes(chunk) for chunk in encoded()))


def test_onnx_reads_every_field():
    onnx = pytest.importorskip("onnx")
    found = onnx.load_from_string(b"".join(bytes(chunk) for chunk in encoded()))
    conv, elu = found.graph.node
    assert onnx.helper.get_node_attr_value(conv, "pads") == [1, 2, 3, 4]
    assert onnx.helper.get_node_attr_value(conv, "group") == 1
    assert onnx.helper.get_node_attr_value(elu, "alpha") == 0.5
    assert (conv.name, list(conv.input), list(elu.output)) == ("Conv_y", ["x", "w"], ["z"])
    weight = onnx.numpy_helper.to_array(found.graph.initializer[0])
    assert np.array_equal(weight, np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2))
    dimensions = found.graph.input[0].type.tensor_type.shape.dim
    assert dimensions[0].dim_param == "batch" and dimensions[2].dim_value == 5
    assert {prop.key: prop.value for prop in found.metadata_props} == {"a": "1", "b": "2"}
    assert found.opset_import[0].version == 11 and found.ir_version == 6


def test_weights_are_not_copied():
    array = np.zeros([4], np.float32)
    chunks = onnx_proto._tensor("w", array)
    assert any(isinstance(c, memoryview) and np.shares_memory(c, array) for c in chunks)
