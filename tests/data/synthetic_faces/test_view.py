"""The camera's rotation."""

import numpy as np

from data.synthetic_faces.view import rotation_of


def test_a_rotation_keeps_lengths_and_handedness():
    turn = np.asarray(rotation_of(30.0, -10.0, 5.0), np.float64)
    facing = np.asarray(rotation_of(0.0, 0.0, 0.0), np.float64)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(turn) * np.linalg.det(facing) > 0
