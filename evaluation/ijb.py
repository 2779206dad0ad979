"""The IJB-B and IJB-C protocols: embeddings of images -> templates -> 1:1 and 1:N figures.

N images, M templates, P pairs, D embedding, G gallery templates, Q probe templates. Images are
streamed: of 469,375 only the sums of their 23,124 templates are kept in memory.
"""

import collections
import itertools
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

FAR_TARGETS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
FPIR_TARGETS = (0.01, 0.1)
RANKS = (1, 5, 10)
# Rows of a block of the score matrix, for memory: 512 x 23,124 float32 are 47 MB.
ROWS = 512  # templates of the 1:1 protocol
PROBES = 1024  # of the 1:N protocol, with a few thousand gallery templates

Subjects = Tuple[np.ndarray, np.ndarray]  # (template index [G] or [Q], subject)


class Mode(NamedTuple):
    """How embeddings of images become a template."""

    norm: bool  # N: weighted by the norm of the embedding
    detector: bool  # D: weighted by the detector's score
    flip: bool  # F: the embedding of the mirrored image is added


ALL_MODES = tuple(Mode(*flags) for flags in itertools.product((False, True), repeat=3))


def mode_name(mode: Mode) -> str:
    """N1D1F1 and the like, as InsightFace's tables have it."""
    return "N{:d}D{:d}F{:d}".format(*mode)


class Templates:
    """Sums of embeddings by template, for several modes; batches of images are added in order."""

    def __init__(
        self,
        template_N: np.ndarray,
        weight_N: np.ndarray,
        scores_N: np.ndarray,
        templates: int,
        modes: Sequence[Mode],
    ) -> None:
        self.template_N, self.weight_N, self.scores_N = template_N, weight_N, scores_N
        self.count, self.modes = templates, tuple(modes)
        self.sums: Dict[Mode, np.ndarray] = {}  # float32 [M, D] each
        self.done = 0  # images added

    def add(self, plain_BD: np.ndarray, mirrored_BD: Optional[np.ndarray] = None) -> None:
        """Adds the embeddings of the next B images."""
        here = slice(self.done, self.done + len(plain_BD))
        if here.stop > len(self.template_N):
            raise ValueError(
                f"there are more embeddings than the {len(self.template_N)} images of the lists."
            )
        if not np.isfinite(plain_BD).all():
            row = int(np.flatnonzero(~np.isfinite(plain_BD).all(axis=1))[0]) + self.done
            raise ValueError(f"the embedding of image {row} holds NaN or infinity.")
        if not self.sums:
            shape = (self.count, plain_BD.shape[1])
            self.sums = {mode: np.zeros(shape, np.float32) for mode in self.modes}
        order = np.argsort(self.template_N[here], kind="stable")
        sorted_B = self.template_N[here][order]
        starts = np.flatnonzero(np.append(True, np.diff(sorted_B) > 0))
        for mode in self.modes:
            weighted_BD = self._weighted(mode, here, plain_BD, mirrored_BD)[order]
            self.sums[mode][sorted_B[starts]] += np.add.reduceat(weighted_BD, starts, axis=0)
        self.done = here.stop

    def _weighted(self, mode, here, plain_BD, mirrored_BD):
        parts_BD = plain_BD + mirrored_BD if mode.flip else plain_BD
        weight_B = self.weight_N[here]
        if not mode.norm:
            lengths_B = np.sqrt(np.einsum("ij,ij->i", parts_BD, parts_BD))
            weight_B = weight_B / np.maximum(lengths_B, 1e-12)
        if mode.detector:
            weight_B = weight_B * self.scores_N[here]
        return parts_BD * weight_B[:, np.newaxis].astype(np.float32)

    def unit(self, mode: Mode) -> np.ndarray:
        """float32 [M, D], each of length 1."""
        if self.done != len(self.template_N):
            raise ValueError(
                f"there are {self.done} embeddings for the {len(self.template_N)} images of the "
                "lists; they must come in the lists' order, one each."
            )
        lengths_M = np.linalg.norm(self.sums[mode], axis=1, keepdims=True)
        return self.sums[mode] / np.maximum(lengths_M, 1e-12)


