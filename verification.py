"""Embeddings of image pairs -> accuracy, thresholds, TAR@FAR: the truth about accuracy, NumPy only.

N images, P = N / 2 pairs (rows 2i and 2i + 1 are pair i), D embedding, T thresholds, F folds.
The digits are InsightFace's: squared distance of unit embeddings, 400 thresholds from 0 to 4, the
threshold chosen on the other folds. Its loop over thresholds is a histogram and a running sum here.
Also a script: python verification.py --embeddings emb.npy --issame issame.npy --plot roc.png
"""

import dataclasses
import json
import math
import os
from typing import Dict, Optional, Tuple

import numpy as np

from runtime.cli import run
from runtime.flags import flag, parse_flags

THRESHOLDS = np.arange(0, 4, 0.01)  # InsightFace's grid, for accuracy and the ROC
FINE_THRESHOLDS = np.arange(0, 4, 0.001)  # and its grid for TAR@FAR
FAR_TARGETS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
ALWAYS_SHOWN = 1e-3  # every peer prints TAR@FAR=1e-3, also of sets that are too small for it
RESAMPLES = 1000
PAIRS_AT_ONCE = 512  # of 512 float64: 4 MB a step, whatever the number of pairs


@dataclasses.dataclass(frozen=True)
class Verification:
    """What a set of pairs says of a net. Distances are squared, so cosine = 1 - distance / 2."""

    accuracy: float  # mean over folds of accuracies
    accuracy_std: float
    accuracy_interval: Tuple[float, float]  # 95 %, bootstrap over folds
    accuracies: np.ndarray  # [F] of each held-out fold
    best_thresholds: np.ndarray  # [F] the threshold each fold was judged with
    threshold: float  # their mean
    cosine: float  # the same threshold as a cosine
    tpr: np.ndarray  # [T] mean over folds, at THRESHOLDS
    fpr: np.ndarray  # [T]
    tar_at_far: Dict[float, float]
    far_thresholds: Dict[float, float]  # the mean over folds of the threshold used for each target
    auc: float
    eer: float
    genuine: int
    impostor: int


def evaluate(embeddings_ND, issame_P, folds=10, mirrored_ND=None, normalise=True):
    """Verification of embeddings [N, D] under issame [P], N = 2 P.

    mirrored_ND: embeddings of the mirrored images, added before normalising ("Accuracy-Flip").
    normalise: divide each row by its length first, as InsightFace does before its `evaluate`.
    """
    issame_P = checked_issame(issame_P, folds)
    if len(embeddings_ND) != 2 * len(issame_P):
        raise ValueError(
            f"{len(embeddings_ND)} embeddings do not make {len(issame_P)} pairs; "
            f"pass {2 * len(issame_P)} rows, two for each entry of issame."
        )
    distances_P = pair_distances(embeddings_ND, mirrored_ND, normalise)
    return evaluate_distances(distances_P, issame_P, folds)


def checked_issame(issame_P, folds):
    """issame as bool [P], or the reason why no accuracy can be said of it."""
    issame_P = np.asarray(issame_P)
    if issame_P.ndim != 1 or not np.isin(issame_P, (0, 1)).all():
        raise ValueError(
            f"issame has shape {list(issame_P.shape)} and type {issame_P.dtype}; "
            "pass one True or False for each pair."
        )
    issame_P, pairs = issame_P.astype(bool), len(issame_P)
    if pairs == 0:
        raise ValueError("there are 0 pairs; an accuracy needs at least one of each kind.")
    if issame_P.all() or not issame_P.any():
        kind = "the same person" if issame_P.all() else "different people"
        raise ValueError(f"all {pairs} pairs are of {kind}; an accuracy needs both kinds.")
    if not 1 <= folds <= pairs:
        raise ValueError(f"{pairs} pairs do not make {folds} folds; pass folds from 1 to {pairs}.")
    return issame_P


