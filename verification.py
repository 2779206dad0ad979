"""Verification metrics of image pairs: accuracy, thresholds, TAR@FAR. NumPy only.

N images, P = N / 2 pairs (rows 2i and 2i + 1 are pair i), D embedding, T thresholds, F folds.
The digits are InsightFace's: squared distance of unit embeddings, 400 thresholds from 0 to 4, the
threshold chosen on the other folds. Its loop over thresholds is a histogram and a running sum here.
Also a script: python verification.py --embeddings emb.npy --issame issame.npy --plot roc.png
"""

import dataclasses
import json
import math
import os
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from runtime.cli import run
from runtime.files import atomic_write, read_npy
from runtime.flags import flag, parse_flags

THRESHOLDS = np.arange(0, 4, 0.01)  # InsightFace's grid, for accuracy and the ROC
FINE_THRESHOLDS = np.arange(0, 4, 0.001)  # and its grid for TAR@FAR
FAR_TARGETS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
ALWAYS_SHOWN = 1e-3  # every peer prints TAR@FAR=1e-3, also for sets that are too small for it
RESAMPLES = 1000
PAIRS_PER_BLOCK = 512  # with 512 float64 per embedding: 4 MB per block, for any number of pairs


@dataclasses.dataclass(frozen=True)
class Verification:
    """Metrics of a network on a set of pairs. Distances are squared: cosine = 1 - distance / 2."""

    accuracy: float  # mean over folds of accuracies
    accuracy_std: float
    accuracy_interval: Tuple[float, float]  # 95 %, bootstrap over folds
    accuracies: np.ndarray  # [F] of each held-out fold
    best_thresholds: np.ndarray  # [F] the threshold applied to each fold
    threshold: float  # their mean
    cosine: float  # the same threshold as a cosine
    tpr: np.ndarray  # [T] mean over folds, at THRESHOLDS
    fpr: np.ndarray  # [T]
    tar_at_far: Dict[float, float]  # FAR target -> TAR on the held-out folds, mean over folds
    tar_std: Dict[float, float]  # its standard deviation over folds: InsightFace's val_std
    achieved_far: Dict[float, float]  # FAR on the held-out folds at the same thresholds, mean
    far_thresholds: Dict[float, float]  # the threshold used for each target, mean over folds
    auc: float
    eer: float
    genuine: int  # pairs of one identity
    impostor: int  # pairs of two identities


class FarRates(NamedTuple):
    """Rates at the FAR targets, each keyed by target; see Verification."""

    tar: Dict[float, float]  # mean over folds
    tar_std: Dict[float, float]
    achieved_far: Dict[float, float]
    thresholds: Dict[float, float]


class Roc(NamedTuple):
    """A ROC curve, from the strictest threshold to the loosest: float64 arrays of one length."""

    far: np.ndarray  # share of impostor pairs with at most this distance
    tar: np.ndarray  # share of genuine pairs with at most this distance
    distance: np.ndarray  # squared


def evaluate(
    embeddings_ND: np.ndarray,
    issame_P: np.ndarray,
    folds: int = 10,
    mirrored_ND: Optional[np.ndarray] = None,
    normalise: bool = True,
) -> Verification:
    """Verification of embeddings [N, D] under issame [P], N = 2 P.

    mirrored_ND: embeddings of the mirrored images, added before normalising ("Accuracy-Flip").
    normalise: divide each row by its length first, as InsightFace does before its `evaluate`.
    """
    issame_P = check_issame(issame_P, folds)
    if len(embeddings_ND) != 2 * len(issame_P):
        raise ValueError(
            f"{len(embeddings_ND)} embeddings do not make {len(issame_P)} pairs; "
            f"pass {2 * len(issame_P)} rows, two for each entry of issame."
        )
    distances_P = pair_distances(embeddings_ND, mirrored_ND, normalise)
    return evaluate_distances(distances_P, issame_P, folds)


def check_issame(issame_P: np.ndarray, folds: int) -> np.ndarray:
    """issame as bool [P]; a ValueError where no accuracy can be computed from it."""
    given = np.asarray(issame_P)
    if given.ndim != 1 or not np.isin(given, (0, 1)).all():
        raise ValueError(
            f"issame has shape {list(given.shape)} and type {given.dtype}; "
            "pass one True or False for each pair."
        )
    same_P, pairs = given.astype(bool), len(given)
    if pairs == 0:
        raise ValueError("there are 0 pairs; an accuracy needs at least one of each kind.")
    if same_P.all() or not same_P.any():
        kind = "the same person" if same_P.all() else "different people"
        raise ValueError(f"all {pairs} pairs are of {kind}; an accuracy needs both kinds.")
    if not 1 <= folds <= pairs:
        raise ValueError(f"{pairs} pairs do not make {folds} folds; pass folds from 1 to {pairs}.")
    return same_P


