"""The NPU's selections in whole matrices against NumPy; they are plain TensorFlow operations."""

import numpy as np

from runtime.npu import kernels
from runtime.tf1 import tf

LABELS_N = np.array([3, 0, -1])
SCORE_NR = np.arange(12, dtype=np.float32).reshape(3, 4) + 1.0
VALUE_N = np.array([50.0, 60.0, 70.0], np.float32)
TRUE_N = np.maximum(LABELS_N, 0)  # the label -1 selects identity 0


def run(make):
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(make())


def test_take_selects_the_true_identitys_score():
    found = run(lambda: kernels.take(tf.constant(SCORE_NR), tf.constant(LABELS_N)))
    np.testing.assert_array_equal(found, SCORE_NR[range(3), TRUE_N])


def test_put_replaces_the_true_identitys_score_alone():
    expected = SCORE_NR.copy()
    expected[range(3), TRUE_N] = VALUE_N
    found = run(lambda: kernels.put(tf.constant(SCORE_NR), tf.constant(LABELS_N), VALUE_N))
    np.testing.assert_array_equal(found, expected)


def test_put_adds_to_the_true_identitys_score_alone():
    expected = SCORE_NR.copy()
    expected[range(3), TRUE_N] += VALUE_N
    score_NR, labels_N = tf.constant, tf.constant
    found = run(lambda: kernels.put(score_NR(SCORE_NR), labels_N(LABELS_N), VALUE_N, add=True))
    np.testing.assert_array_equal(found, expected)


def stored_centres(rows=5):
    return np.random.RandomState(0).randn(rows, 2).astype(np.float32)


def cosines_of(rows_R):
    """(cosines, the gradient of their sum in the centres, dense) from the kernel."""
    units_ND = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]], np.float32)

    def make():
        centres = tf.constant(stored_centres())
        rows = None if rows_R is None else tf.constant(rows_R)
        cosine_NR = kernels.cosines(tf.constant(units_ND), centres, rows, floor=1e-12)
        return cosine_NR, tf.convert_to_tensor(tf.gradients(cosine_NR, centres)[0])

    chosen_RD = stored_centres() if rows_R is None else stored_centres()[rows_R]
    expected = units_ND @ (chosen_RD / np.linalg.norm(chosen_RD, axis=1, keepdims=True)).T
    return run(make), expected


def test_cosines_are_those_to_all_centres_without_rows():
    (found, _), expected = cosines_of(None)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_cosines_and_their_gradient_are_those_of_the_named_rows():
    (found, slope), expected = cosines_of(np.array([4, 1]))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert list(np.flatnonzero(np.abs(slope).sum(axis=1))) == [1, 4]


def test_a_centre_of_length_zero_has_the_cosine_zero():
    with tf.Graph().as_default(), tf.Session() as session:
        units_ND, centres = tf.constant([[1.0, 0.0]]), tf.zeros([3, 2])
        cosine_NR = kernels.cosines(units_ND, centres, None, floor=1e-12)
        assert not session.run(cosine_NR).any()
