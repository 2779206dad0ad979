"""From a photo to the crop that is embedded: every doubtful photo is refused by its code."""

import cv2
import numpy as np
import pytest

from faces.alignment import template
from faces.cropping import crop_photo
from faces.detection import Detector, Face
from faces.photo import PhotoError
from tests.serving.tiny_models import SIDE, face, photo

SIZE = (SIDE, SIDE)


class Fixed(Detector):
    """Finds the faces that tiny_models.photo() draws, because it knows where they are."""

    def __init__(self, count, side=200):
        super().__init__()
        self._count, self._side = count, side

    def detect(self, image_HWC):
        points = template(SIZE) * self._side / SIDE + 60
        return [
            Face(60 + n * self._side, 60, self._side, self._side, points + [n * self._side, 0], 0.9)
            for n in range(self._count)
        ]


def code(encoded, detector, **more):
    with pytest.raises(PhotoError) as caught:
        crop_photo(encoded, detector, SIZE, **more)
    return caught.value.code


def decoded(encoded):
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def test_finished_crop_is_taken_as_it_is():
    crop = crop_photo(face(1), None, SIZE)
    np.testing.assert_array_equal(crop.image_HWC, decoded(face(1)))
    assert crop.face is None and 0 < crop.quality <= 1


def test_photo_is_aligned_to_the_crop_that_it_was_made_of():
    crop = crop_photo(photo([2]), Fixed(1), SIZE)
    difference = np.abs(crop.image_HWC.astype(int) - decoded(face(2)))
    assert crop.image_HWC.shape == SIZE + (3,) and difference.mean() < 12


def test_photo_without_a_detector_is_refused():
    assert code(photo([2]), None) == "no_detector"


def test_photo_without_a_face_is_refused():
    assert code(photo([2]), Fixed(0)) == "no_face"


def test_several_faces_are_refused_unless_the_largest_is_wanted():
    assert code(photo([2, 3]), Fixed(2)) == "several_faces"
    assert crop_photo(photo([2, 3]), Fixed(2), SIZE, largest=True).face.x == 60


def test_small_face_is_refused():
    assert code(photo([2], 30), Fixed(1, 30)) == "face_too_small"
    assert crop_photo(photo([2], 38), Fixed(1, 38), SIZE, smallest_face=38).face.side == 38


def test_blurred_face_is_refused():
    blurred = cv2.GaussianBlur(decoded(photo([2])), (0, 0), 12)
    encoded = cv2.imencode(".png", blurred[:, :, ::-1])[1].tobytes()
    assert code(encoded, Fixed(1)) == "blurred"


def test_blurred_crop_is_refused():
    encoded = cv2.imencode(".png", np.full(SIZE + (3,), 128, np.uint8))[1].tobytes()
    assert code(encoded, None) == "blurred"
