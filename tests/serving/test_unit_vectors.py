"""Rows of length 1, and rows that have no direction."""

import numpy as np
import pytest

from serving.unit_vectors import is_unit, stacked, unit

ROWS = np.random.RandomState(0).randn(3, 5).astype(np.float32)


def test_rows_become_unit_vectors_of_the_same_direction():
    lengths_N1 = np.linalg.norm(ROWS, axis=1, keepdims=True)
    np.testing.assert_allclose(unit(1e3 * ROWS) * lengths_N1, ROWS, rtol=1e-5)


def test_single_vector_is_a_row():
    assert unit(ROWS[0]).shape == (1, 5)


@pytest.mark.parametrize("row", [np.zeros(5), np.full(5, np.nan), np.full(5, np.inf)])
def test_row_without_direction_is_refused(row):
    with pytest.raises(ValueError, match="zero or not finite"):
        unit(row)


def test_row_of_another_width_is_refused():
    with pytest.raises(ValueError, match="have 5 numbers, but the bank's have 6"):
        unit(ROWS, 6)


@pytest.mark.parametrize(
    "row, width, sound", [(unit(ROWS)[0], 5, True), (unit(ROWS)[0], 6, False), (ROWS[0], 5, False)]
)
def test_stored_vector_is_checked(row, width, sound):
    assert is_unit(row.tobytes(), width) == sound


def test_stored_nan_is_no_unit_vector():
    assert not is_unit(np.full(5, np.nan, np.float32).tobytes(), 5)


def test_embeddings_of_two_widths_are_refused():
    with pytest.raises(ValueError, match="2 different shapes"):
        stacked([ROWS[0], ROWS[1, :3]])
