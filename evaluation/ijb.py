"""The IJB-B and IJB-C protocols: embeddings of images -> templates -> 1:1 and 1:N figures.

N images, M templates, P pairs, D embedding, G gallery templates, Q probe templates. Images stream
through: of 469,375 only the sums of their 23,124 templates are kept.
"""

import collections
import itertools

import numpy as np

FAR_TARGETS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
FPIR_TARGETS = (0.01, 0.1)
RANKS = (1, 5, 10)
ROWS = 512  # templates whose scores against all others are computed at a time
PROBES = 1024

# N: the embedding's length counts. D: the detector's score counts. F: the mirror image is added.
Mode = collections.namedtuple("Mode", "norm detector flip")
ALL_MODES = tuple(Mode(*flags) for flags in itertools.product((False, True), repeat=3))


def mode_name(mode):
    """N1D1F1 and the like, as the peers write it."""
    return "N{:d}D{:d}F{:d}".format(*mode)


class Templates:
    """Sums of embeddings by template, filled a batch of images at a time, for several modes."""

    def __init__(self, template_N, weight_N, scores_N, templates, modes):
        self.template_N, self.weight_N, self.scores_N = template_N, weight_N, scores_N
        self.count, self.modes = templates, tuple(modes)
        self.sums, self.done = None, 0

    def add(self, plain_BD, mirrored_BD=None):
        """The next B images' embeddings."""
        here = slice(self.done, self.done + len(plain_BD))
        if here.stop > len(self.template_N):
            raise ValueError(
                f"there are more embeddings than the {len(self.template_N)} images of the lists."
            )
        if not np.isfinite(plain_BD).all():
            row = int(np.flatnonzero(~np.isfinite(plain_BD).all(axis=1))[0]) + self.done
            raise ValueError(f"the embedding of image {row} holds NaN or infinity.")
        if self.sums is None:
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

    def unit(self, mode):
        """float32 [M, D], each of length 1."""
        if self.done != len(self.template_N):
            raise ValueError(
                f"there are {self.done} embeddings for the {len(self.template_N)} images of the "
                "lists; they must come in the lists' order, one each."
            )
        lengths_M = np.linalg.norm(self.sums[mode], axis=1, keepdims=True)
        return self.sums[mode] / np.maximum(lengths_M, 1e-12)


def pair_scores(templates_MD, first_P, second_P):
    """Cosine of each pair: float32 [P]. A few million pairs of some thousand templates are cheaper
    as products of whole blocks than one by one."""
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


def verification_figures(scores_P, issame_P, targets=FAR_TARGETS):
    """{"tar_at_far": {target: TAR}, "thresholds": {...}, "auc", "eer", "genuine", "impostor"}.

    TAR at the lowest threshold whose FAR does not exceed the target; a target below one false
    accept is left out. (The peers take the nearest point of the curve, on either side.)"""
    genuine, impostor = np.sort(scores_P[issame_P]), np.sort(scores_P[~issame_P])
    tar_at_far, thresholds = {}, {}
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


def share_above(sorted_values, limit):
    """Of sorted values, the share above a limit."""
    return 1.0 - float(np.searchsorted(sorted_values, limit, "right")) / len(sorted_values)


def equal_error_rate(genuine, impostor):
    """Of sorted scores: the error rate at the genuine score where both kinds of error are nearest
    to equal."""
    rejects = np.arange(len(genuine)) / len(genuine)
    accepts = 1.0 - np.searchsorted(impostor, genuine, "left") / len(impostor)
    best = int(np.argmin(np.abs(rejects - accepts)))
    return float((rejects[best] + accepts[best]) / 2.0)


def curve(scores_P, issame_P, points=400):
    """(FAR, TAR) at `points` false accept rates, even on a log axis, for a plot."""
    genuine, impostor = np.sort(scores_P[issame_P]), np.sort(scores_P[~issame_P])
    accepts = np.unique(np.geomspace(1, len(impostor), points).astype(int))
    limits = np.append(-np.inf, impostor)[len(impostor) - accepts]
    tar = 1.0 - np.searchsorted(genuine, limits, "right") / len(genuine)
    return accepts / len(impostor), tar


def identification_figures(templates_MD, galleries, probes):
    """1:N. galleries: two of (template index, subject); probes: the same of the mixed probes.

    "ranks" and "tpir_at_fpir" are of both galleries as one, as InsightFace counts: the threshold
    at FPIR x is the (x Q)-th highest score of a probe with another person. "open_set" takes each
    gallery by itself, so that the other's people are strangers, and averages the two: a stranger's
    highest score may pass at rate x, and the mate must be above it and first."""
    together = tuple(np.concatenate(column) for column in zip(*galleries))
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


def _scores(templates_MD, gallery, probes):
    """(scores [Q, G], which of them are of the probe's own person), PROBES rows at a time."""
    transposed = np.ascontiguousarray(templates_MD[gallery[0]].T)
    for start in range(0, len(probes[0]), PROBES):
        part = slice(start, start + PROBES)
        scores_QG = np.matmul(templates_MD[probes[0][part]], transposed)
        yield scores_QG, probes[1][part][:, np.newaxis] == gallery[1][np.newaxis, :]


def _closed_set(templates_MD, gallery, probes):
    count = len(probes[0])
    keep = max(int(np.ceil(count * target)) for target in FPIR_TARGETS)
    ranks, mates, strangers = collections.Counter(), [], np.empty(0, np.float32)
    for scores_QG, own_QG in _scores(templates_MD, gallery, probes):
        mate_Q = np.where(own_QG, scores_QG, -np.inf).max(axis=1)
        others_QG = np.where(own_QG, -np.inf, scores_QG)
        rank_Q = (others_QG > mate_Q[:, np.newaxis]).sum(axis=1)
        for rank in RANKS:
            ranks[rank] += int((np.isfinite(mate_Q) & (rank_Q < rank)).sum())
        mates.append(mate_Q)
        strangers = _highest(np.append(strangers, others_QG[~own_QG]), keep)
    mates, strangers = np.concatenate(mates), np.sort(strangers)[::-1]
    tpir = {
        target: float((mates > strangers[int(np.ceil(count * target)) - 1]).mean())
        for target in FPIR_TARGETS
        if int(np.ceil(count * target)) <= len(strangers)
    }
    return {rank: hits / count for rank, hits in sorted(ranks.items())}, tpir


def _highest(values, count):
    return np.partition(values, len(values) - count)[-count:] if len(values) > count else values


def _open_set(templates_MD, gallery, probes):
    """{FPIR: TPIR} where probes whose person is not in the gallery are the strangers."""
    known_Q = np.isin(probes[1], gallery[1])
    mates, firsts, strangers = [], [], []
    for start, (scores_QG, own_QG) in enumerate(_scores(templates_MD, gallery, probes)):
        part = known_Q[start * PROBES : (start + 1) * PROBES]
        mate_Q = np.where(own_QG, scores_QG, -np.inf).max(axis=1)
        other_Q = np.where(own_QG, -np.inf, scores_QG).max(axis=1)
        mates.append(mate_Q[part])
        firsts.append(mate_Q[part] > other_Q[part])
        strangers.append(other_Q[~part])
    mates, firsts = np.concatenate(mates), np.concatenate(firsts)
    strangers = np.sort(np.concatenate(strangers))
    figures = {}
    for target in FPIR_TARGETS:
        passing = int(target * len(strangers) + 1e-9)
        if passing >= 1 and len(mates):
            limit = strangers[-passing - 1] if passing < len(strangers) else -np.inf
            figures[target] = float((firsts & (mates > limit)).mean())
    return figures
