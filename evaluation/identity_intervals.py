"""Confidence intervals of error rates, EER and d' where pairs share identities.

P pairs, I identities, C pairs of identities (cells), T thresholds, R bootstrap rounds. Pairs of one
identity are not independent, so intervals that resample pairs are too narrow. Resampling identities
and weighting an impostor pair by the product of its draws counts the noise of a single pair three
times, so intervals are too wide; here the variance of a rate is

    sum over identities of (their pairs' errors above the mean)^2 - what a pair was counted twice

which is that of the bootstrap over identities with the weight w_i + w_j - 1 for a pair of i and j,
in closed form. The interval is Wilson's, for the number of independent pairs that would have this
variance (Fogliato, Patil, Perona 2023, arXiv:2306.01198). EER and d' have no such form: they are
resampled.
"""

import math
from typing import List, NamedTuple, Sequence, Tuple

import numpy as np

import verification
from evaluation.error_rates import LEVEL, Interval

ROUNDS = 1000
Z = 1.959963984540054  # of the normal distribution at LEVEL
GRID = 64  # thresholds around the EER, between which a resampled EER is interpolated
CHUNK = 200  # rounds whose draws are in memory together


class IdentityIntervals(NamedTuple):
    """Intervals of a threshold's rates, for identities as the unit that varies."""

    fmr: Interval
    fnmr: Interval


class CurveIntervals(NamedTuple):
    """Intervals of figures without a threshold, from a bootstrap over identities."""

    eer: Interval
    d_prime: Interval


