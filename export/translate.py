"""TensorFlow's inference graph -> export.graph.Graph, operation by operation.

TensorFlow's tensors are [N, H, W, C]; from rank 4 on the same tensor is [N, C, H, W] here (and
[N, H, W, G, C] is [N, G, C, H, W]). A value is one of: a NumPy array (weights and what is computed
from weights only), a list of dimensions (what tf.shape gives), or the name of a tensor.
"""

from typing import Any, Callable, Dict, List, NamedTuple, Set

import numpy as np

from export.graph import Graph
from runtime.tf1 import tf

INPUT = "pixels"


class Padded(NamedTuple):
    """A tensor that a convolution is going to read with zeros around it."""

    tensor: str
    pads: List[int]  # top, left, bottom, right


class Flat(NamedTuple):
    """A tensor flattened channels first where TensorFlow flattens channels last."""

    tensor: str
    shape_CHW: List[int]  # before it was flattened


def translate(
    pixels_NHWC: tf.Tensor, features_ND: tf.Tensor, arrays: Dict[str, np.ndarray]
) -> Graph:
    """The part of the default graph between two tensors. arrays: variables by name."""
    graph = Graph(INPUT, "")
    graph.shapes[INPUT] = channels_first(pixels_NHWC.shape.as_list())
    translator = _Translator(graph, arrays)
    translator.values[pixels_NHWC.name] = INPUT
    needed = _needed(features_ND.op, pixels_NHWC)
    for op in features_ND.graph.get_operations():  # in the order in which they were made
        if op.name in needed:
            translator.translate(op)
    graph.output = translator.tensor(features_ND)
    graph.remove_unused()
    return graph


def channels_first(items: List[Any]) -> List[Any]:
    """Something for each dimension of a TensorFlow tensor, in the order of the dimensions here."""
    if len(items) < 4:
        return list(items)
    return [items[0]] + list(items[3:]) + list(items[1:3])


def _needed(last: tf.Operation, first: tf.Tensor) -> Set[str]:
    """Names of the operations on which `last` depends, up to the tensor `first`."""
    found, waiting = set(), [last]
    while waiting:
        op = waiting.pop()
        if op.name not in found and op.name != first.op.name:
            found.add(op.name)
            waiting += [tensor.op for tensor in op.inputs]
    return found


class _Translator:
    """What each TensorFlow tensor has become so far."""

    def __init__(self, graph: Graph, arrays: Dict[str, np.ndarray]) -> None:
        self.graph, self.arrays = graph, arrays
        self.values: Dict[str, Any] = {}

    def translate(self, op: tf.Operation) -> None:
        """One operation, after all that it reads."""
        if op.type not in OPERATIONS:
            raise ValueError(
                f"{op.name}: TensorFlow's operation {op.type} has no translation in "
                "export/translate.py; write one, or export as savedmodel."
            )
        values = [self.values[tensor.name] for tensor in op.inputs]
        self.values[op.outputs[0].name] = OPERATIONS[op.type](self, op, values)

    def tensor(self, tensor: tf.Tensor) -> str:
        """The name of what must be a tensor here."""
        value = self.values[tensor.name]
        if isinstance(value, str):
            return value
        raise ValueError(
            f"{tensor.name}: {type(value).__name__.lower()} where a tensor is needed; the network "
            "reads it in a way that has no translation in export/translate.py."
        )

    def add(self, op: tf.Operation, kind: str, inputs: Any, **more: Any) -> str:
        """A node whose output has the shape of the operation's first output."""
        shape = channels_first(op.outputs[0].shape.as_list())
        return self.graph.add(kind, inputs, shape, **more)


