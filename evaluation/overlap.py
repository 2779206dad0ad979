"""Identities of a test set that are in the training set: class centres against test embeddings.

N = 2 P images, I identities of the set, K classes, S centres of a class, D embedding, J nearest
classes. An unseen identity is about equally near to many classes. The gaps between its sorted
cosines, each times its rank, are then exponential with one scale (Rényi), which is estimated from
the far gaps; a first gap far outside that is a class of the same person. No threshold is guessed.
"""

import math
from typing import List, NamedTuple, Optional, Tuple

import numpy as np

import verification

NEAREST = 12  # classes of an identity whose cosines are compared
FIRST = 2  # gaps that are tested: one person may be two classes
ROWS = 256  # identities whose cosines to all classes are in memory together
FALSE_FLAGS = 0.5  # unseen identities of a whole set that may be flagged, on average


class Overlap(NamedTuple):
    """An identity of the set that is a class of the training set."""

    identity: int  # of the set, see VerificationSet.identity_N
    image: int  # its first image in the .bin
    label: int  # the class
    cosine: float
    gap: float  # to the nearest class that is taken for another person


class Without(NamedTuple):
    """The set before and after its overlapping identities are removed."""

    pairs: int  # of the whole set
    removed: int  # pairs with an overlapping identity
    accuracy: float  # Accuracy-Flip of the whole set
    accuracy_std: float
    accuracy_without: Optional[float]  # None where too few pairs are left
    accuracy_without_std: Optional[float]


def identity_means(unit_ND: np.ndarray, identity_N: np.ndarray) -> np.ndarray:
    """Normalised mean of each identity's normalised embeddings: float32 [I, D]."""
    unit_ND = _normalised(unit_ND)
    order = np.argsort(identity_N, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(identity_N[order]) != 0))
    sums_ID = np.add.reduceat(unit_ND[order], starts, axis=0)
    return _normalised(sums_ID).astype(np.float32)


def _normalised(rows_ND: np.ndarray) -> np.ndarray:
    return rows_ND / np.maximum(np.linalg.norm(rows_ND, axis=1, keepdims=True), 1e-12)


def nearest_classes(
    means_ID: np.ndarray, centres_KSD: np.ndarray, nearest: int = NEAREST
) -> Tuple[np.ndarray, np.ndarray]:
    """(label, cosine) of each identity's nearest classes, a class having its nearest centre:
    int [I, J] and float32 [I, J], falling."""
    classes, centres, width = centres_KSD.shape
    flat_MD = centres_KSD.reshape(-1, width)
    flat_DM = np.ascontiguousarray(_normalised(flat_MD).astype(np.float32).T)
    keep, labels, cosines = min(nearest, classes), [], []
    for start in range(0, len(means_ID), ROWS):
        cosine_BM = means_ID[start : start + ROWS] @ flat_DM
        cosine_BK = cosine_BM.reshape(len(cosine_BM), classes, centres).max(axis=2)
        label_BJ = np.argpartition(-cosine_BK, keep - 1, axis=1)[:, :keep]
        cosine_BJ = np.take_along_axis(cosine_BK, label_BJ, axis=1)
        order = np.argsort(-cosine_BJ, axis=1, kind="stable")
        labels.append(np.take_along_axis(label_BJ, order, axis=1))
        cosines.append(np.take_along_axis(cosine_BJ, order, axis=1))
    return np.concatenate(labels), np.concatenate(cosines)


def find_overlaps(
    means_ID: np.ndarray,
    centres_KSD: np.ndarray,
    identity_N: np.ndarray,
    cosine: Optional[float] = None,
) -> List[Overlap]:
    """The overlapping identities, the surest first. cosine: flag every identity that is at least so
    near to a class, instead of testing the gaps."""
    if cosine is None and len(centres_KSD) < NEAREST:
        raise ValueError(
            f"the training set has {len(centres_KSD)} identities, and {NEAREST} are needed to see "
            "how near an unseen one is; pass --cosine."
        )
    label_IJ, cosine_IJ = nearest_classes(means_ID, centres_KSD)
    if cosine is not None:
        ranks_I = (cosine_IJ[:, 0] >= cosine).astype(int)
    else:
        ranks_I = _last_wide_gap(cosine_IJ)
    first_I = np.full(len(means_ID), -1)
    first_I[identity_N[::-1]] = np.arange(len(identity_N))[::-1]
    other_I = np.minimum(ranks_I, cosine_IJ.shape[1] - 1)
    found = [
        Overlap(
            int(identity),
            int(first_I[identity]),
            int(label_IJ[identity, 0]),
            float(cosine_IJ[identity, 0]),
            float(cosine_IJ[identity, 0] - cosine_IJ[identity, other_I[identity]]),
        )
        for identity in np.flatnonzero(ranks_I)
    ]
    return sorted(found, key=lambda one: -one.gap)


def _last_wide_gap(cosine_IJ: np.ndarray) -> np.ndarray:
    """How many classes each identity has before a gap that an unseen one does not have; 0 if
    none."""
    rank_J = np.arange(1, cosine_IJ.shape[1])
    scaled_IJ = (cosine_IJ[:, :-1] - cosine_IJ[:, 1:]) * rank_J
    scale = float(np.mean(scaled_IJ[:, FIRST + 1 :]))
    limit = scale * math.log(FIRST * len(cosine_IJ) / FALSE_FLAGS)
    wide_IF = scaled_IJ[:, :FIRST] > limit
    return np.where(wide_IF.any(axis=1), FIRST - np.argmax(wide_IF[:, ::-1], axis=1), 0)


def accuracy_without(
    distances_P: np.ndarray,
    issame_P: np.ndarray,
    identity_N: np.ndarray,
    overlaps: List[Overlap],
    folds: int = 10,
) -> Without:
    """Accuracy of the whole set and of the pairs without an overlapping identity."""
    gone = np.isin(identity_N, [one.identity for one in overlaps])
    kept_P = ~(gone[0::2] | gone[1::2])
    whole = verification.evaluate_distances(distances_P, issame_P, folds)
    left = issame_P[kept_P]
    known = len(left) >= folds and left.any() and not left.all()
    rest = verification.evaluate_distances(distances_P[kept_P], left, folds) if known else None
    return Without(
        len(issame_P),
        int((~kept_P).sum()),
        whole.accuracy,
        whole.accuracy_std,
        None if rest is None else rest.accuracy,
        None if rest is None else rest.accuracy_std,
    )
