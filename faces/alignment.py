"""Five landmarks of a face -> the upright crop that face-recognition nets are trained on.

Points are (x, y) in pixels: the viewer's left eye, right eye, nose, left and right mouth corner.
"""

from typing import Optional, Tuple

import numpy as np

TEMPLATE_52 = np.array(  # of a 112 x 112 crop, as InsightFace publishes it
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
TEMPLATE_SIZE = 112
LARGEST_MISFIT = 0.25  # of the distance between the eyes; landmarks in another order miss by more


def template(image_size: Tuple[int, int]) -> np.ndarray:
    """Where the five points belong in a crop of (height, width): float64 [5, 2].

    The face scales with the height; a narrower crop (112 x 96) loses the same on both sides."""
    height, width = image_size
    points_52 = TEMPLATE_52 * (height / TEMPLATE_SIZE)
    points_52[:, 0] += (width - height) / 2
    return points_52


def similarity(from_N2: np.ndarray, to_N2: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift that brings points closest to others: float64 [2, 3].

    Least squares in closed form; no mirroring (two points, or all in one place, do not suffice)."""
    from_mean, to_mean = from_N2.mean(axis=0), to_N2.mean(axis=0)
    x, y = (from_N2 - from_mean).T
    u, v = (to_N2 - to_mean).T
    spread = (x * x + y * y).sum()
    if not np.isfinite(spread) or spread < 1e-6:
        raise ValueError("has landmarks that all lie in one place")
    cosine, sine = (x * u + y * v).sum() / spread, (x * v - y * u).sum() / spread
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.concatenate([turn, (to_mean - turn @ from_mean)[:, None]], axis=1)


def align(
    image_HWC: np.ndarray,
    points_52: np.ndarray,
    image_size: Tuple[int, int],
    largest_misfit: Optional[float] = LARGEST_MISFIT,
) -> np.ndarray:
    """uint8 [H, W, C] and its landmarks -> uint8 [height, width, C]; outside the image is black.

    largest_misfit: of the distance between the eyes; None accepts any landmarks, as IJB's protocol
    requires (its profile faces miss the frontal template by more)."""
    import cv2

    points_52, wanted_52 = np.asarray(points_52, np.float64), template(image_size)
    matrix = similarity(points_52, wanted_52)
    misfit = np.abs(points_52 @ matrix[:, :2].T + matrix[:, 2] - wanted_52).max()
    eyes = wanted_52[1, 0] - wanted_52[0, 0]
    if largest_misfit is not None and misfit > largest_misfit * eyes:
        raise ValueError(
            f"has landmarks that are no face: after alignment one is {misfit:.0f} pixels off; give "
            "left eye, right eye, nose, left and right mouth corner as the viewer sees them"
        )
    height, width = image_size
    return cv2.warpAffine(image_HWC, matrix, (width, height), flags=cv2.INTER_LINEAR)
