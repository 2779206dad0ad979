"""Painting on skin."""

import numpy as np

from data.synthetic_faces.skin import blend_polygon, muted


def test_a_polygon_is_filled_inside_and_nothing_changes_outside():
    image = np.zeros((20, 20, 3), np.float32)
    blend_polygon(image, np.array([[5, 5], [15, 5], [15, 15], [5, 15]], float), (9, 8, 7))
    np.testing.assert_allclose(image[10, 10], [9, 8, 7], atol=0.1)
    assert not image[:3].any() and not image[18:].any()


def test_muted_colours_are_finite_and_differ_by_seed():
    first, second = (muted(np.random.RandomState(seed)) for seed in (0, 1))
    assert np.isfinite(first).all() and len(first) == 3 and not (first == second).all()
