"""Static quantization: scales per channel, all calibration images, the file's metadata."""

import numpy as np
import pytest

from export import int8
from export.onnx_writer import OnnxForm
from tests.export.networks import onnx_bytes
from tests.nets.tiny_nets import images


@pytest.fixture(scope="module")
def quantized(networks, tmp_path_factory):
    """The int8 ModelProto of a narrow network."""
    onnx = pytest.importorskip("onnx")
    quantization = pytest.importorskip("onnxruntime.quantization")
    assert quantization
    directory = tmp_path_factory.mktemp("int8")
    network = networks("arcface_torch")
    source, target = str(directory / "a.onnx"), str(directory / "b.onnx")
    with open(source, "wb") as stream:
        stream.write(onnx_bytes(network, OnnxForm(opset=int8.OPSET)))
    batch = images(network.spec, 8).transpose(0, 3, 1, 2).astype(np.float32)
    int8.quantize(source, target, batch, {"key": "value"})
    return onnx.load(target)


def test_reader_gives_every_image_once_and_then_none():
    batch = np.arange(int8.BATCH + 3)[:, None]
    found, reader = [], int8.reader(object, "image", batch)
    for part in iter(reader.get_next, None):
        found += part["image"].ravel().tolist()
    assert found == batch.ravel().tolist()


def weights_of(model, op):
    """{name: int8 array} of what the DequantizeLinear before a node's weight reads."""
    onnx = pytest.importorskip("onnx")
    arrays = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    readers = [node for node in model.graph.node if node.op_type == op]
    return [
        [arrays[name] for name in makers[node.input[1]].input]
        for node in readers
        if makers[node.input[1]].op_type == "DequantizeLinear"
    ]


def test_every_convolution_has_a_scale_per_channel(quantized):
    found = weights_of(quantized, "Conv")
    assert found and all(scale.shape == weight.shape[:1] for weight, scale, _ in found)


def test_weights_have_7_bits_on_a_cpu_without_vnni(quantized):
    largest = max(
        np.abs(weight.astype(int)).max() for weight, _, _ in weights_of(quantized, "Conv")
    )
    assert largest in ((126, 127, 128) if int8.has_vnni() else (63, 64))


def test_metadata_survives(quantized):
    assert {prop.key: prop.value for prop in quantized.metadata_props} == {"key": "value"}