def pair_scores(templates_MD: np.ndarray, first_P: np.ndarray, second_P: np.ndarray) -> np.ndarray:
    """Cosine of each pair: float32 [P]. By matrix products of blocks: millions of pairs share some
    thousand templates."""
    order = np.argsort(first_P, kind="stable")
    sorted_P = first_P[order]
    scores_P = np.empty(len(first_P), np.float32)
    transposed_DM = np.ascontiguousarray(templates_MD.T)
    for rows in _blocks(np.unique(first_P), ROWS):
        low, high = np.searchsorted(sorted_P, [rows[0], rows[-1] + 1])
        block = np.matmul(templates_MD[rows], transposed_DM)
        pairs = order[low:high]
        scores_P[pairs] = block[np.searchsorted(rows, sorted_P[low:high]), second_P[pairs]]
    return scores_P


def _blocks(values, size):
    return [values[start : start + size] for start in range(0, len(values), size)]


def verification_figures(
    scores_P: np.ndarray, issame_P: np.ndarray, targets: Sequence[float] = FAR_TARGETS
) -> Dict[str, Any]:
    """{"tar_at_far": {target: TAR}, "thresholds": {...}, "auc", "eer", "genuine", "impostor"}.

    TAR at the lowest threshold whose FAR does not exceed the target; a target below one false
    accept is omitted. (InsightFace takes the nearest point of the curve, on either side.)"""
    genuine, impostor = np.sort(scores_P[issame_P]), np.sort(scores_P[~issame_P])
    tar_at_far: Dict[float, float] = {}
    thresholds: Dict[float, float] = {}
    for target in targets:
        accepts = int(target * len(impostor) + 1e-9)
        if accepts < 1:
            continue
        limit = impostor[-accepts - 1] if accepts < len(impostor) else -np.inf
        tar_at_far[target] = share_above(genuine, limit)
        thresholds[target] = float(limit)
    below = np.searchsorted(impostor, genuine, "left")
    ties = np.searchsorted(impostor, genuine, "right") - below
    return {
        "tar_at_far": tar_at_far,
        "thresholds": thresholds,
        "auc": float((below + ties / 2.0).mean() / len(impostor)),
        "eer": equal_error_rate(genuine, impostor),
        "genuine": len(genuine),
        "impostor": len(impostor),
    }


def share_above(sorted_values: np.ndarray, limit: float) -> float:
    """The share of sorted values above a limit."""
    return 1.0 - float(np.searchsorted(sorted_values, limit, "right")) / len(sorted_values)


