"""What an .onnx file declares: versions, inputs, outputs, metadata; read without the onnx package.

An ONNX file is a protobuf message, ModelProto. Only the few fields below are decoded; weights are
skipped, so that a file of 260 MB is read in milliseconds.
"""

import functools
import os
from typing import Any, Dict, List, NamedTuple, Set, Tuple, Union

import numpy as np

from runtime.protobuf import ProtobufError, fields

# Field numbers of onnx.proto.
IR_VERSION, GRAPH, OPSETS, METADATA = 1, 7, 8, 14  # ModelProto
NODE, INITIALIZER, INPUT, OUTPUT = 1, 5, 11, 12  # GraphProto
UINT8, FLOAT = 2, 1  # TensorProto.DataType
DTYPES = {UINT8: "uint8", FLOAT: "float32", 10: "float16", 11: "float64", 3: "int8"}
FIRST_NODES = 8  # InsightFace's model_zoo looks at these to decide on the normalisation

# The newest opset of each IR version, from onnx/helper.py's table.
OPSET_OF_IR = {3: 8, 4: 9, 5: 10, 6: 11, 7: 14, 8: 18, 9: 20, 10: 22, 11: 23, 12: 24, 13: 25}

Dimension = Union[int, str]  # a number, or the name of a dynamic dimension


class TensorInfo(NamedTuple):
    """An input or output of a model."""

    name: str  # as the file spells it
    dtype: str  # NumPy's name of the element type
    shape: Tuple[Dimension, ...]  # dynamic dimensions are strings


class OnnxFile(NamedTuple):
    """What an .onnx file declares."""

    ir_version: int  # version of the file format
    opset: int  # version of the standard operators
    inputs: List[TensorInfo]  # without the initializers that old exporters list as inputs
    outputs: List[TensorInfo]  # in the file's order
    first_node_names: List[str]  # names of the first nodes
    quantized: bool  # whether a node quantises, as in int8 models
    metadata: Dict[str, str]  # metadata_props


def read_onnx(path: str) -> OnnxFile:
    """Reads the declarations of an .onnx file; a file that ends early is a ValueError."""
    status = os.stat(path)
    if status.st_size == 0:
        raise ValueError(f"{path} is empty; copy or export the model again.")
    return _read_onnx(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read_onnx(path: str, size: int, mtime_ns: int) -> OnnxFile:
    """Kept while the file is not written again: three parts of inference/ read the declarations."""
    try:
        return _parse_model(memoryview(np.memmap(path, np.uint8, mode="r").data))
    except (_DamagedError, ProtobufError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not a whole ONNX file ({_reason(error)}); copy or export it again."
        ) from None


def _reason(error: Exception) -> str:
    if not isinstance(error, ProtobufError):
        return str(error)
    if error.missing is not None:
        return f"{error.missing} bytes are missing at its end"
    return "it ends inside a number" if error.at_end else "its bytes are not protobuf"


def _parse_model(view: memoryview) -> OnnxFile:
    graph, ir_version, opset = None, 0, 0
    metadata: Dict[str, str] = {}
    for number, value in fields(view):
        if number == IR_VERSION:
            ir_version = value
        elif number == GRAPH:
            graph = _parse_graph(value)
        elif number == OPSETS:
            domain_and_version = dict(fields(value))
            if not bytes(domain_and_version.get(1, b"")):
                opset = domain_and_version.get(2, 0)
        elif number == METADATA:
            entry = dict(fields(value))
            metadata[_text(entry.get(1, b""))] = _text(entry.get(2, b""))
    if graph is None:
        raise _DamagedError("it has no graph")
    inputs, outputs, names, quantized = graph
    return OnnxFile(ir_version, opset, inputs, outputs, names, quantized, metadata)


def _parse_graph(view: memoryview) -> Tuple[Any, Any, Any, bool]:
    inputs: List[TensorInfo] = []
    outputs: List[TensorInfo] = []
    weights: Set[str] = set()
    names: List[str] = []
    quantized = False
    for number, value in fields(view):
        if number == NODE:
            node = dict(fields(value))  # a repeated field keeps its last value: not needed here
            if len(names) < FIRST_NODES:
                names.append(_text(node.get(3, b"")))
            quantized = quantized or b"Quantize" in bytes(node.get(4, b""))
        elif number == INITIALIZER:
            weights.update(_text(name) for field, name in fields(value) if field == 8)
        elif number in (INPUT, OUTPUT):
            (inputs if number == INPUT else outputs).append(_parse_tensor(value))
    return [each for each in inputs if each.name not in weights], outputs, names, quantized


def _parse_tensor(view: memoryview) -> TensorInfo:
    """ValueInfoProto{1 name, 2 type{1 tensor_type{1 elem_type, 2 shape{1 dim}}}}."""
    value = dict(fields(view))
    tensor = dict(fields(dict(fields(value.get(2, view[:0]))).get(1, view[:0])))
    shape: List[Dimension] = []
    for number, dimension in fields(tensor.get(2, view[:0])):
        if number == 1:
            entry = dict(fields(dimension))
            shape.append(int(entry[1]) if 1 in entry else _text(entry.get(2, b"")) or "?")
    dtype = DTYPES.get(tensor.get(1, 0), f"type {tensor.get(1, 0)}")
    return TensorInfo(_text(value.get(1, b"")), dtype, tuple(shape))


class _DamagedError(Exception):
    """The bytes are not those of an ONNX file."""


def _text(value: Any) -> str:
    if isinstance(value, int):
        raise _DamagedError("a name is a number")
    return bytes(value).decode("utf-8")