def pair_distances(
    embeddings_ND: np.ndarray, mirrored_ND: Optional[np.ndarray] = None, normalise: bool = True
) -> np.ndarray:
    """Squared distance of rows 2i and 2i + 1: float64 [P], computed in blocks."""
    if mirrored_ND is not None and np.shape(mirrored_ND) != np.shape(embeddings_ND):
        raise ValueError(
            f"the mirrored embeddings have shape {list(np.shape(mirrored_ND))}, the plain ones "
            f"{list(np.shape(embeddings_ND))}; both must come from the same images."
        )
    distances_P = np.empty(len(embeddings_ND) // 2)
    for start in range(0, len(distances_P), PAIRS_PER_BLOCK):
        rows = slice(2 * start, 2 * (start + PAIRS_PER_BLOCK))
        part_ND = np.array(embeddings_ND[rows], np.float64)
        if mirrored_ND is not None:
            part_ND += mirrored_ND[rows]
        if normalise:
            part_ND /= _lengths(part_ND)[:, np.newaxis]
        difference_PD = part_ND[0::2] - part_ND[1::2]
        np.square(difference_PD, out=difference_PD)
        distances_P[start : start + PAIRS_PER_BLOCK] = difference_PD.sum(axis=1)
    if not np.isfinite(distances_P).all():
        raise ValueError(_not_finite(embeddings_ND, mirrored_ND))
    return distances_P


def evaluate_distances(
    distances_P: np.ndarray, issame_P: np.ndarray, folds: int = 10
) -> Verification:
    """Verification of squared distances [P]: the part of `evaluate` after `pair_distances`."""
    fold_P = fold_of_pair(len(issame_P), folds)
    accepted_F2T = _accepted(distances_P, issame_P, fold_P, folds, THRESHOLDS)
    pairs_F2 = np.stack(
        [np.bincount(fold_P[issame_P == kind], minlength=folds) for kind in (False, True)], axis=1
    )
    accuracies, best = _fold_accuracies(accepted_F2T, pairs_F2)
    rates_F2T = accepted_F2T / np.maximum(pairs_F2, 1)[:, :, np.newaxis]
    at_far = _rates_at_far(distances_P, issame_P, fold_P, pairs_F2)
    auc, eer = auc_and_eer(distances_P, issame_P)
    threshold = float(np.mean(THRESHOLDS[best]))
    return Verification(
        accuracy=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies)),
        accuracy_interval=bootstrap_interval(accuracies),
        accuracies=accuracies,
        best_thresholds=THRESHOLDS[best],
        threshold=threshold,
        cosine=1.0 - threshold / 2.0,
        tpr=np.mean(rates_F2T[:, 1], axis=0),
        fpr=np.mean(rates_F2T[:, 0], axis=0),
        tar_at_far=at_far.tar,
        tar_std=at_far.tar_std,
        achieved_far=at_far.achieved_far,
        far_thresholds=at_far.thresholds,
        auc=auc,
        eer=eer,
        genuine=int(pairs_F2[:, 1].sum()),
        impostor=int(pairs_F2[:, 0].sum()),
    )