def equal_error_rate(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """EER of sorted scores: the mean of both error rates at the genuine score where they are
    closest."""
    rejects = np.arange(len(genuine)) / len(genuine)
    accepts = 1.0 - np.searchsorted(impostor, genuine, "left") / len(impostor)
    best = int(np.argmin(np.abs(rejects - accepts)))
    return float((rejects[best] + accepts[best]) / 2.0)


def curve(
    scores_P: np.ndarray, issame_P: np.ndarray, points: int = 400
) -> Tuple[np.ndarray, np.ndarray]:
    """(FAR, TAR) at `points` false accept rates, evenly spaced on a log axis, for a plot."""
    genuine, impostor = np.sort(scores_P[issame_P]), np.sort(scores_P[~issame_P])
    accepts = np.unique(np.geomspace(1, len(impostor), points).astype(int))
    limits = np.append(-np.inf, impostor)[len(impostor) - accepts]
    tar = 1.0 - np.searchsorted(genuine, limits, "right") / len(genuine)
    return accepts / len(impostor), tar


def identification_figures(
    templates_MD: np.ndarray, galleries: Sequence[Subjects], probes: Subjects
) -> Dict[str, Any]:
    """1:N. galleries: two of (template index, subject); probes: the same of the mixed probes.

    "ranks" and "tpir_at_fpir" search both galleries together, as InsightFace does: the threshold
    at FPIR x is the (x Q)-th highest score of a probe against another subject. "open_set" searches
    each gallery alone, so that the subjects of the other one are non-mated probes, and averages the
    two: a share x of their highest scores may exceed the threshold, and a mate must exceed it at
    rank 1."""
    together = (
        np.concatenate([gallery[0] for gallery in galleries]),
        np.concatenate([gallery[1] for gallery in galleries]),
    )
    ranks, tpir = _closed_set(templates_MD, together, probes)
    open_sets = [_open_set(templates_MD, gallery, probes) for gallery in galleries]
    averaged = {
        target: float(np.mean([one[target] for one in open_sets if target in one]))
        for target in FPIR_TARGETS
        if any(target in one for one in open_sets)
    }
    return {
        "ranks": ranks,
        "tpir_at_fpir": tpir,
        "open_set_tpir_at_fpir": averaged,
        "probes": len(probes[0]),
        "gallery": len(together[0]),
    }


def _scores(
    templates_MD: np.ndarray, gallery: Subjects, probes: Subjects
) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Blocks of PROBES rows: (scores [Q, G], bool [Q, G]: whether the subjects are the same)."""
    transposed = np.ascontiguousarray(templates_MD[gallery[0]].T)
    for start in range(0, len(probes[0]), PROBES):
        part = slice(start, start + PROBES)
        scores_QG = np.matmul(templates_MD[probes[0][part]], transposed)
        yield scores_QG, probes[1][part][:, np.newaxis] == gallery[1][np.newaxis, :]


def _closed_set(
    templates_MD: np.ndarray, gallery: Subjects, probes: Subjects
) -> Tuple[Dict[int, float], Dict[float, float]]:
    """({rank: share of probes}, {FPIR: TPIR})."""
    count = len(probes[0])
    keep = max(int(np.ceil(count * target)) for target in FPIR_TARGETS)
    ranks: Dict[int, int] = collections.Counter()
    mate_blocks, impostors = [], np.empty(0, np.float32)
    for scores_QG, own_QG in _scores(templates_MD, gallery, probes):
        mate_Q = np.where(own_QG, scores_QG, -np.inf).max(axis=1)
        others_QG = np.where(own_QG, -np.inf, scores_QG)
        rank_Q = (others_QG > mate_Q[:, np.newaxis]).sum(axis=1)
        for rank in RANKS:
            ranks[rank] += int((np.isfinite(mate_Q) & (rank_Q < rank)).sum())
        mate_blocks.append(mate_Q)
        impostors = _highest(np.append(impostors, others_QG[~own_QG]), keep)
    mates, impostors = np.concatenate(mate_blocks), np.sort(impostors)[::-1]
    tpir = {
        target: float((mates > impostors[int(np.ceil(count * target)) - 1]).mean())
        for target in FPIR_TARGETS
        if int(np.ceil(count * target)) <= len(impostors)
    }
    return {rank: hits / count for rank, hits in sorted(ranks.items())}, tpir


def _highest(values, count):
    return np.partition(values, len(values) - count)[-count:] if len(values) > count else values


def _open_set(templates_MD: np.ndarray, gallery: Subjects, probes: Subjects) -> Dict[float, float]:
    """{FPIR: TPIR}; probes of subjects outside the gallery are the non-mated ones."""
    known_Q = np.isin(probes[1], gallery[1])
    mate_blocks: List[np.ndarray] = []
    first_blocks: List[np.ndarray] = []
    nonmate_blocks: List[np.ndarray] = []
    for start, (scores_QG, own_QG) in enumerate(_scores(templates_MD, gallery, probes)):
        part = known_Q[start * PROBES : (start + 1) * PROBES]
        mate_Q = np.where(own_QG, scores_QG, -np.inf).max(axis=1)
        other_Q = np.where(own_QG, -np.inf, scores_QG).max(axis=1)
        mate_blocks.append(mate_Q[part])
        first_blocks.append(mate_Q[part] > other_Q[part])
        nonmate_blocks.append(other_Q[~part])
    mates, firsts = np.concatenate(mate_blocks), np.concatenate(first_blocks)
    nonmates = np.sort(np.concatenate(nonmate_blocks))
    figures: Dict[float, float] = {}
    for target in FPIR_TARGETS:
        passing = int(target * len(nonmates) + 1e-9)
        if passing >= 1 and len(mates):
            limit = nonmates[-passing - 1] if passing < len(nonmates) else -np.inf
            figures[target] = float((firsts & (mates > limit)).mean())
    return figures
