"""Embeddings scaled to length 1: what a bank holds and a search multiplies. N rows, D embedding."""

from typing import Optional, Sequence

import numpy as np


def unit(embeddings_ND: np.ndarray, width: Optional[int] = None) -> np.ndarray:
    """Unit vectors of the rows: float32 [N, D]; rows that have no direction are refused."""
    rows_ND = np.atleast_2d(np.asarray(embeddings_ND, np.float32))
    if width is not None and rows_ND.shape[1] != width:
        raise ValueError(
            f"embeddings have {rows_ND.shape[1]} numbers, but the bank's have {width}; use the "
            "model that built the bank."
        )
    lengths_N1 = np.linalg.norm(rows_ND.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(rows_ND).all() or not (lengths_N1 > 0).all():
        raise ValueError("an embedding is zero or not finite; check the model.")
    return (rows_ND / lengths_N1).astype("<f4")


def is_unit(blob: bytes, width: int) -> bool:
    """Whether stored bytes are a float32 vector [width] of length 1."""
    if len(blob) != 4 * width:
        return False
    length = float(np.linalg.norm(np.frombuffer(blob, "<f4")))
    return bool(abs(length - 1) < 1e-4)  # False for NaN


def stacked(rows_D: Sequence[np.ndarray]) -> np.ndarray:
    """Embeddings as one array, float32 [N, D]; a ValueError where they are of several widths."""
    shapes = {np.shape(row_D) for row_D in rows_D}
    if len(shapes) != 1:
        raise ValueError(
            f"embeddings have {len(shapes)} different shapes; give those of one model."
        )
    return np.array(rows_D, np.float32)
