"""Quality of images as a predictor of errors: error-versus-discard curves (ISO/IEC 29794-1).

N = 2 P images (2i and 2i + 1 are pair i), P pairs, G genuine pairs, S shares. A measure is the norm
of an embedding before it is normalised, or a number per image of the data set, as its sharpness.
Whether a high value is good is measured on the genuine pairs: the norm of some networks falls
with quality.
"""

import math
from typing import Dict, List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np

from evaluation.error_rates import Interval, binomial_interval, sorted_scores

SHARES = tuple(0.05 * i for i in range(20))  # discarded
PARTIAL = 0.2  # of the pairs, up to which the area under the curve is taken
Z = 1.959963984540054  # of the normal distribution at 95 %
NORM = "embedding norm"
QUALITY_FMR = 1e-2  # of the threshold of an error-versus-discard curve


class DiscardCurve(NamedTuple):
    """FNMR of the genuine pairs that remain when those of lowest quality are discarded, at the
    threshold of the whole set."""

    discarded: List[float]  # share of the genuine pairs
    fnmr: List[float]
    intervals: List[Interval]  # exact binomial
    ideal: List[float]  # if exactly the pairs with an error were discarded first
    gain: float  # part of the possible reduction of the area up to PARTIAL: 0 random, 1 ideal


class QualityMeasure(NamedTuple):
    """What a measure predicts on a set."""

    name: str
    correlation: float  # Spearman's, of pair quality and cosine, genuine pairs only
    interval: Interval  # of it, 95 %
    sign: int  # 1: a high value is good; -1: a low one is; 0: the interval includes 0
    curve: DiscardCurve


def measure_quality(
    name: str,
    quality_N: np.ndarray,
    distances_P: np.ndarray,
    issame_P: np.ndarray,
    squared_l2: float,
) -> QualityMeasure:
    """How a measure of the images predicts false non-matches at a threshold. A pair has the worse
    quality of its two images: the lower value, or the higher one if the sign is -1."""
    sorted_scores(distances_P, issame_P)  # checks them
    quality_N = np.asarray(quality_N, np.float64)
    if len(quality_N) != 2 * len(issame_P):
        raise ValueError(
            f"{name}: {len(quality_N)} values for {2 * len(issame_P)} images; pass one per image."
        )
    if not np.isfinite(quality_N).all():
        bad = int((~np.isfinite(quality_N)).sum())
        raise ValueError(f"{name}: {bad} of {len(quality_N)} values are not finite.")
    cosine_G = 1.0 - distances_P[issame_P] / 2.0
    low_G = pair_quality(quality_N)[issame_P]
    correlation = spearman(low_G, cosine_G)
    interval = correlation_interval(correlation, len(cosine_G))
    sign = 0 if interval[0] <= 0.0 <= interval[1] else int(np.sign(correlation))
    if sign < 0:  # the worse image of a pair is the one with the higher value
        low_G = pair_quality(-quality_N)[issame_P]
        correlation = -spearman(low_G, cosine_G)
        interval = correlation_interval(correlation, len(cosine_G))
    wrong_G = distances_P[issame_P] >= squared_l2
    return QualityMeasure(name, correlation, interval, sign, discard_curve(low_G, wrong_G))


def pair_quality(quality_N: np.ndarray) -> np.ndarray:
    """The lower quality of each pair's two images: [P]."""
    return np.minimum(quality_N[0::2], quality_N[1::2])