def _variable(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    return t.arrays[op.name]


def _same(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    return values[0]


def _constant(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    return tf.make_ndarray(op.get_attr("value"))


def _cast(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    dtype = op.outputs[0].dtype
    if isinstance(values[0], np.ndarray):
        return values[0].astype(dtype.as_numpy_dtype)
    assert dtype == tf.float32, f"{op.name} casts a tensor to {dtype.name}"
    return values[0]


def _shape(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    return op.inputs[0].shape.as_list()


def _pack(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    return [int(value) if isinstance(value, np.ndarray) else value for value in values]


def _slice(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    """An entry of a shape, or new dimensions of size 1 behind the batch."""
    first, new_axes = values[1], op.get_attr("new_axis_mask")
    if isinstance(values[0], list):
        assert len(first) == 1 and op.get_attr("shrink_axis_mask") == 1, op.name
        return values[0][int(first[0])]
    shapes = [tensor.shape.as_list() for tensor in (op.inputs[0], op.outputs[0])]
    assert new_axes == 6 and [len(shape) for shape in shapes] == [2, 4], op.name
    return t.add(op, "Unsqueeze", t.tensor(op.inputs[0]), axes=[2, 3])


def _squeeze(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    assert op.inputs[0].shape.as_list()[1:3] == [1, 1], op.name
    return t.add(op, "Squeeze", t.tensor(op.inputs[0]), axes=[2, 3])


def _reshape(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    target = list(values[1])
    if isinstance(values[0], np.ndarray):
        return values[0].reshape([int(length) for length in target])
    source, shape = op.inputs[0].shape.as_list(), op.outputs[0].shape.as_list()
    if len(source) == 4 and len(target) == 2:
        flat = t.graph.add("Flatten", t.tensor(op.inputs[0]), [None, shape[1]], axis=1)
        return flat if source[1:3] == [1, 1] else Flat(flat, channels_first(source)[1:])
    target = [None if length in (None, -1) else int(length) for length in target]
    # TensorFlow 1.15 does not infer height and width of a reshape to computed lengths
    fits = all(known in (None, length) for known, length in zip(source[:3], target[:3]))
    assert min(len(source), len(target)) >= 4 and fits, op.name
    shape = channels_first(target)
    return t.graph.add("Reshape", t.tensor(op.inputs[0]), shape, target=[0] + shape[1:])


def _transpose(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    assert isinstance(values[0], np.ndarray), f"{op.name} transposes a tensor"
    return values[0].transpose([int(axis) for axis in values[1]])


def _pad(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    (top, bottom), (left, right) = [[int(side) for side in pair] for pair in values[1][1:3]]
    return Padded(t.tensor(op.inputs[0]), [top, left, bottom, right])


def _convolution(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    kernel = values[1]
    groups = 1
    if op.type == "DepthwiseConv2dNative":
        groups = kernel.shape[2]
        kernel = kernel.reshape(kernel.shape[:2] + (1, -1))
    source, pads = _window(t, op, values[0], list(kernel.shape[:2]))
    weights = {"weight": np.ascontiguousarray(kernel.transpose(3, 2, 0, 1), np.float32)}
    attributes = dict(
        kernel_shape=list(kernel.shape[:2]), strides=_strides(op), pads=pads, group=groups
    )
    return t.add(op, "Conv", source, weights=weights, **attributes)


def _max_pool(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    size = [int(length) for length in op.get_attr("ksize")[1:3]]
    source, pads = _window(t, op, values[0], size)
    return t.add(op, "MaxPool", source, kernel_shape=size, strides=_strides(op), pads=pads)


def _strides(op: tf.Operation) -> List[int]:
    return [int(length) for length in op.get_attr("strides")[1:3]]


def _window(t: _Translator, op: tf.Operation, value: Any, size: List[int]) -> Any:
    """(tensor, pads) of a convolution or pool. TensorFlow's "SAME" puts the odd zero behind."""
    if isinstance(value, Padded):
        assert op.get_attr("padding") == b"VALID", op.name
        return value.tensor, value.pads
    before, after = [0, 0], [0, 0]
    if op.get_attr("padding") == b"SAME":
        lengths = op.inputs[0].shape.as_list()[1:3]
        for axis, (length, window, stride) in enumerate(zip(lengths, size, _strides(op))):
            needed = max((-(-length // stride) - 1) * stride + window - length, 0)
            before[axis], after[axis] = needed // 2, needed - needed // 2
    return t.tensor(op.inputs[0]), before + after


def _batch_norm(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    assert not op.get_attr("is_training"), f"{op.name} is a training norm"
    gamma, beta, mean, variance = (value.astype(np.float64) for value in values[1:5])
    scale = gamma / np.sqrt(variance + op.get_attr("epsilon"))
    return _affine(t, op, op.inputs[0], scale, beta - mean * scale)


def _affine(t: _Translator, op: tf.Operation, source: tf.Tensor, scale: Any, shift: Any) -> str:
    channels = source.shape.as_list()[-1]
    weights = {"scale": np.broadcast_to(scale, [channels]).astype(np.float64)}
    weights["shift"] = np.broadcast_to(shift, [channels]).astype(np.float64)
    return t.add(op, "Affine", t.tensor(source), weights=weights)


def _matrix_product(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    assert not op.get_attr("transpose_a") and not op.get_attr("transpose_b"), op.name
    source, matrix = values
    if isinstance(source, Flat):
        channels, height, width = source.shape_CHW
        matrix = matrix.reshape([height, width, channels, -1]).transpose(2, 0, 1, 3)
        source, matrix = source.tensor, matrix.reshape([channels * height * width, -1])
    weights = {"weight": np.ascontiguousarray(matrix.T, np.float32)}  # [outputs, inputs]
    return t.add(op, "Gemm", source, weights=weights)


def _binary(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    """Add, Sub, Mul, Div or Max of two tensors, or of a tensor and numbers."""
    kind = BINARY[op.type]
    if kind == "Sub" and _is_prelu(op):
        alphas = t.values[_producer(op.inputs[1]).inputs[0].name]
        source = t.tensor(_producer(op.inputs[0]).inputs[0])
        rank = len(op.outputs[0].shape.as_list())
        return t.add(op, "PRelu", source, weights={"slope": alphas.astype(np.float64)}, rank=rank)
    constants = [number for number, value in enumerate(values) if isinstance(value, np.ndarray)]
    if len(constants) == 2:
        return NUMPY[kind](*values)
    if not constants:
        return t.add(op, kind, [t.tensor(tensor) for tensor in op.inputs])
    number = values[constants[0]].astype(np.float64)
    source = op.inputs[1 - constants[0]]
    if number.ndim == 1 and kind in ("Add", "Mul"):
        pair = (1.0, number) if kind == "Add" else (number, 0.0)
        return _affine(t, op, source, *pair)
    assert number.ndim == 0 and (kind in ("Add", "Max") or constants == [1]), op.name
    return t.add(op, kind, t.tensor(source), weights={"other": number})


def _bias_add(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    return _affine(t, op, op.inputs[0], 1.0, values[1])


def _is_prelu(op: tf.Operation) -> bool:
    """Whether it is relu(x) - alphas * relu(-x), as nets/layers.py writes it."""
    above, scaled = (_producer(tensor) for tensor in op.inputs)
    if above.type != "Relu" or scaled.type != "Mul":
        return False
    below = _producer(scaled.inputs[1])
    negated = _producer(below.inputs[0]) if below.type == "Relu" else below
    return negated.type == "Neg" and negated.inputs[0].name == above.inputs[0].name


def _producer(tensor: tf.Tensor) -> tf.Operation:
    op = tensor.op
    while op.type == "Identity":
        op = op.inputs[0].op
    return op


def _squared_difference(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    difference = t.add(op, "Sub", [t.tensor(tensor) for tensor in op.inputs])
    return t.add(op, "Mul", [difference, difference])


def _square(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    source = t.tensor(op.inputs[0])
    return t.add(op, "Mul", [source, source])


def _rsqrt(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    return t.add(op, "Reciprocal", t.add(op, "Sqrt", t.tensor(op.inputs[0])))


def _reduce(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
    """Mean or sum over some dimensions."""
    rank = len(op.inputs[0].shape.as_list())
    axes = sorted(int(axis) % rank for axis in np.atleast_1d(values[1]))
    keeps = bool(op.get_attr("keep_dims"))
    source = t.tensor(op.inputs[0])
    if op.type == "Mean" and rank == 4 and axes == [1, 2]:
        batch, channels = t.graph.shapes[source][:2]
        pooled = t.graph.add("GlobalAveragePool", source, [batch, channels, 1, 1])
        return pooled if keeps else t.graph.add("Flatten", pooled, [batch, channels], axis=1)
    order = channels_first(list(range(rank)))
    places = sorted(order.index(axis) for axis in axes)
    return t.add(op, f"Reduce{op.type}", source, axes=places, keepdims=int(keeps))


def _unary(kind: str) -> Callable:
    def translate_unary(t: _Translator, op: tf.Operation, values: List[Any]) -> Any:
        return t.add(op, kind, t.tensor(op.inputs[0]))

    return translate_unary


BINARY = {"Add": "Add", "AddV2": "Add", "Sub": "Sub", "Mul": "Mul", "RealDiv": "Div"}
BINARY["Maximum"] = "Max"
NUMPY = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Max": np.maximum}

OPERATIONS: Dict[str, Callable] = {
    "BiasAdd": _bias_add,
    "Cast": _cast,
    "Const": _constant,
    "Conv2D": _convolution,
    "DepthwiseConv2dNative": _convolution,
    "FusedBatchNormV3": _batch_norm,
    "Identity": _same,
    "MatMul": _matrix_product,
    "MaxPool": _max_pool,
    "Mean": _reduce,
    "Neg": _unary("Neg"),
    "Pack": _pack,
    "Pad": _pad,
    "ReadVariableOp": _same,
    "Relu": _unary("Relu"),
    "Reshape": _reshape,
    "Rsqrt": _rsqrt,
    "Shape": _shape,
    "Sigmoid": _unary("Sigmoid"),
    "Square": _square,
    "SquaredDifference": _squared_difference,
    "Squeeze": _squeeze,
    "StopGradient": _same,
    "StridedSlice": _slice,
    "Sum": _reduce,
    "Transpose": _transpose,
    "VarHandleOp": _variable,
}
OPERATIONS.update({kind: _binary for kind in BINARY})
