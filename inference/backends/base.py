"""What every backend offers: a loaded model that turns one input array into embeddings.

B images of a run, D embedding.
"""

from typing import Any, NamedTuple, Optional, Tuple

import numpy as np


class ModelOptions(NamedTuple):
    """How to load and run a model."""

    threads: Optional[int] = None  # CPU threads of one run; None: all cores of the process
    precision: str = "fp32"  # fp32, bf16 or int8, where the backend has it
    device: str = "cpu"  # cpu, gpu or npu, where the backend has it
    batch_size: Optional[int] = None  # images in one run; None: measure which number is fastest


class Backend:
    """A loaded model. Subclasses set the three fields and define run.

    input_shape: (batch, ...), the batch None where the model takes any number of images.
    input_dtype: NumPy's name of the element type. outputs: how many outputs the model has.
    """

    input_shape: Tuple[Optional[int], ...]
    input_dtype: str
    outputs: int = 1

    def run(self, x: np.ndarray) -> np.ndarray:
        """The model's input [B, ...] -> float32 [B, D]."""
        raise NotImplementedError

    def close(self) -> None:
        """Releases what the model holds."""

    @property
    def channels_first(self) -> bool:
        """Whether the input is [B, 3, H, W] and not [B, H, W, 3]."""
        return len(self.input_shape) == 4 and self.input_shape[1] == 3

    @property
    def image_size(self) -> Optional[Tuple[int, int]]:
        """(height, width) of the input, None where the model leaves them open."""
        height, width = self.input_shape[2:4] if self.channels_first else self.input_shape[1:3]
        return None if height is None or width is None else (int(height), int(width))


def as_shape(dimensions: Any) -> Tuple[Optional[int], ...]:
    """A runtime's dimensions -> ints, and None for a dynamic one (a name, -1 or None)."""
    fixed = (size if isinstance(size, int) and size > 0 else None for size in dimensions)
    return tuple(fixed)
