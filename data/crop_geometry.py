"""How far the faces of two data sets are shifted against each other.

A network that is evaluated on crops cut with another template than its training images loses
accuracy, and both sets look right. Their mean faces do not coincide.

N images, H W pixels, C channels.
"""

from typing import List, NamedTuple, Optional, Sequence

import numpy as np

FEWEST = 48  # images of a set: below, a mean shows single people
IMAGES = 256  # of each set that are averaged
ALLOWED = 2.5 / 112  # of the image's height: templates in use differ by 8 of 112 pixels or by none
CERTAIN = 0.35  # height of the correlation's peak, 1 for equal means
WAVES = 12  # cycles per image up to which mean faces agree; finer detail is of single people


class Shift(NamedTuple):
    """Pixels by which the mean face of the second set lies from that of the first."""

    down: int
    right: int


def face_shift(first_NHWC: np.ndarray, second_NHWC: np.ndarray) -> Optional[Shift]:
    """The Shift of two sets of aligned faces by phase correlation of their means; None where there
    are too few images, or where the means have no common structure."""
    if min(len(first_NHWC), len(second_NHWC)) < FEWEST:
        return None
    means = [images.mean(axis=(0, 3)) for images in (first_NHWC, second_NHWC)]
    first_HW, second_HW = map(_windowed, means)
    cross = np.fft.fft2(second_HW) * np.conj(np.fft.fft2(first_HW))
    height, width = first_HW.shape
    waves = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) * n for n in (height, width)), indexing="ij"))
    used = (waves > 0.5) & (waves <= WAVES)
    phase = np.where(used, cross / np.maximum(np.abs(cross), 1e-12), 0.0)
    peaks_HW = np.fft.ifft2(phase).real * (height * width / used.sum())
    down, right = divmod(int(np.argmax(peaks_HW)), width)
    if peaks_HW[down, right] < CERTAIN:
        return None
    return Shift(  # peaks wrap around
        down - height if down > height // 2 else down,
        right - width if right > width // 2 else right,
    )


def _windowed(mean_HW: np.ndarray) -> np.ndarray:
    """The mean face without the frame, at which padding and backgrounds have an edge."""
    window_HW = np.outer(*(np.hanning(n + 2)[1:-1] for n in mean_HW.shape))
    level = float((mean_HW * window_HW).sum() / window_HW.sum())
    return (mean_HW - level) * window_HW


def is_misaligned(shift: Optional[Shift], height: int) -> bool:
    """Whether a shift is larger than sets with the same template have."""
    return shift is not None and max(map(abs, shift)) > ALLOWED * height


def describe(shift: Shift) -> str:
    """`8 pixels down and 1 pixel to the left`."""
    parts = []
    for value, names in zip(shift, (("down", "up"), ("to the right", "to the left"))):
        if value:
            unit = "pixel" if abs(value) == 1 else "pixels"
            parts.append(f"{abs(value)} {unit} {names[value < 0]}")
    return " and ".join(parts) or "by nothing"


def spread(items: Sequence[bytes], count: int = IMAGES) -> List[bytes]:
    """At most `count` of the items, evenly spread."""
    at = np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)
    return [items[i] for i in at.tolist()]