def fold_of_pair(pairs: int, folds: int) -> np.ndarray:
    """int [P] in [0, F): contiguous folds, the first `pairs % folds` one longer (as unshuffled
    KFold)."""
    sizes = np.full(folds, pairs // folds)
    sizes[: pairs % folds] += 1
    return np.repeat(np.arange(folds), sizes)


def bootstrap_interval(values: Sequence[float], share: float = 0.95) -> Tuple[float, float]:
    """(low, high) of the mean of `values`, resampled with replacement; deterministic."""
    sample = np.asarray(values)
    picks = np.random.RandomState(0).randint(len(sample), size=(RESAMPLES, len(sample)))
    means, tail = sample[picks].mean(axis=1), 50 - 50 * share
    return float(np.percentile(means, tail)), float(np.percentile(means, 100 - tail))


def roc_curve(distances_P: np.ndarray, issame_P: np.ndarray) -> Roc:
    """FAR and TAR at every distance where one of them changes; a pair is accepted when its distance
    is at most the threshold. The curve starts at (0, 0, 0)."""
    order = np.argsort(distances_P, kind="stable")
    distances_P, issame_P = distances_P[order], issame_P[order]
    last_of_tie = np.append(np.diff(distances_P) > 0, True)
    tar = np.cumsum(issame_P)[last_of_tie] / max(issame_P.sum(), 1)
    far = np.cumsum(~issame_P)[last_of_tie] / max((~issame_P).sum(), 1)
    start = [[0.0], [0.0], [0.0]]
    curve = [far, tar, distances_P[last_of_tie]]
    return Roc(*(np.concatenate(pair) for pair in zip(start, curve)))


def auc_and_eer(distances_P: np.ndarray, issame_P: np.ndarray) -> Tuple[float, float]:
    """(area under the ROC, ties counted half; error rate where FAR = 1 - TAR, between points
    linear)."""
    far, tar, _ = roc_curve(distances_P, issame_P)
    auc = float(np.sum(np.diff(far) * (tar[1:] + tar[:-1]) / 2))
    gap = far - (1 - tar)  # rises from -1 to 1
    right = int(np.argmax(gap >= 0))
    share = -gap[right - 1] / (gap[right] - gap[right - 1])
    return auc, float(far[right - 1] + share * (far[right] - far[right - 1]))


def _lengths(embeddings_ND):
    """Length of each row, 1 where it is 0: scikit-learn's `normalize`, bit for bit."""
    lengths_N = np.sqrt(np.einsum("ij,ij->i", embeddings_ND, embeddings_ND))
    lengths_N[lengths_N == 0] = 1.0
    return lengths_N


def _not_finite(embeddings_ND, mirrored_ND):
    """Names the rows that hold NaN or infinity."""
    bad_N = ~np.isfinite(embeddings_ND).all(axis=1)
    if mirrored_ND is not None:
        bad_N |= ~np.isfinite(mirrored_ND).all(axis=1)
    rows = np.flatnonzero(bad_N)
    if not len(rows):
        return "embeddings are so large that their squares overflow; train with a lower --lr."
    named = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
    return (
        f"{len(rows)} of {len(bad_N)} embeddings hold NaN or infinity (rows {named}): the network "
        "has diverged or an image is broken; use an earlier checkpoint and a lower learning rate."
    )


def _accepted(distances_P, issame_P, fold_P, folds, thresholds):
    """int [F, 2, T]: of each fold's impostor (0) and genuine (1) pairs, how many lie below each
    threshold."""
    first_T = np.searchsorted(thresholds, distances_P, side="right")  # first threshold above it
    bins, width = (fold_P * 2 + issame_P) * (len(thresholds) + 1) + first_T, len(thresholds) + 1
    counts = np.bincount(bins, minlength=folds * 2 * width).reshape(folds, 2, width)
    return np.cumsum(counts, axis=2)[:, :, :-1]


def _fold_accuracies(accepted_F2T, pairs_F2):
    """(accuracy [F] of each fold at the threshold that is best on the others, its index [F])."""
    right_FT = accepted_F2T[:, 1] + (pairs_F2[:, :1] - accepted_F2T[:, 0])
    best = np.argmax(_of_other_folds(right_FT), axis=1)  # the first of equals, as InsightFace
    return right_FT[np.arange(len(best)), best] / pairs_F2.sum(axis=1), best


def _of_other_folds(counts):
    """Sum over the other folds, first axis; with a single fold, that fold itself."""
    return counts.sum(axis=0) - counts if len(counts) > 1 else counts


def _rates_at_far(distances_P, issame_P, fold_P, pairs_F2) -> FarRates:
    """A fold's threshold is where the other folds' FAR curve reaches the target. Means are over the
    folds that have a genuine pair (TAR) or an impostor pair (achieved FAR)."""
    folds = len(pairs_F2)
    false_FT = _accepted(distances_P, issame_P, fold_P, folds, FINE_THRESHOLDS)[:, 0]
    far_FT = _of_other_folds(false_FT) / np.maximum(_of_other_folds(pairs_F2[:, :1]), 1)
    sorted_2F = [
        [np.sort(distances_P[(issame_P == kind) & (fold_P == fold)]) for fold in range(folds)]
        for kind in (False, True)
    ]
    found = FarRates({}, {}, {}, {})
    for target in FAR_TARGETS:
        if target * pairs_F2[:, 0].sum() < 1 and target != ALWAYS_SHOWN:
            continue  # fewer impostor pairs than one false accept needs
        limits = [threshold_at_far(far_T, target) for far_T in far_FT]
        fars, tars = (_shares_below(sorted_F, limits) for sorted_F in sorted_2F)
        found.tar[target], found.tar_std[target] = float(np.mean(tars)), float(np.std(tars))
        found.achieved_far[target] = float(np.mean(fars))
        found.thresholds[target] = float(np.mean(limits))
    return found


def _shares_below(sorted_F: Sequence[np.ndarray], limits: Sequence[float]) -> List[float]:
    """Of each fold that is not empty, the share of its sorted distances below the fold's limit."""
    return [
        float(np.searchsorted(fold, limit) / len(fold))
        for fold, limit in zip(sorted_F, limits)
        if len(fold)
    ]


def threshold_at_far(
    far_T: np.ndarray, target: float, thresholds: np.ndarray = FINE_THRESHOLDS
) -> float:
    """The threshold where a rising FAR curve reaches `target`: from the last point not above it,
    linear to the next, as SciPy <= 1.9's interp1d(kind="slinear"); 0 where no point reaches it."""
    left = int(np.searchsorted(far_T, target, side="right")) - 1
    if far_T[-1] < target:
        return 0.0
    if left == len(far_T) - 1:  # SciPy's spline has no interval to the right of its last knot
        return float(thresholds[-1]) if far_T[-2] < far_T[-1] else 0.0
    low, high = far_T[left], far_T[left + 1]
    weight = 1.0 / (high - low)
    return float(
        thresholds[left] * (weight * (high - target))
        + thresholds[left + 1] * (weight * (target - low))
    )


@dataclasses.dataclass(frozen=True)
class VerificationConfig:
    embeddings: str = flag(
        dataclasses.MISSING, ".npy of [N, D] embeddings; rows 2i and 2i+1 are pair i"
    )
    issame: str = flag(dataclasses.MISSING, ".npy of [N / 2] booleans")
    mirrored: Optional[str] = flag(
        None, ".npy of the mirrored images' embeddings, added before normalisation"
    )
    folds: int = flag(10, "contiguous folds; the threshold is chosen on the other folds", low=1)
    json: Optional[str] = flag(None, "JSON file to write the metrics to")
    plot: Optional[str] = flag(None, "image file to write the ROC curve to")


def main(argv: Optional[Sequence[str]] = None) -> None:
    config = parse_flags(VerificationConfig, argv, description=__doc__.splitlines()[0])
    embeddings_ND, issame_P = read_array(config.embeddings, 2), read_array(config.issame, 1)
    mirrored_ND = read_array(config.mirrored, 2) if config.mirrored else None
    result = evaluate(embeddings_ND, issame_P, config.folds, mirrored_ND)
    print(summary(result))
    if config.json:
        write_json(config.json, result)
    if config.plot:
        curve = roc_curve(pair_distances(embeddings_ND, mirrored_ND), issame_P.astype(bool))
        plot_roc({os.path.basename(config.embeddings): curve[:2]}, config.plot)


def read_array(path: str, ndim: int) -> np.ndarray:
    """An .npy file's array with `ndim` axes; nothing in it is unpickled."""
    array = read_npy(path)
    if array.ndim != ndim:
        raise ValueError(f"{path} holds {np.shape(array)}; an array with {ndim} axes is needed.")
    return array


def summary(result: Verification) -> str:
    """Verification -> the lines that the script prints."""
    low, high = result.accuracy_interval
    tars = "  ".join(
        f"{far:g}: {tar:.5f} +- {result.tar_std[far]:.5f} (achieved {result.achieved_far[far]:.5f})"
        for far, tar in result.tar_at_far.items()
    )
    return (
        f"pairs      {result.genuine} genuine, {result.impostor} impostor\n"
        f"accuracy   {result.accuracy:.5f} +- {result.accuracy_std:.5f}  "
        f"(95 % interval {low:.5f} to {high:.5f}, bootstrap over {len(result.accuracies)} folds)\n"
        f"threshold  {result.threshold:.4f} squared distance = cosine {result.cosine:.4f}\n"
        f"TAR@FAR    {tars}\n"
        f"AUC        {result.auc:.6f}\nEER        {result.eer:.6f}"
    )


def write_json(path: str, result: Verification) -> None:
    """The fields of a Verification as JSON, arrays as lists."""
    plain = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in dataclasses.asdict(result).items()
    }
    for name in ("tar_at_far", "tar_std", "achieved_far", "far_thresholds"):
        plain[name] = {f"{far:g}": value for far, value in plain[name].items()}
    with atomic_write(path) as stream:
        json.dump(plain, stream, indent=2)


def plot_roc(curves: Dict[str, Tuple[np.ndarray, np.ndarray]], path: str) -> None:
    """{name: (FAR, TAR)} -> an image file, FAR on a log axis."""
    from matplotlib.figure import Figure  # only for --plot: the metrics need NumPy alone

    figure = Figure(figsize=(6, 5))
    axes = figure.add_subplot()
    lowest = min(far[far > 0].min() for far, _ in curves.values())
    for name, (far, tar) in curves.items():
        axes.step(np.maximum(far, lowest / 2), tar, where="post", label=name)
    axes.set(xscale="log", xlim=(10 ** math.floor(math.log10(lowest)), 1), ylim=(0, 1.01))
    axes.set(xlabel="false accept rate", ylabel="true accept rate")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    run(main)
