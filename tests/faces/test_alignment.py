"""Alignment: a known rotation, scale and shift is undone, and what is no face is refused."""

import cv2
import numpy as np
import pytest

from faces.alignment import align, similarity, template


def turned(points_N2, angle, scale, shift):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points_N2 @ turn.T + shift


def test_similarity_recovers_a_known_motion():
    points = np.array([[0.0, 1], [4, 2], [3, 7], [1, 1.5]])
    moved = turned(points, 0.7, 2.5, [10, -3])
    matrix = similarity(points, moved)
    np.testing.assert_allclose(points @ matrix[:, :2].T + matrix[:, 2], moved, atol=1e-9)


def test_similarity_is_the_least_squares_fit():
    rng = np.random.RandomState(0)
    points, targets = rng.rand(5, 2), rng.rand(5, 2)
    rows = [[x, -y, 1, 0] for x, y in points] + [[y, x, 0, 1] for x, y in points]
    a, b, c, d = np.linalg.lstsq(np.array(rows), targets.T.ravel(), rcond=None)[0]
    np.testing.assert_allclose(similarity(points, targets), [[a, -b, c], [b, a, d]], atol=1e-9)


def test_template_scales_with_the_height_and_narrows_evenly():
    np.testing.assert_allclose(template((224, 224)), 2 * template((112, 112)))
    np.testing.assert_allclose(template((112, 96)), template((112, 112)) - [8, 0])


def test_crop_of_112x96_is_the_square_crop_without_8_pixels_at_each_side():
    rows, columns = np.mgrid[:180, :200]
    image = np.stack([rows, columns, rows // 2 + columns // 3], axis=-1).astype(np.uint8)
    landmarks = turned(template((112, 112)), 0.2, 1.3, [20, 15])
    square, narrow = align(image, landmarks, (112, 112)), align(image, landmarks, (112, 96))
    # neighbouring pixels differ by less than 2 levels, and OpenCV rounds places to 1/32 pixel
    np.testing.assert_allclose(narrow.astype(int), square[:, 8:-8].astype(int), atol=1)


def test_eyes_are_as_far_apart_in_a_narrow_crop():
    (left, right) = template((112, 96))[:2]
    square_left, square_right = template((112, 112))[:2]
    np.testing.assert_allclose(right - left, square_right - square_left)


def test_align_brings_landmarks_to_the_template():
    landmarks = turned(template((112, 112)), 0.4, 1.7, [60, 20])
    image = np.zeros((400, 400, 3), np.uint8)
    for x, y in landmarks:
        cv2.circle(image, (int(round(x)), int(round(y))), 5, (255, 255, 255), -1)
    aligned = align(image, landmarks, (112, 112))
    assert aligned.shape == (112, 112, 3)
    for x, y in template((112, 112)):
        assert aligned[int(round(y)), int(round(x))].min() > 200
    assert aligned[5, 5].max() == 0


@pytest.mark.parametrize(
    "points, words",
    [
        (template((112, 112)).T.reshape(5, 2), "no face"),
        (template((112, 112))[:, ::-1], "no face"),
        (np.ones((5, 2)), "one place"),
    ],
)
def test_landmarks_in_another_order_are_refused(points, words):
    with pytest.raises(ValueError, match=words):
        align(np.zeros((112, 112, 3), np.uint8), points, (112, 112))


def test_landmarks_of_a_profile_are_accepted_without_a_largest_misfit():
    image = np.full((112, 112, 3), 9, np.uint8)
    profile = template((112, 112)) * [0.2, 1] + [40, 0]
    with pytest.raises(ValueError, match="no face"):
        align(image, profile, (112, 112))
    assert align(image, profile, (112, 112), largest_misfit=None).shape == (112, 112, 3)
