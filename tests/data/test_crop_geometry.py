"""The shift between mean faces, on drawn faces that are moved."""

import numpy as np
import pytest

from data.crop_geometry import FEWEST, Shift, describe, face_shift, is_misaligned, spread

SIZE, COUNT = 112, 64


def faces(seed, down=0, right=0, count=COUNT):
    """uint8 [N, H, W, 3]: eyes, nose and mouth of people who differ a little, under noise; cut
    `down` and `right` pixels off, with black where the crop ends."""
    random = np.random.RandomState(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for image in images:
        picture = random.uniform(60, 180) + random.normal(0, 12, (SIZE, SIZE))
        for row, column, spread_of, depth in (
            (51, 38, 5, -70),
            (51, 74, 5, -70),
            (72, 56, 6, 40),
            (92, 56, 9, -50),
        ):
            row, column = row + random.normal(0, 1.5), column + random.normal(0, 1.5)
            distance = (rows - row) ** 2 + (columns - column) ** 2
            picture = picture + depth * np.exp(-distance / (2 * spread_of**2))
        image[:] = np.clip(picture, 0, 255)[..., None]
    moved = np.roll(images, (down, right), axis=(1, 2))
    if down > 0:
        moved[:, :down] = 0
    if right > 0:
        moved[:, :, :right] = 0
    return moved


@pytest.fixture(scope="module")
def training():
    return faces(0)


@pytest.mark.parametrize("move", [(8, 0), (0, 8), (6, 5), (-8, 3)])
def test_the_shift_of_moved_crops_is_found(training, move):
    shift = face_shift(training, faces(1, *move))
    assert shift is not None and max(np.abs(np.subtract(shift, move))) <= 1
    assert is_misaligned(shift, SIZE)


@pytest.mark.parametrize("move", [(0, 0), (1, 0), (0, -1)])
def test_one_pixel_is_no_other_template(training, move):
    assert not is_misaligned(face_shift(training, faces(1, *move)), SIZE)


def test_images_without_a_common_structure_have_no_shift(training):
    noise = np.random.RandomState(3).randint(0, 255, (COUNT, SIZE, SIZE, 3)).astype(np.uint8)
    assert face_shift(training, noise) is None
    assert face_shift(np.full_like(noise, 7), training) is None


def test_few_images_have_no_shift(training):
    assert face_shift(training, training[: FEWEST - 1]) is None
    assert not is_misaligned(None, SIZE)


def test_a_shift_is_described():
    assert describe(Shift(8, 0)) == "8 pixels down"
    assert describe(Shift(-3, -1)) == "3 pixels up and 1 pixel to the left"
    assert describe(Shift(0, 0)) == "by nothing"


def test_images_are_taken_from_the_whole_set():
    assert spread([b"%d" % i for i in range(101)], 3) == [b"0", b"50", b"100"]
    assert spread([b"a", b"b"], 9) == [b"a", b"b"]