class PairIdentities:
    """Which identities and which cells the pairs of a set belong to; made once for all rates."""

    def __init__(self, issame_P: np.ndarray, identity_P2: np.ndarray) -> None:
        """issame_P: bool. identity_P2: int [P, 2], both identities of each pair."""
        self.count = int(identity_P2.max()) + 1
        self.issame_P, self.identity_P2 = issame_P, identity_P2
        self.impostor_Q2 = identity_P2[~issame_P]
        self.genuine_G = identity_P2[issame_P, 0]
        low_Q, high_Q = self.impostor_Q2.min(axis=1), self.impostor_Q2.max(axis=1)
        key_Q = low_Q.astype(np.int64) * self.count + high_Q
        order = np.argsort(key_Q, kind="stable")
        new_Q = np.append(True, np.diff(key_Q[order]) != 0)
        self.cell_Q = np.empty(len(key_Q), np.int64)
        self.cell_Q[order] = np.cumsum(new_Q) - 1
        self.single = bool(new_Q.all())  # no two pairs of the same two identities

    def per_identity(self, which_P: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """(impostor, genuine) pairs of each identity among `which_P`: float64 [I] each."""
        both = self.impostor_Q2[which_P[~self.issame_P]].ravel()
        genuine = self.genuine_G[which_P[self.issame_P]]
        return (
            np.bincount(both, minlength=self.count).astype(np.float64),
            np.bincount(genuine, minlength=self.count).astype(np.float64),
        )


def intervals_by_identity(wrong_P: np.ndarray, pairs: PairIdentities) -> IdentityIntervals:
    """Intervals of FMR and FNMR. wrong_P: bool, the pairs with an error at the threshold."""
    every_P = np.ones(len(wrong_P), bool)
    (false_I, rejected_I), (impostor_I, genuine_I) = map(pairs.per_identity, (wrong_P, every_P))
    fmr = _wilson(
        int(wrong_P[~pairs.issame_P].sum()),
        len(pairs.impostor_Q2),
        _fmr_variance(wrong_P, pairs, false_I, impostor_I),
        int((impostor_I > 0).sum()),
    )
    fnmr = _wilson(
        int(wrong_P[pairs.issame_P].sum()),
        len(pairs.genuine_G),
        _cluster_variance(rejected_I, genuine_I),
        int((genuine_I > 0).sum()),
    )
    return IdentityIntervals(fmr, fnmr)


def _cluster_variance(wrong_I: np.ndarray, pairs_I: np.ndarray) -> float:
    """Variance of sum(wrong) / sum(pairs) when identities vary independently."""
    total, used = pairs_I.sum(), int((pairs_I > 0).sum())
    excess_I = wrong_I - wrong_I.sum() / total * pairs_I
    return float(excess_I @ excess_I) / total**2 * used / max(used - 1, 1)


def _fmr_variance(
    wrong_P: np.ndarray, pairs: PairIdentities, false_I: np.ndarray, impostor_I: np.ndarray
) -> float:
    """Variance of the FMR: pairs vary together if they share an identity."""
    wrong_Q = wrong_P[~pairs.issame_P]
    total, rate = len(wrong_Q), float(wrong_Q.mean())
    if pairs.single:
        twice = total * rate * (1.0 - rate)
    else:
        false_C = np.bincount(pairs.cell_Q[wrong_Q], minlength=int(pairs.cell_Q[-1]) + 1)
        pairs_C = np.bincount(pairs.cell_Q, minlength=len(false_C))
        false_C = np.pad(false_C, (0, len(pairs_C) - len(false_C)), "constant")
        twice = float(np.square(false_C - rate * pairs_C).sum())
    used = int((impostor_I > 0).sum())
    excess_I = false_I - rate * impostor_I
    leverage = used / max(used - 2.0, 1.0)  # a pair has two identities: the jackknife's factor
    shared = float(excess_I @ excess_I) * leverage**2
    return max(shared - twice, twice) / total**2  # sampling noise can make the difference small


def _wilson(errors: int, pairs: int, variance: float, identities: int) -> Interval:
    """Wilson's interval of errors / pairs, for as many independent trials as have the variance; of
    no error or only errors, whose variance is unknown, for a trial per identity."""
    rate = errors / pairs
    trials = float(min(identities, pairs))
    if 0 < errors < pairs:
        trials = min(rate * (1.0 - rate) / variance, pairs) if variance > 0 else float(pairs)
    square = Z * Z / trials
    middle = (rate + square / 2.0) / (1.0 + square)
    half = math.sqrt(square * (rate * (1.0 - rate) + square / 4.0)) / (1.0 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def curve_intervals(
    distances_P: np.ndarray, pairs: PairIdentities, rounds: int = ROUNDS
) -> CurveIntervals:
    """Intervals of EER and of d' of the cosines, identities being drawn with replacement."""
    issame_P = pairs.issame_P
    eer = verification.auc_and_eer(distances_P, issame_P)[1]
    genuine, impostor = np.sort(distances_P[issame_P]), np.sort(distances_P[~issame_P])
    limits_T = _around(genuine, impostor, eer)
    false_IT, missed_IT = _errors_by_identity(distances_P, pairs, limits_T)
    cosine_P = 1.0 - distances_P / 2.0
    moments = _moments_by_identity(cosine_P, pairs)
    drawn = _resampled([false_IT, missed_IT, *moments], rounds)
    eers = _crossings(drawn[0], drawn[1], drawn[2][:, 0], drawn[3][:, 0])
    primes = _d_primes(drawn[2], drawn[3])
    return CurveIntervals(_percentiles(eers), _percentiles(primes))


def _around(genuine: np.ndarray, impostor: np.ndarray, eer: float) -> np.ndarray:
    """Thresholds between which the EER of a resampled set lies."""
    reach = max(eer * 0.7, 3.0 / len(genuine), 3.0 / len(impostor))
    shares = np.clip([eer - reach, eer + reach], 0.0, 1.0)
    ends = np.concatenate(
        [np.quantile(impostor, shares), np.quantile(genuine, 1.0 - shares)]  # FMR, then FNMR
    )
    low, high = ends.min(), ends.max()
    margin = 1e-9 + 0.05 * (high - low)
    return np.linspace(low - margin, high + margin, GRID)


def _errors_by_identity(
    distances_P: np.ndarray, pairs: PairIdentities, limits_T: np.ndarray
) -> Tuple[np.ndarray, np.ndarray]:
    """(false matches, false non-matches) of each identity at each threshold: float32 [I, T]."""
    width, issame_P = len(limits_T) + 1, pairs.issame_P
    bin_P = np.searchsorted(limits_T, distances_P, side="right")  # matches at thresholds >= it
    size = pairs.count * width
    false_IB = sum(
        np.bincount(pairs.impostor_Q2[:, side] * width + bin_P[~issame_P], minlength=size)
        for side in (0, 1)
    ).reshape(pairs.count, width)
    genuine_IB = np.bincount(pairs.genuine_G * width + bin_P[issame_P], minlength=size)
    genuine_IB = genuine_IB.reshape(pairs.count, width)
    matched_IT = np.cumsum(genuine_IB, axis=1)[:, :-1]
    missed_IT = genuine_IB.sum(axis=1)[:, np.newaxis] - matched_IT
    return np.cumsum(false_IB, axis=1)[:, :-1].astype(np.float32), missed_IT.astype(np.float32)


def _moments_by_identity(
    cosine_P: np.ndarray, pairs: PairIdentities
) -> Tuple[np.ndarray, np.ndarray]:
    """(impostor, genuine) pairs of each identity, sum and sum of squares: float64 [I, 3]."""
    found = []
    for identity, values in (
        (pairs.impostor_Q2.ravel(), np.repeat(cosine_P[~pairs.issame_P], 2)),
        (pairs.genuine_G, cosine_P[pairs.issame_P]),
    ):
        columns = [
            np.bincount(identity, weights, minlength=pairs.count)
            for weights in (None, values, values * values)
        ]
        found.append(np.stack(columns, axis=1).astype(np.float64))
    return found[0], found[1]


def _resampled(columns: Sequence[np.ndarray], rounds: int) -> List[np.ndarray]:
    """Each array [I, K] summed with the draws of each round: [R, K]. Impostor arrays (the first and
    third), which count a pair at both identities, are summed with w_i + w_j - 1."""
    count, random = len(columns[0]), np.random.RandomState(0)
    sums: List[List[np.ndarray]] = [[] for _ in columns]
    for start in range(0, rounds, CHUNK):
        drawn_RI = draws(random, min(CHUNK, rounds - start), count)
        for total, column in zip(sums, columns):
            total.append(drawn_RI.astype(column.dtype) @ column)
    found = [np.concatenate(parts).astype(np.float64) for parts in sums]
    for place in (0, 2):
        found[place] -= columns[place].sum(axis=0, dtype=np.float64) / 2.0
    return found


def draws(random: np.random.RandomState, rounds: int, count: int) -> np.ndarray:
    """How often each of `count` identities is drawn in each round: float64 [rounds, count]."""
    drawn = random.randint(count, size=(rounds, count)) + count * np.arange(rounds)[:, np.newaxis]
    counts = np.bincount(drawn.ravel(), minlength=rounds * count)
    return counts.reshape(rounds, count).astype(np.float64)


def _crossings(
    false_RT: np.ndarray, missed_RT: np.ndarray, impostor_R: np.ndarray, genuine_R: np.ndarray
) -> np.ndarray:
    """The EER of each round that drew pairs of both kinds: where FMR passes FNMR."""
    usable = (impostor_R > 0) & (genuine_R > 0)
    false_RT = false_RT[usable] / impostor_R[usable, np.newaxis]
    missed_RT = missed_RT[usable] / genuine_R[usable, np.newaxis]
    gap_RT = false_RT - missed_RT
    right_R = np.clip(np.argmax(gap_RT >= 0, axis=1), 1, None)
    rows = np.arange(len(gap_RT))
    low, high = gap_RT[rows, right_R - 1], gap_RT[rows, right_R]
    share = np.clip(-low / np.where(high > low, high - low, 1.0), 0.0, 1.0)
    left = false_RT[rows, right_R - 1]
    return left + share * (false_RT[rows, right_R] - left)


def _d_primes(impostor_R3: np.ndarray, genuine_R3: np.ndarray) -> np.ndarray:
    """d' of each round from its counts, sums and sums of squares."""
    usable = (impostor_R3[:, 0] > 0) & (genuine_R3[:, 0] > 0)
    means, variances = [], []
    for part in (impostor_R3[usable], genuine_R3[usable]):
        means.append(part[:, 1] / part[:, 0])
        variances.append(np.maximum(part[:, 2] / part[:, 0] - means[-1] ** 2, 0.0))
    spread = np.sqrt((variances[0] + variances[1]) / 2.0)
    return np.where(spread > 1e-12, np.abs(means[1] - means[0]) / np.maximum(spread, 1e-12), 0.0)


def _percentiles(values: np.ndarray) -> Interval:
    if not len(values):
        return 0.0, float("inf")  # no round had such pairs: nothing is known
    tail = 50.0 - 50.0 * LEVEL
    return float(np.percentile(values, tail)), float(np.percentile(values, 100.0 - tail))
