"""Encodes ONNX's protobuf messages, so that an export needs no onnx package and gives the same
bytes under every TensorFlow and Python. Field numbers: onnx/onnx.proto.

A message is a list of byte chunks: weights are referred to, not copied, until the file is written.
"""

import struct
from typing import Any, Dict, List, NamedTuple, Sequence, Union

import numpy as np

Chunks = List[Union[bytes, memoryview]]

FLOAT, UINT8, INT8, INT32, INT64 = 1, 2, 3, 6, 7  # TensorProto.DataType
DATA_TYPES = {"float32": FLOAT, "uint8": UINT8, "int8": INT8, "int32": INT32, "int64": INT64}
VARINT, BYTES, FIXED32 = 0, 2, 5  # protobuf's wire types
IR_VERSIONS = ((11, 6), (14, 7), (18, 8), (20, 9), (22, 10))  # the last opset that a version covers


class Node(NamedTuple):
    """One operation of an ONNX graph."""

    op: str  # operator's name
    inputs: Sequence[str]  # tensors that it reads
    outputs: Sequence[str]  # tensors that it makes
    attributes: Dict[str, Any]  # int, float, str, or a list of ints
    name: str  # of the node; InsightFace chooses a preprocessing by it


class TensorInfo(NamedTuple):
    """An input or an output of an ONNX graph."""

    name: str  # of the tensor
    dtype: str  # NumPy's name of its type
    shape: Sequence[Union[int, str]]  # a name stands for a dynamic dimension


def ir_version(opset: int) -> int:
    """The IR version of the ONNX release that introduced an opset; older runtimes refuse newer."""
    return next(version for last, version in IR_VERSIONS if opset <= last)


def model(
    nodes: Sequence[Node],
    weights: Dict[str, np.ndarray],
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    opset: int,
    metadata: Dict[str, str],
) -> Chunks:
    """A ModelProto of one graph. weights: float32 or int64 arrays by name."""
    graph: Chunks = []
    for node in nodes:
        graph += message(1, _node(node))
    graph += text(2, "insightface_tf")
    for name, array in weights.items():
        graph += message(5, _tensor(name, array))
    for number, infos in ((11, inputs), (12, outputs)):
        for info in infos:
            graph += message(number, _value_info(info))
    content = integer(1, ir_version(opset)) + text(2, "insightface-tf")
    content += message(7, graph)
    content += message(8, text(1, "") + integer(2, opset))
    for key in sorted(metadata):
        content += message(14, text(1, key) + text(2, metadata[key]))
    return content


def size(chunks: Chunks) -> int:
    """Bytes of a message."""
    return sum(len(chunk) for chunk in chunks)


def _node(node: Node) -> Chunks:
    content: Chunks = []
    for name in node.inputs:
        content += text(1, name)
    for name in node.outputs:
        content += text(2, name)
    content += text(3, node.name) + text(4, node.op)
    for name in sorted(node.attributes):
        content += message(5, _attribute(name, node.attributes[name]))
    return content


def _attribute(name: str, value: Any) -> Chunks:
    """AttributeProto; its type is field 20."""
    if isinstance(value, float):
        return text(1, name) + [_key(2, FIXED32), struct.pack("<f", value)] + integer(20, 1)
    if isinstance(value, int):
        return text(1, name) + integer(3, value) + integer(20, 2)
    if isinstance(value, str):
        return text(1, name) + text(4, value) + integer(20, 3)
    content = text(1, name)
    for item in value:
        content += integer(8, item)
    return content + integer(20, 7)


def _tensor(name: str, array: np.ndarray) -> Chunks:
    """TensorProto with raw little-endian data."""
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    content: Chunks = []
    for length in array.shape:
        content += integer(1, length)
    content += integer(2, DATA_TYPES[array.dtype.name]) + text(8, name)
    return content + message(9, [memoryview(array.reshape(-1)).cast("B")])


def _value_info(info: TensorInfo) -> Chunks:
    shape: Chunks = []
    for length in info.shape:
        named = isinstance(length, str)
        shape += message(1, text(2, str(length)) if named else integer(1, int(length)))
    tensor = integer(1, DATA_TYPES[info.dtype]) + message(2, shape)
    return text(1, info.name) + message(2, message(1, tensor))


def message(number: int, content: Chunks) -> Chunks:
    header: Chunks = [_key(number, BYTES) + varint(size(content))]
    return header + content


def text(number: int, text: str) -> Chunks:
    content: Chunks = [text.encode()]
    return message(number, content)


def integer(number: int, value: int) -> Chunks:
    return [_key(number, VARINT) + varint(value)]


def _key(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; a negative number as its 64-bit two's complement."""
    value &= (1 << 64) - 1
    content = bytearray()
    while value > 127:
        content.append(value & 127 | 128)
        value >>= 7
    content.append(value)
    return bytes(content)
