"""FMR and FNMR of scored pairs with confidence intervals, EER and d': the terms of ISO/IEC 19795.

P pairs. A pair is a match when its squared distance is below the
threshold; FMR is the share of impostor pairs that match, FNMR of genuine pairs that do not.
"""

import math
from typing import List, NamedTuple, Sequence, Tuple

import numpy as np

import verification

FMR_TARGETS = verification.FAR_TARGETS
LEVEL = 0.95  # of all intervals
RULE_OF_30 = 30  # errors that Doddington's rule requires for a rate known within 30 % (90 % level)
ITERATIONS = 100000  # limit of the continued fraction; it needs about the root of the pair count
Interval = Tuple[float, float]


class OperatingPoint(NamedTuple):
    """The rates at a threshold. Intervals are exact binomial ones, which treat pairs as
    independent."""

    fmr_target: float
    squared_l2: float  # threshold on the squared distance of unit embeddings
    cosine: float  # the same threshold
    fmr: float  # achieved; at most fmr_target
    fmr_interval: Interval
    fnmr: float
    fnmr_interval: Interval
    false_matches: int
    false_non_matches: int
    reliable: bool  # both counts are at least 30 ("rule of 30")


def operating_points(
    distances_P: np.ndarray, issame_P: np.ndarray, targets: Sequence[float] = FMR_TARGETS
) -> List[OperatingPoint]:
    """FNMR@FMR for each target that the number of impostor pairs can show, see `lowest_fmr`."""
    genuine, impostor = sorted_scores(distances_P, issame_P)
    points = []
    for target in targets:
        # Targets like 0.1 of 30 pairs are whole numbers of errors up to float64's rounding.
        allowed = int(math.floor(target * len(impostor) * (1.0 + 1e-12)))
        if allowed >= 1:
            threshold = impostor[allowed] if allowed < len(impostor) else np.inf
            points.append(_point(genuine, impostor, float(threshold), target))
    return points


def rates_at(distances_P: np.ndarray, issame_P: np.ndarray, squared_l2: float) -> OperatingPoint:
    """The rates at a given threshold; fmr_target is the achieved FMR."""
    genuine, impostor = sorted_scores(distances_P, issame_P)
    point = _point(genuine, impostor, squared_l2, 0.0)
    return point._replace(fmr_target=point.fmr)


def lowest_fmr(issame_P: np.ndarray) -> float:
    """The lowest FMR target that can be estimated: one false match of all impostor pairs."""
    return 1.0 / int((~issame_P).sum())


def d_prime(scores_P: np.ndarray, issame_P: np.ndarray) -> float:
    """Distance of the means of genuine and impostor scores over their root mean variance; 0 for
    constant scores."""
    genuine, impostor = scores_P[issame_P], scores_P[~issame_P]
    spread = math.sqrt((float(np.var(genuine)) + float(np.var(impostor))) / 2.0)
    return abs(float(np.mean(genuine)) - float(np.mean(impostor))) / spread if spread else 0.0


def sorted_scores(distances_P: np.ndarray, issame_P: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """(genuine, impostor) distances in rising order, checked."""
    if not np.isfinite(distances_P).all():
        bad = int((~np.isfinite(distances_P)).sum())
        raise ValueError(f"{bad} of {len(distances_P)} scores are not finite; embed the set again.")
    if issame_P.all() or not issame_P.any():
        kind = "genuine" if issame_P.all() else "impostor"
        raise ValueError(
            f"all {len(issame_P)} pairs are {kind} pairs; error rates need both kinds."
        )
    return np.sort(distances_P[issame_P]), np.sort(distances_P[~issame_P])


def _point(
    genuine: np.ndarray, impostor: np.ndarray, threshold: float, target: float
) -> OperatingPoint:
    threshold = min(threshold, 4.0 + 1e-6)  # no squared distance is larger
    false_matches = int(np.searchsorted(impostor, threshold))
    rejected = len(genuine) - int(np.searchsorted(genuine, threshold))
    return OperatingPoint(
        target,
        threshold,
        1.0 - threshold / 2.0,
        false_matches / len(impostor),
        binomial_interval(false_matches, len(impostor)),
        rejected / len(genuine),
        binomial_interval(rejected, len(genuine)),
        false_matches,
        rejected,
        min(false_matches, rejected) >= RULE_OF_30,
    )


def binomial_interval(errors: int, trials: int, level: float = LEVEL) -> Interval:
    """The exact (Clopper-Pearson) interval of a rate of `errors` in `trials`."""
    tail = (1.0 - level) / 2.0
    low = 0.0 if errors == 0 else _beta_quantile(tail, errors, trials - errors + 1)
    high = 1.0 if errors == trials else _beta_quantile(1.0 - tail, errors + 1, trials - errors)
    return low, high


def _beta_quantile(share: float, a: int, b: int) -> float:
    """The x at which the beta distribution's cumulative probability is `share`."""
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2.0
        if middle in (low, high) or high - low < 1e-12 * high:
            return middle
        if _beta_cdf(middle, a, b) < share:
            low = middle
        else:
            high = middle


def _beta_cdf(x: float, a: int, b: int) -> float:
    """The regularised incomplete beta function, by its continued fraction on the side where that
    converges fast."""
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _beta_cdf(1.0 - x, b, a)
    if x == 0.0:
        return 0.0
    log = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    log += a * math.log(x) + b * math.log1p(-x)
    return math.exp(log) / a / _continued_fraction(x, a, b)


def _continued_fraction(x: float, a: int, b: int) -> float:
    """Lentz's method for 1 + d1 / (1 + d2 / (1 + ...)); see DLMF 8.17.22."""
    value, c, d = 1.0, 1.0, 0.0
    for step in range(1, ITERATIONS):
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        else:
            term = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        d, c = 1.0 / (1.0 + term * d), 1.0 + term / c
        value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return value