def pair_distances(embeddings_ND, mirrored_ND=None, normalise=True):
    """Squared distance of rows 2i and 2i + 1: float64 [P], computed a few pairs at a time."""
    if mirrored_ND is not None and np.shape(mirrored_ND) != np.shape(embeddings_ND):
        raise ValueError(
            f"the mirrored embeddings have shape {list(np.shape(mirrored_ND))}, the plain ones "
            f"{list(np.shape(embeddings_ND))}; both must come from the same images."
        )
    distances_P = np.empty(len(embeddings_ND) // 2)
    for start in range(0, len(distances_P), PAIRS_AT_ONCE):
        rows = slice(2 * start, 2 * (start + PAIRS_AT_ONCE))
        part_ND = np.array(embeddings_ND[rows], np.float64)
        if mirrored_ND is not None:
            part_ND += mirrored_ND[rows]
        if normalise:
            part_ND /= _lengths(part_ND)[:, np.newaxis]
        difference_PD = part_ND[0::2] - part_ND[1::2]
        np.square(difference_PD, out=difference_PD)
        distances_P[start : start + PAIRS_AT_ONCE] = difference_PD.sum(axis=1)
    if not np.isfinite(distances_P).all():
        raise ValueError(_not_finite(embeddings_ND, mirrored_ND))
    return distances_P


def evaluate_distances(distances_P, issame_P, folds=10):
    """Verification of squared distances [P]; what `evaluate` does once embeddings are compared."""
    fold_P = fold_of_pair(len(issame_P), folds)
    accepted_F2T = _accepted(distances_P, issame_P, fold_P, folds, THRESHOLDS)
    pairs_F2 = np.stack(
        [np.bincount(fold_P[issame_P == kind], minlength=folds) for kind in (False, True)], axis=1
    )
    accuracies, best = _fold_accuracies(accepted_F2T, pairs_F2)
    rates_F2T = accepted_F2T / np.maximum(pairs_F2, 1)[:, :, np.newaxis]
    tar_at_far, far_thresholds = _tar_at_far(distances_P, issame_P, fold_P, pairs_F2)
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
        tar_at_far=tar_at_far,
        far_thresholds=far_thresholds,
        auc=auc,
        eer=eer,
        genuine=int(pairs_F2[:, 1].sum()),
        impostor=int(pairs_F2[:, 0].sum()),
    )


