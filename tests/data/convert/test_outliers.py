"""Outliers of sub-centers against values computed by eye."""

import numpy as np

from data.convert.outliers import centre_cosines, dominant_centres, near_dominant

LABEL_N = np.array([0, 0, 1])
CENTRES_KSD = np.array([[[1, 0], [0, 2]], [[0, 1], [3, 0]]], np.float32)
EMBEDDED_ND = np.array([[2, 0], [1, 1], [0, 5]], np.float32)


def test_cosines_are_with_the_centres_of_ones_own_identity():
    found = centre_cosines(EMBEDDED_ND, LABEL_N, CENTRES_KSD)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(found, [[1, 0], [half, half], [1, 0]], atol=1e-6)


def test_the_dominant_centre_has_most_images():
    cosine_NS = np.array([[0.1, 0.9], [0.2, 0.8], [0.7, 0.3]], np.float32)
    assert dominant_centres(cosine_NS, np.array([0, 0, 0]), 1).tolist() == [1]


def test_images_far_from_the_dominant_centre_are_outliers():
    cosine_NS = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.99]], np.float32)
    assert near_dominant(cosine_NS, np.array([0, 0, 0]), 1, 75).tolist() == [True, True, False]
