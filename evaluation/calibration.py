"""Scores -> probabilities that a pair is genuine: logistic and isotonic calibration, Cllr, ECE.

P pairs, B blocks of an isotonic fit. A calibration maps a score (a cosine: higher is more alike)
to a log-likelihood ratio (LLR, natural logarithm), which a prior turns into a probability. Fits
weigh both kinds of pairs equally, so that the share of genuine pairs in the set has no effect.
"""

import itertools
import math
from typing import List, NamedTuple, Tuple

import numpy as np

KINDS = ("logistic", "isotonic")
FOLDS = 4  # of identities; pairs of two folds are scored by a fit without both
BINS = 10  # of the reliability diagram
NEWTON_STEPS = 100
CONVERGED = 1e-16  # Newton decrement, twice the loss that is left
GROUPS = 20000  # of scores in a logistic fit; LFW's 6,000 pairs are not grouped
FEW_BLOCKS = 1000  # from which on blocks are pooled one by one
LN2 = math.log(2.0)


class Calibration(NamedTuple):
    """A fitted map from scores to LLRs. For logistic: slope and offset; for isotonic: the highest
    score and the LLR of each block."""

    kind: str
    slope: float
    offset: float
    highest_B: np.ndarray
    llr_B: np.ndarray

    def llr(self, scores_P: np.ndarray) -> np.ndarray:
        """Log-likelihood ratio of each score."""
        if self.kind == "logistic":
            return self.slope * scores_P + self.offset
        block_P = np.searchsorted(self.highest_B[:-1], scores_P, side="left")
        return self.llr_B[block_P]

    def probability(self, scores_P: np.ndarray, prior: float) -> np.ndarray:
        """Probability of a genuine pair, given the prior probability of one."""
        return probability(self.llr(scores_P), prior)


class ReliabilityBin(NamedTuple):
    """A bar of a reliability diagram."""

    probability: float  # mean predicted probability
    frequency: float  # share of genuine pairs at the prior
    weight: float  # share of all pairs at the prior


class CalibrationResult(NamedTuple):
    """How well probabilities fit, on pairs of identities that the fit did not have."""

    kind: str
    prior: float  # of a genuine pair; part of every probability
    cllr: float  # bits; 1 is a score without information
    min_cllr: float  # of the best monotonic map of the same scores
    ece: float  # expected calibration error at the prior
    bins: List[ReliabilityBin]


def fit_logistic(scores_P: np.ndarray, issame_P: np.ndarray) -> Calibration:
    """LLR = slope * score + offset by logistic regression. Targets are smoothed as Platt's, so that
    separable scores have a finite slope."""
    _check(scores_P, issame_P)
    if scores_P.min() == scores_P.max():
        return Calibration("logistic", 0.0, 0.0, np.zeros(0), np.zeros(0))  # no evidence
    mean, spread = float(np.mean(scores_P)), float(np.std(scores_P))
    score_P, genuine_P, impostor_P = _grouped(scores_P, issame_P)
    x_2P = np.stack([(score_P - mean) / spread, np.ones(len(score_P))])
    genuine, impostor = int(issame_P.sum()), int((~issame_P).sum())
    same_P, other_P = 0.5 * genuine_P / genuine, 0.5 * impostor_P / impostor
    weight_P = same_P + other_P
    target_P = same_P * (genuine + 1.0) / (genuine + 2.0) + other_P / (impostor + 2.0)
    target_P /= weight_P
    theta = np.zeros(2)
    best = _loss(theta, x_2P, target_P, weight_P)
    for _ in range(NEWTON_STEPS):
        predicted_P = probability(theta @ x_2P, 0.5)
        gradient = x_2P @ (weight_P * (predicted_P - target_P))
        curvature = (x_2P * (weight_P * predicted_P * (1 - predicted_P))) @ x_2P.T
        step = np.linalg.solve(curvature + 1e-12 * np.eye(2), gradient)
        if gradient @ step < CONVERGED:
            break
        loss = _loss(theta - step, x_2P, target_P, weight_P)
        while loss > best and np.abs(step).max() > 1e-10:  # a full step is too far
            step /= 2.0
            loss = _loss(theta - step, x_2P, target_P, weight_P)
        theta, best = theta - step, loss
    slope = float(theta[0]) / spread
    return Calibration("logistic", slope, float(theta[1]) - slope * mean, np.zeros(0), np.zeros(0))