def fold_of_pair(pairs, folds):
    """int [P] in [0, F): contiguous folds, the first `pairs % folds` one longer (as unshuffled
    KFold)."""
    sizes = np.full(folds, pairs // folds)
    sizes[: pairs % folds] += 1
    return np.repeat(np.arange(folds), sizes)


def bootstrap_interval(values, share=0.95):
    """(low, high) of the mean of `values`, resampled with replacement; the same at every call."""
    values = np.asarray(values)
    picks = np.random.RandomState(0).randint(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [50 - 50 * share, 50 + 50 * share])
    return float(low), float(high)


def roc_curve(distances_P, issame_P):
    """(FAR, TAR, distance) at every distance where one changes, from the strictest threshold on;
    a pair is accepted when its distance is at most the threshold."""
    order = np.argsort(distances_P, kind="stable")
    distances_P, issame_P = distances_P[order], issame_P[order]
    last_of_tie = np.append(np.diff(distances_P) > 0, True)
    tar = np.cumsum(issame_P)[last_of_tie] / max(issame_P.sum(), 1)
    far = np.cumsum(~issame_P)[last_of_tie] / max((~issame_P).sum(), 1)
    start = [[0.0], [0.0], [0.0]]
    curve = [far, tar, distances_P[last_of_tie]]
    return tuple(np.concatenate(pair) for pair in zip(start, curve))


def auc_and_eer(distances_P, issame_P):
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
        f"{len(rows)} of {len(bad_N)} embeddings hold NaN or infinity (rows {named}): the net has "
        "diverged or an image is broken; go back to an earlier checkpoint and lower the rate."
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
    """Sum over the other folds, first axis; a single fold is judged by itself."""
    return counts.sum(axis=0) - counts if len(counts) > 1 else counts


def _tar_at_far(distances_P, issame_P, fold_P, pairs_F2):
    """({target: TAR}, {target: threshold}), means over folds. A fold's threshold is where the
    other folds' FAR curve reaches the target; folds without genuine pairs do not count."""
    folds = len(pairs_F2)
    false_FT = _accepted(distances_P, issame_P, fold_P, folds, FINE_THRESHOLDS)[:, 0]
    far_FT = _of_other_folds(false_FT) / np.maximum(_of_other_folds(pairs_F2[:, :1]), 1)
    genuine = [np.sort(distances_P[issame_P & (fold_P == fold)]) for fold in range(folds)]
    tar_at_far, thresholds = {}, {}
    for target in FAR_TARGETS:
        if target * pairs_F2[:, 0].sum() < 1 and target != ALWAYS_SHOWN:
            continue  # fewer impostor pairs than one false accept needs
        limits = [threshold_at_far(far_T, target) for far_T in far_FT]
        tars = [
            np.searchsorted(fold, limit) / len(fold)
            for fold, limit in zip(genuine, limits)
            if len(fold)
        ]
        tar_at_far[target], thresholds[target] = float(np.mean(tars)), float(np.mean(limits))
    return tar_at_far, thresholds


def threshold_at_far(far_T, target, thresholds=FINE_THRESHOLDS):
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
    embeddings: str = flag(dataclasses.MISSING, ".npy of [N, D] numbers; rows 2i, 2i+1 are pair i")
    issame: str = flag(dataclasses.MISSING, ".npy of [N / 2] booleans")
    mirrored: Optional[str] = flag(None, ".npy of the mirrored images' embeddings, added")
    folds: int = flag(10, "contiguous folds; the threshold is chosen on the others", low=1)
    json: Optional[str] = flag(None, "file for the numbers as JSON")
    plot: Optional[str] = flag(None, "image file for the ROC")


def main(argv=None):
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


def read_array(path, ndim):
    """An .npy file's array with `ndim` axes; nothing in it is unpickled."""
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError):
        raise ValueError(f"{path} is not an .npy file of plain numbers.") from None
    if not isinstance(array, np.ndarray) or array.ndim != ndim:
        raise ValueError(f"{path} holds {np.shape(array)}; an array with {ndim} axes is needed.")
    return array


def summary(result):
    """Verification -> the lines a person reads."""
    low, high = result.accuracy_interval
    tars = "  ".join(f"{far:g}: {tar:.5f}" for far, tar in result.tar_at_far.items())
    return (
        f"pairs      {result.genuine} genuine, {result.impostor} impostor\n"
        f"accuracy   {result.accuracy:.5f} +- {result.accuracy_std:.5f}  "
        f"(95 % interval {low:.5f} to {high:.5f}, bootstrap over {len(result.accuracies)} folds)\n"
        f"threshold  {result.threshold:.4f} squared distance = cosine {result.cosine:.4f}\n"
        f"TAR@FAR    {tars}\n"
        f"AUC        {result.auc:.6f}\nEER        {result.eer:.6f}"
    )


def write_json(path, result):
    """The numbers of a Verification, arrays as lists."""
    plain = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in dataclasses.asdict(result).items()
    }
    for name in ("tar_at_far", "far_thresholds"):
        plain[name] = {f"{far:g}": value for far, value in plain[name].items()}
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(plain, stream, indent=2)


def plot_roc(curves, path):
    """{name: (FAR, TAR)} -> an image file, FAR on a log axis."""
    from matplotlib.figure import Figure  # only for --plot: the numbers need NumPy alone

    axes = Figure(figsize=(6, 5)).add_subplot()
    lowest = min(far[far > 0].min() for far, _ in curves.values())
    for name, (far, tar) in curves.items():
        axes.step(np.maximum(far, lowest / 2), tar, where="post", label=name)
    axes.set(xscale="log", xlim=(10 ** math.floor(math.log10(lowest)), 1), ylim=(0, 1.01))
    axes.set(xlabel="false accept rate", ylabel="true accept rate")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    axes.figure.savefig(path, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    run(main)
