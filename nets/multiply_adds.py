"""Multiplications and additions of a graph's operations, counted from their shapes.

Convolutions, their gradients and matrix products; every other operation counts 0. N images, H W
pixels, C F channels.
"""

from typing import List, Optional

import numpy as np

from runtime.tf1 import tf


def multiply_adds(op: tf.Operation, rows: int = 1) -> int:
    """Of one operation. rows: what a size that is not static stands for in a matrix product."""
    count = _COUNTS.get(op.type)
    return 0 if count is None else int(count(op, rows))


def _convolution(output: tf.Tensor, kernel: Optional[List[int]]) -> int:
    """kernel: [height, width, C, F], C of a group."""
    if kernel is None or not output.shape.is_fully_defined():
        return 0
    return int(np.prod(output.shape.as_list() + kernel[:3], dtype=np.int64))


def _depthwise(output: tf.Tensor, kernel: Optional[List[int]]) -> int:
    if kernel is None or not output.shape.is_fully_defined():
        return 0
    return int(np.prod(output.shape.as_list() + kernel[:2], dtype=np.int64))


def _shape(tensor: tf.Tensor) -> Optional[List[int]]:
    return tensor.shape.as_list() if tensor.shape.is_fully_defined() else None


def _sizes(tensor: tf.Tensor) -> Optional[List[int]]:
    """The value of a constant of sizes."""
    value = tf.get_static_value(tensor)
    return None if value is None else [int(size) for size in value]


def _product(op: tf.Operation, rows: int) -> int:
    """A [.., M, K] @ B [.., K, N]; the one size that is not static is that of a block of rows."""
    first, second = (tensor.shape for tensor in op.inputs[:2])
    if first.rank is None or second.rank is None:
        return 0
    names = ("transpose_a", "transpose_b") if op.type == "MatMul" else ("adj_x", "adj_y")
    left, right = first.as_list(), second.as_list()
    if op.get_attr(names[0]):
        left[-2:] = left[:-3:-1]
    if op.get_attr(names[1]):
        right[-2:] = right[:-3:-1]
    inner = left[-1] if left[-1] is not None else right[-2]
    sizes = left[:-1] + [inner, right[-1]]
    return int(np.prod([rows if size is None else size for size in sizes], dtype=np.int64))


_COUNTS = {
    "Conv2D": lambda op, _: _convolution(op.outputs[0], _shape(op.inputs[1])),
    "Conv2DBackpropInput": lambda op, _: _convolution(op.inputs[2], _shape(op.inputs[1])),
    "Conv2DBackpropFilter": lambda op, _: _convolution(
        op.inputs[2], _shape(op.outputs[0]) or _sizes(op.inputs[1])
    ),
    "DepthwiseConv2dNative": lambda op, _: _depthwise(op.outputs[0], _shape(op.inputs[1])),
    "DepthwiseConv2dNativeBackpropInput": lambda op, _: _depthwise(
        op.inputs[2], _shape(op.inputs[1])
    ),
    "DepthwiseConv2dNativeBackpropFilter": lambda op, _: _depthwise(
        op.inputs[2], _shape(op.outputs[0]) or _sizes(op.inputs[1])
    ),
    "MatMul": _product,
    "BatchMatMul": _product,
    "BatchMatMulV2": _product,
}
