"""Quality and groups of an evaluated set: what the flags --quality and --groups compute."""

from typing import Dict, List, Mapping

import numpy as np

from data.formats.image_headers import image_size
from evaluation.error_rates import operating_points
from evaluation.groups import GroupReport, group_report, read_groups
from evaluation.quality import NORM, QUALITY_FMR, QualityMeasure, measure_quality
from evaluation.verification_set import SetResult, VerificationSet


def own_measures(pairs: VerificationSet) -> Dict[str, np.ndarray]:
    """The measures of a set's images, which need no network, at the size of its first image."""
    height, width = image_size(pairs.images[0]) or (112, 112)
    return pairs.measures((height, width))


def quality_measures(
    result: SetResult, own: Mapping[str, np.ndarray], fmr: float = QUALITY_FMR
) -> List[QualityMeasure]:
    """The embedding norm, then the measures of the images, at the threshold of an FMR."""
    points = operating_points(result.distances_P, result.issame_P, (fmr,))
    if not points:
        raise ValueError(
            f"{result.name}: --quality needs {1 / fmr:.0f} impostor pairs, and the set has "
            f"{int((~result.issame_P).sum())}."
        )
    limit, named = points[0].squared_l2, dict({NORM: result.norms_N}, **own)
    return [
        measure_quality(name, values, result.distances_P, result.issame_P, limit)
        for name, values in named.items()
    ]


def groups_of(path: str, fmr: float, result: SetResult, pairs: VerificationSet) -> GroupReport:
    """The rates of the groups of a CSV at the threshold of an FMR."""
    groups = read_groups(path, pairs.image_names(), pairs.identity_N)
    identity_P2 = pairs.identity_N.reshape(-1, 2)
    return group_report(result.distances_P, result.issame_P, identity_P2, groups, fmr)
