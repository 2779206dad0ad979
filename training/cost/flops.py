"""Floating-point operations of a step, counted from the shapes in its graph.

Convolutions and matrix products alone, which are nearly all: 2 per multiplication and addition.
With --recompute the recomputed ones count too. N images, H W pixels, C F channels.
"""

from typing import Any, List, Optional, Sequence

import numpy as np

from runtime.tf1 import tf
from training.cost.peak_memory import needed
from training.graph.step import StepOps

# TFLOP/s of one GPU by the start of its name: float32 as TensorFlow 2 computes it (TF32 where the
# card has it), then bf16 and fp16; dense, from the vendors' data sheets. First match wins.
PEAKS = (
    ("NVIDIA H100 PCIe", 378.0, 756.0),
    ("NVIDIA H100", 494.7, 989.4),
    ("NVIDIA H200", 494.7, 989.4),
    ("NVIDIA A100", 156.0, 312.0),
    ("NVIDIA A10G", 35.0, 70.0),
    ("NVIDIA A10", 62.5, 125.0),
    ("NVIDIA L40S", 183.0, 362.0),
    ("NVIDIA L4", 60.0, 121.0),
    ("Tesla V100", 15.7, 125.0),
    ("Tesla T4", 8.1, 65.0),
    ("NVIDIA GeForce RTX 4090", 82.6, 165.2),
    ("NVIDIA GeForce RTX 3090", 35.6, 71.0),
)


def peak_of(names: Sequence[str], precision: str) -> Optional[float]:
    """FLOP/s of one device by the names of all, for --precision; None where one is not known."""
    found = [_peak(name, precision) for name in names]
    known = [peak for peak in found if peak is not None]
    return min(known) if known and len(known) == len(found) else None


def _peak(name: str, precision: str) -> Optional[float]:
    for start, full, half in PEAKS:
        if name.startswith(start):
            return 1e12 * (full if precision == "fp32" else half)
    return None


def step_flops(ops: StepOps, rows: int) -> int:
    """Floating-point operations of this process in a step. rows: of a rank's class centers that a
    step reads; the head computes them in blocks of a loop, whose shapes do not show how many."""
    runs: List[Any] = [ops.train] + list(ops.accumulate)
    return sum(_flops(op, rows) for run in runs for op in needed([run]))


def _flops(op: tf.Operation, rows: int) -> int:
    count = _COUNTS.get(op.type)
    return 0 if count is None else int(count(op, rows))


def _convolution(output: tf.Tensor, kernel: Optional[List[int]]) -> int:
    """kernel: [height, width, C, F], C of a group."""
    if kernel is None or not output.shape.is_fully_defined():
        return 0
    return 2 * int(np.prod(output.shape.as_list() + kernel[:3], dtype=np.int64))


def _depthwise(output: tf.Tensor, kernel: Optional[List[int]]) -> int:
    if kernel is None or not output.shape.is_fully_defined():
        return 0
    return 2 * int(np.prod(output.shape.as_list() + kernel[:2], dtype=np.int64))


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
    return 2 * int(np.prod([rows if size is None else size for size in sizes], dtype=np.int64))


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
