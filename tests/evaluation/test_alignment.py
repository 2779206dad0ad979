import numpy as np
import pytest

from evaluation.alignment import TEMPLATE, align, similarity


def test_similarity_undoes_a_turn_a_scale_and_a_shift():
    angle, scale = 0.4, 1.7
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = TEMPLATE @ turn.T + [31.0, -12.0]
    matrix = similarity(moved, TEMPLATE)
    np.testing.assert_allclose(moved @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=1e-9)


def test_similarity_is_the_best_in_least_squares():
    points = TEMPLATE + np.random.RandomState(0).randn(5, 2) * 4
    matrix = similarity(points, TEMPLATE)

    def error(matrix):
        return ((points @ matrix[:, :2].T + matrix[:, 2] - TEMPLATE) ** 2).sum()

    for a, b in ((0.01, 0.0), (0.0, 0.01), (-0.01, 0.0), (0.0, -0.01)):
        assert error(matrix + [[a, -b, 0], [b, a, 0]]) > error(matrix)


@pytest.mark.parametrize("size", [(112, 112), (56, 28)])
def test_an_aligned_nose_lies_on_the_template(size):
    landmarks = TEMPLATE * 0.9 + [20, 8]
    image_HWC = np.zeros((140, 150, 3), np.uint8)
    x, y = landmarks[2].round().astype(int)
    image_HWC[y - 3 : y + 4, x - 3 : x + 4] = 255
    aligned_HWC = align(image_HWC, landmarks, size)
    assert aligned_HWC.shape == size + (3,)
    rows, columns = np.nonzero(aligned_HWC[:, :, 0] > 100)
    nose = TEMPLATE[2] * [size[1] / 112, size[0] / 112]
    np.testing.assert_allclose([columns.mean(), rows.mean()], nose, atol=1.0)


def test_landmarks_on_one_point_are_refused():
    with pytest.raises(ValueError, match="one point"):
        similarity(np.ones((5, 2)), TEMPLATE)
