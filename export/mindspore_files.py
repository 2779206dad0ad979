"""Weights for MindSpore: its .ckpt under the names of the arcface network of MindSpore's model zoo.

The file is a protobuf message Checkpoint { repeated Value { tag, tensor { dims, type, content } } }
and is written without MindSpore.
"""

from typing import Dict

import numpy as np

from export import onnx_proto
from export.inference_graph import Network
from nets.weights.layout import to_theirs
from nets.weights.name_maps import their_name
from runtime.protobuf import fields
from runtime.variables import plain_name

PARAMETERS = {"W_conv2d": "weight", "W": "weight", "b": "bias", "alphas": "w"}  # the others stay
NAMES = "iresnet"  # the tensor names of nets/lineages.py that MindSpore's network shares
SLICE = 512 << 20  # bytes of one tensor's content


def parameters(network: Network) -> Dict[str, np.ndarray]:
    """{MindSpore's parameter name: float32 array}."""
    spec = network.spec
    if spec.row.names != NAMES:
        raise ValueError(
            f"--file_format ckpt_ms has the names of MindSpore's iresnet, which {spec.lineage} is "
            "not; export an arcface_torch checkpoint, or as onnx."
        )
    found = {}
    for ours, array in network.arrays.items():
        cell = their_name(ours, spec).rsplit(".", 1)[0]
        leaf = plain_name(ours).rsplit("/", 1)[1]
        found[f"{cell}.{PARAMETERS.get(leaf, leaf)}"] = to_theirs(array, ours, spec)
    return found


def write_checkpoint(path: str, network: Network) -> None:
    """MindSpore's .ckpt."""
    with open(path, "wb") as stream:
        for name, array in parameters(network).items():
            for chunk in _value(name, np.ascontiguousarray(array, "<f4")):
                stream.write(chunk)


def read_checkpoint(path: str) -> Dict[str, np.ndarray]:
    """What write_checkpoint wrote, to check it."""
    with open(path, "rb") as stream:
        content = stream.read()
    found = {}
    for number, value in fields(memoryview(content)):
        assert number == 1, number
        parts = dict(fields(value))
        tensor = list(fields(parts[2]))
        shape = [item for key, item in tensor if key == 1]
        data = next(item for key, item in tensor if key == 3)
        found[bytes(parts[1]).decode()] = np.frombuffer(data, "<f4").reshape(shape)
    return found


def _value(name: str, array: np.ndarray) -> onnx_proto.Chunks:
    assert array.nbytes <= SLICE, f"{name} is larger than one slice of a MindSpore checkpoint"
    tensor: onnx_proto.Chunks = []
    for length in array.shape:
        tensor += onnx_proto.integer(1, length)
    tensor += onnx_proto.text(2, "Float32")
    tensor += onnx_proto.message(3, [memoryview(array.reshape(-1)).cast("B")])
    return onnx_proto.message(1, onnx_proto.text(1, name) + onnx_proto.message(2, tensor))
