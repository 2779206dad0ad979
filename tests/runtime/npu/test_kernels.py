import numpy as np
import pytest

from runtime.npu import kernels
from runtime.tf1 import tf

SCORE_NR = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)
LABELS_N = np.array([2, -1], np.int64)  # -1: no identity of this matrix, read as identity 0


def value(make):
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(make(tf.constant(SCORE_NR), tf.constant(LABELS_N)))


def test_take_reads_the_true_identity():
    np.testing.assert_array_equal(value(kernels.take), [3.0, 4.0])


def test_put_writes_the_true_identity():
    found = value(lambda score, labels: kernels.put(score, labels, tf.constant([7.0, 8.0])))
    np.testing.assert_array_equal(found, [[1.0, 2.0, 7.0], [8.0, 5.0, 6.0]])


def test_put_adds_to_the_true_identity():
    found = value(
        lambda score, labels: kernels.put(score, labels, tf.constant([7.0, 8.0]), add=True)
    )
    np.testing.assert_array_equal(found, [[1.0, 2.0, 10.0], [12.0, 5.0, 6.0]])


@pytest.mark.parametrize("rows", [None, [2, 0]])
def test_cosines_are_those_to_the_chosen_centres(rows):
    units_ND = np.array([[0.6, 0.8]], np.float32)
    centres_KD = np.array([[2.0, 0.0], [0.0, 3.0], [4.0, 4.0]], np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        rows_R = None if rows is None else tf.constant(rows)
        found_NR = session.run(
            kernels.cosines(tf.constant(units_ND), tf.constant(centres_KD), rows_R, 1e-12)
        )
    chosen_RD = centres_KD[rows if rows else [0, 1, 2]]
    wanted_NR = units_ND @ (chosen_RD / np.linalg.norm(chosen_RD, axis=1, keepdims=True)).T
    np.testing.assert_allclose(found_NR, wanted_NR, rtol=1e-5)