def _grouped(
    scores_P: np.ndarray, issame_P: np.ndarray
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(score, genuine pairs, impostor pairs) of groups of equal scores, or for many pairs of equal
    up to 1 / GROUPS of their range, which moves an LLR by the square of that."""
    if len(scores_P) <= GROUPS:
        return scores_P, issame_P.astype(float), (~issame_P).astype(float)
    low, high = scores_P.min(), scores_P.max()
    group_P = np.minimum(((scores_P - low) * (GROUPS / (high - low))).astype(int), GROUPS - 1)
    count, total, genuine = (
        np.bincount(group_P, factor, minlength=GROUPS)
        for factor in (np.ones(len(scores_P)), scores_P, issame_P)
    )
    used = count > 0
    return total[used] / count[used], genuine[used], (count - genuine)[used]


def _loss(theta: np.ndarray, x_2P: np.ndarray, target_P: np.ndarray, weight_P: np.ndarray) -> float:
    z_P = theta[0] * x_2P[0] + theta[1]
    softplus_P = np.maximum(z_P, 0.0) + np.log1p(np.exp(-np.abs(z_P)))
    return float((weight_P * (softplus_P - target_P * z_P)).sum())


def fit_isotonic(scores_P: np.ndarray, issame_P: np.ndarray) -> Calibration:
    """A rising step function of the scores by pool-adjacent-violators. One virtual error at each
    end keeps the LLRs finite."""
    _check(scores_P, issame_P)
    scores_P = np.concatenate([[-np.inf], scores_P, [np.inf]])
    issame_P = np.concatenate([[True], issame_P, [False]])
    return _isotonic(scores_P, issame_P)


def _isotonic(scores_P: np.ndarray, issame_P: np.ndarray) -> Calibration:
    highest, genuine_B, impostor_B = pool_adjacent_violators(scores_P, issame_P)
    balance = math.log(issame_P.sum()) - math.log((~issame_P).sum())
    with np.errstate(divide="ignore"):
        llr_B = np.log(genuine_B) - np.log(impostor_B) - balance
    return Calibration("isotonic", 0.0, 0.0, highest, llr_B)


def pool_adjacent_violators(
    scores_P: np.ndarray, issame_P: np.ndarray
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(highest score, genuine pairs, impostor pairs) of the blocks of the isotonic regression, by
    rising score."""
    if len(scores_P) > 1 and not (scores_P[1:] >= scores_P[:-1]).all():
        order = np.argsort(scores_P, kind="stable")
        scores_P, issame_P = scores_P[order], issame_P[order]
    starts = np.flatnonzero(np.append(True, scores_P[1:] != scores_P[:-1]))  # of equal scores
    values = scores_P[starts]
    counts = np.diff(np.append(starts, len(scores_P)))
    genuine = np.add.reduceat(issame_P.astype(np.int64), starts)
    impostor = counts - genuine
    pure = np.where(impostor == 0, 1, np.where(genuine == 0, 0, -1))
    new = np.append(True, (pure[1:] != pure[:-1]) | (pure[1:] < 0))  # runs of one kind are a block
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], len(values)) - 1
    genuine, impostor = (np.add.reduceat(kind, starts) for kind in (genuine, impostor))
    ends, genuine, impostor = _pooled_runs(ends, genuine, impostor)
    stack: List[Tuple[int, int, int]] = []  # (last value, genuine, impostor)
    for last, good, bad in zip(ends.tolist(), genuine.tolist(), impostor.tolist()):
        while stack and stack[-1][1] * (good + bad) >= good * (stack[-1][1] + stack[-1][2]):
            _, more_good, more_bad = stack.pop()
            good, bad = good + more_good, bad + more_bad
        stack.append((last, good, bad))
    last_B, genuine_B, impostor_B = (np.array(column) for column in zip(*stack))
    return values[last_B], genuine_B, impostor_B


