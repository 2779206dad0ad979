"""thresholds.json: the operating points of a model on each verification set, for deployment."""

import json
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

import verification
from evaluation.error_rates import OperatingPoint, d_prime, lowest_fmr, operating_points
from evaluation.identity_intervals import PairIdentities, curve_intervals, intervals_by_identity
from evaluation.verification_set import SetResult
from runtime.files import atomic_write

FORMAT = "insightface-tf thresholds 1"


class SetThresholds(NamedTuple):
    """The operating points of a model on one set. Scores are of plain + mirrored embeddings."""

    name: str
    synthetic: bool  # generated faces
    genuine: int  # pairs
    impostor: int
    lowest_fmr: float  # the lowest FMR target that the set can estimate
    eer: float
    d_prime: float  # of the cosines
    points: List[OperatingPoint]
    identity_intervals: List[Dict[str, Any]]  # per point; empty where identities are unknown
    curve_intervals: Dict[str, Any] = {}  # of eer and d_prime, by a bootstrap over identities


def set_thresholds(result: SetResult, identity_N: Optional[np.ndarray] = None) -> SetThresholds:
    """The operating points of a SetResult. identity_N: int, the identity of each image, for
    the intervals over identities."""
    distances_P, issame_P = result.distances_P, result.issame_P
    points, intervals, of_curve = operating_points(distances_P, issame_P), [], {}
    if identity_N is not None:
        pairs = PairIdentities(issame_P, identity_N.reshape(-1, 2))
        for point in points:
            found = intervals_by_identity((distances_P < point.squared_l2) != issame_P, pairs)
            intervals.append({"fmr": list(found.fmr), "fnmr": list(found.fnmr)})
        curve = curve_intervals(distances_P, pairs)
        of_curve = {"eer": list(curve.eer), "d_prime": list(curve.d_prime)}
    return SetThresholds(
        result.name,
        result.synthetic,
        int(issame_P.sum()),
        int((~issame_P).sum()),
        lowest_fmr(issame_P),
        verification.auc_and_eer(distances_P, issame_P)[1],
        d_prime(1.0 - distances_P / 2.0, issame_P),
        points,
        intervals,
        of_curve,
    )


def write_thresholds(path: str, model: str, sets: Sequence[SetThresholds]) -> None:
    """Writes thresholds.json. model: the checkpoint that the thresholds belong to."""
    content = {
        "format": FORMAT,
        "model": model,
        "score": "squared L2 of unit embeddings, image + mirrored image; a match is below it",
        "interval": "95 %, exact binomial; identity_intervals: over identities",
        "sets": [_to_json(one) for one in sets],
    }
    with atomic_write(path) as stream:
        json.dump(content, stream, indent=1)
        stream.write("\n")


def read_thresholds(path: str) -> Dict[str, SetThresholds]:
    """{set: SetThresholds} of a thresholds.json."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
        if content["format"] != FORMAT:
            raise ValueError
        return {entry["name"]: _from_json(entry) for entry in content["sets"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{path} is not a thresholds.json of this version; write it again with "
            "eval_ckpt_file.py --thresholds."
        ) from None


def _to_json(one: SetThresholds) -> Dict[str, Any]:
    return dict(one._asdict(), points=[dict(point._asdict()) for point in one.points])


def _from_json(entry: Dict[str, Any]) -> SetThresholds:
    points = []
    for point in entry["points"]:
        point = dict(point)
        for name in ("fmr_interval", "fnmr_interval"):
            low, high = point[name]
            point[name] = (float(low), float(high))
        points.append(OperatingPoint(**point))
    return SetThresholds(**dict(entry, points=points))
