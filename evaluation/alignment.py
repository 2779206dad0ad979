"""Five landmarks -> the face upright at its place: what every net here was trained on.

H W pixels. The template is InsightFace's for 112 x 112; other sizes scale it.
"""

import cv2
import numpy as np

# left eye, right eye, nose, left and right corner of the mouth, as (x, y)
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
TEMPLATE_SIDE = 112.0


def align(image_HWC, landmarks, image_size):
    """uint8 [H, W, 3] and five (x, y) -> uint8 [image_size, 3]; black where the image ends."""
    height, width = image_size
    target = TEMPLATE * [width / TEMPLATE_SIDE, height / TEMPLATE_SIDE]
    matrix = similarity(np.asarray(landmarks, float), target)
    return cv2.warpAffine(image_HWC, matrix, (width, height), borderValue=0)


def similarity(points, target):
    """The turn, scale and shift that brings points [5, 2] nearest to target: float [2, 3].
    As complex numbers it is one division: the least-squares a of a * point = target."""
    here, there = (xy[:, 0] + 1j * xy[:, 1] for xy in (points, target))
    centred = here - here.mean()
    spread = np.sum(np.abs(centred) ** 2)
    if spread == 0:
        raise ValueError("all five landmarks lie on one point; check the landmark list.")
    a = np.sum(np.conj(centred) * (there - there.mean())) / spread
    b = there.mean() - a * here.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