def _pooled_runs(
    ends: np.ndarray, genuine_B: np.ndarray, impostor_B: np.ndarray
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Blocks after pooling each run that does not rise, some times: any order of pooling adjacent
    violators has the same result, and an array is faster than a stack while most blocks violate."""
    while len(ends) > FEW_BLOCKS:
        total_B = genuine_B + impostor_B
        rises = genuine_B[1:] * total_B[:-1] > genuine_B[:-1] * total_B[1:]
        starts = np.flatnonzero(np.append(True, rises))
        if len(starts) > 0.9 * len(ends):
            break
        ends = ends[np.append(starts[1:], len(ends)) - 1]
        genuine_B, impostor_B = (np.add.reduceat(kind, starts) for kind in (genuine_B, impostor_B))
    return ends, genuine_B, impostor_B


def probability(llr_P: np.ndarray, prior: float) -> np.ndarray:
    """Probability of a genuine pair from its LLR and the prior, 0 < prior < 1."""
    if not 0.0 < prior < 1.0:
        raise ValueError(f"prior {prior:g} is out of range; pass a number between 0 and 1.")
    log_odds_P = llr_P + math.log(prior) - math.log1p(-prior)
    return np.exp(-np.logaddexp(0.0, -log_odds_P))


def cllr(llr_P: np.ndarray, issame_P: np.ndarray) -> float:
    """Log-likelihood-ratio cost in bits (Brümmer): the information that the LLRs fail to give."""
    missed = np.mean(np.logaddexp(0.0, -llr_P[issame_P]))
    false = np.mean(np.logaddexp(0.0, llr_P[~issame_P]))
    return float(missed + false) / (2.0 * LN2)


def min_cllr(scores_P: np.ndarray, issame_P: np.ndarray) -> float:
    """Cllr of the best monotonic map of the scores, fitted to the pairs themselves."""
    _check(scores_P, issame_P)
    return cllr(_isotonic(scores_P, issame_P).llr(scores_P), issame_P)


def reliability(
    probability_P: np.ndarray, issame_P: np.ndarray, prior: float, bins: int = BINS
) -> List[ReliabilityBin]:
    """The non-empty bars of a reliability diagram; pairs are weighted as if the prior held."""
    weight_P = np.where(issame_P, prior / issame_P.sum(), (1.0 - prior) / (~issame_P).sum())
    bin_P = np.minimum((probability_P * bins).astype(int), bins - 1)
    sums = [
        np.bincount(bin_P, weight_P * factor, minlength=bins)
        for factor in (1.0, probability_P, issame_P)
    ]
    return [
        ReliabilityBin(float(predicted / weight), float(same / weight), float(weight))
        for weight, predicted, same in zip(*sums)
        if weight > 0.0
    ]


def expected_calibration_error(bars: List[ReliabilityBin]) -> float:
    """Mean distance of probability and frequency over the bars."""
    return sum(bar.weight * abs(bar.probability - bar.frequency) for bar in bars)


def cross_validate(
    scores_P: np.ndarray,
    issame_P: np.ndarray,
    identity_P2: np.ndarray,
    prior: float,
    kind: str = "logistic",
) -> CalibrationResult:
    """The fit of a calibration, each pair scored by a fit without its two identities.

    identity_P2: int [P, 2], the identities of each pair."""
    llr_P = cross_validated_llr(scores_P, issame_P, identity_P2, kind)
    bars = reliability(probability(llr_P, prior), issame_P, prior)
    return CalibrationResult(
        kind,
        prior,
        cllr(llr_P, issame_P),
        min_cllr(scores_P, issame_P),
        expected_calibration_error(bars),
        bars,
    )


def cross_validated_llr(
    scores_P: np.ndarray, issame_P: np.ndarray, identity_P2: np.ndarray, kind: str = "logistic"
) -> np.ndarray:
    """LLR of each pair by a fit to the pairs that share no fold of identities with it."""
    _check(scores_P, issame_P)
    if kind not in KINDS:
        raise ValueError(f"calibration {kind} is not known; pass one of {', '.join(KINDS)}.")
    fit = fit_logistic if kind == "logistic" else fit_isotonic
    identities = int(identity_P2.max()) + 1
    fold_I = (np.random.RandomState(0).permutation(identities) % FOLDS).astype(np.int8)
    order = np.argsort(scores_P, kind="stable")  # once: the parts of sorted scores are sorted
    scores_P, issame_P, fold_P2 = scores_P[order], issame_P[order], fold_I[identity_P2[order]]
    bits_P = (1 << fold_P2[:, 0]) | (1 << fold_P2[:, 1])
    sorted_P = np.empty(len(scores_P))
    for first, second in itertools.combinations_with_replacement(range(FOLDS), 2):
        folds = (1 << first) | (1 << second)
        test_P = bits_P == folds
        if not test_P.any():
            continue
        train_P = (bits_P & folds) == 0
        same_P = issame_P[train_P]
        if same_P.all() or not same_P.any():
            raise ValueError(
                f"{identities} identities are too few for a calibration cross-validated by "
                "identity; use a larger set."
            )
        sorted_P[test_P] = fit(scores_P[train_P], same_P).llr(scores_P[test_P])
    llr_P = np.empty(len(sorted_P))
    llr_P[order] = sorted_P
    return llr_P


def _check(scores_P: np.ndarray, issame_P: np.ndarray) -> None:
    if not np.isfinite(scores_P).all():
        bad = int((~np.isfinite(scores_P)).sum())
        raise ValueError(f"{bad} of {len(scores_P)} scores are not finite; embed the set again.")
    if issame_P.all() or not issame_P.any():
        kind = "genuine" if issame_P.all() else "impostor"
        raise ValueError(f"all {len(issame_P)} pairs are {kind} pairs; a calibration needs both.")
