"""Identities are functions of their random state."""

import numpy as np

from data.synthetic_faces.head import draw_identity, hair, heights


def identity(seed):
    return draw_identity(np.random.RandomState(seed))


def test_the_same_seed_draws_the_same_person():
    one, same, other = identity(1), identity(1), identity(2)
    assert repr(one) == repr(same) != repr(other)


def test_rows_of_the_head_run_in_one_direction_and_hair_is_not_negative():
    y_V, share_V = heights(identity(3))
    steps = np.diff(y_V)
    assert (steps > 0).all() or (steps < 0).all()
    assert share_V.min() >= 0 and share_V.max() <= 1
    thickness_VU, share_VU = hair(identity(3))
    assert thickness_VU.min() >= 0 and 0 <= share_VU.min() and share_VU.max() <= 1