def discard_curve(
    quality_G: np.ndarray, wrong_G: np.ndarray, shares: Sequence[float] = SHARES
) -> DiscardCurve:
    """The curve of genuine pairs with an error (wrong_G: bool), the lowest quality first. Pairs of
    equal quality count with their mean error, so that the order of the file has no effect."""
    count = len(wrong_G)
    _, tie_G, size = np.unique(quality_G, return_inverse=True, return_counts=True)
    tie_G = tie_G.ravel()
    mean = np.bincount(tie_G, wrong_G.astype(np.float64)) / size
    error_G = mean[np.sort(tie_G)]  # by rising quality
    left = np.append(np.cumsum(error_G[::-1])[::-1], 0.0)  # errors from each pair on
    dropped = [min(count - 1, int(round(share * count))) for share in shares]
    errors, total = [float(left[drop]) for drop in dropped], int(wrong_G.sum())
    fnmr = [error / (count - drop) for error, drop in zip(errors, dropped)]
    ideal = [max(0, total - drop) / (count - drop) for drop in dropped]
    intervals = [
        binomial_interval(int(round(error)), count - drop) for error, drop in zip(errors, dropped)
    ]
    area, best, flat = (_area(shares, values) for values in (fnmr, ideal, [fnmr[0]] * len(fnmr)))
    gain = (flat - area) / (flat - best) if flat > best else 0.0
    return DiscardCurve(list(shares), fnmr, intervals, ideal, gain)


def _area(shares: Sequence[float], values: Sequence[float]) -> float:
    """Under a curve up to PARTIAL, by trapezoids."""
    kept = [i for i, share in enumerate(shares) if share <= PARTIAL + 1e-9]
    return sum(
        (shares[b] - shares[a]) * (values[a] + values[b]) / 2.0 for a, b in zip(kept, kept[1:])
    )


def spearman(first_G: np.ndarray, second_G: np.ndarray) -> float:
    """Correlation of ranks, ties having their mean rank; 0 where one of them is constant."""
    first_G, second_G = (ranks(part) - (len(part) - 1) / 2.0 for part in (first_G, second_G))
    size = math.sqrt(float(first_G @ first_G) * float(second_G @ second_G))
    return float(first_G @ second_G) / size if size else 0.0


def ranks(values_G: np.ndarray) -> np.ndarray:
    """Ranks from 0, ties having their mean."""
    _, tie_G, size = np.unique(values_G, return_inverse=True, return_counts=True)
    first = np.cumsum(size) - size
    return (first + (size - 1) / 2.0)[tie_G.ravel()]


def correlation_interval(correlation: float, count: int) -> Interval:
    """95 % interval of Spearman's correlation (Fisher's z with Bonett and Wright's variance)."""
    if count < 4:
        return -1.0, 1.0
    bounded = min(max(correlation, -1.0 + 1e-12), 1.0 - 1e-12)
    half = Z * math.sqrt((1.0 + bounded**2 / 2.0) / (count - 3.0))
    return math.tanh(math.atanh(bounded) - half), math.tanh(math.atanh(bounded) + half)


def image_measures(images_NHWC: np.ndarray) -> Dict[str, np.ndarray]:
    """{measure: float64 [N]} of uint8 RGB images: what a data set has without a network."""
    found: Dict[str, List[float]] = {"sharpness": [], "contrast": [], "brightness": []}
    for image_HWC in images_NHWC:
        gray_HW = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY).astype(np.float32)
        found["sharpness"].append(float(cv2.Laplacian(gray_HW, cv2.CV_32F).var()))
        found["contrast"].append(float(gray_HW.std()))
        found["brightness"].append(float(gray_HW.mean()))
    return {name: np.array(values) for name, values in found.items()}


def quality_lines(measures: Sequence[QualityMeasure]) -> List[str]:
    """A line per measure: its sign on this network and set, and what discarding gains."""
    return [_line(one) for one in measures]


def _line(one: QualityMeasure) -> str:
    direction = {1: "high is good", -1: "low is good", 0: "no measurable direction"}[one.sign]
    at = one.curve.discarded.index(min(one.curve.discarded, key=lambda share: abs(share - 0.1)))
    return (
        f"{one.name}: {direction} (rank correlation with the cosine {one.correlation:+.3f}, "
        f"{_pair(one.interval)}); FNMR {one.curve.fnmr[0]:.4f}, without the worst 10 % "
        f"{one.curve.fnmr[at]:.4f}; {one.curve.gain:.0%} of the possible gain"
    )


def _pair(interval: Tuple[float, float]) -> str:
    return "{:+.3f} to {:+.3f}".format(*interval)
