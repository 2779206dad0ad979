"""Floating-point operations of a step, counted from the shapes in its graph.

Convolutions and matrix products alone, which are nearly all: 2 per multiplication and addition.
With --recompute the recomputed ones count too.
"""

from typing import Any, List, Optional, Sequence

from nets.multiply_adds import multiply_adds
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
    return 2 * sum(multiply_adds(op, rows) for run in runs for op in needed([run]))
