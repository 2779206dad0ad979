"""A photograph is a function of the person and the shot."""

import numpy as np

from data.synthetic_faces.head import draw_identity
from data.synthetic_faces.portrait import Portrait, draw_shot


def test_the_same_shot_gives_the_same_pixels_and_another_one_others():
    portrait = Portrait(draw_identity(np.random.RandomState(1)), 48)
    first, second = (draw_shot(np.random.RandomState(seed), "frontal") for seed in (2, 3))
    image = portrait.take(first)
    assert image.shape == (48, 48, 3) and image.dtype == np.uint8
    assert not (portrait.take(second) == image).all()
    again = portrait.take(draw_shot(np.random.RandomState(2), "frontal"))
    assert (again == image).all()
