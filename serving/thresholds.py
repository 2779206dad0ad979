"""When two faces count as one person: a cosine, and what share of other people it accepts.

A threshold belongs to a model. A Calibration holds the cosines of a verification set's pairs under
that model; FAR is the share of its impostor pairs at or above the threshold, TAR of its genuine
pairs. cosine = 1 - squared L2 / 2 for unit vectors.
"""

from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np

DEFAULT_FAR = 1e-3
BINS = 80


class Calibration(NamedTuple):
    """The cosines of a verification set's pairs, rising."""

    name: str
    genuine: np.ndarray  # float32, pairs of one person
    impostor: np.ndarray  # float32, pairs of two people

    def far(self, cosine: float) -> float:
        """Share of impostor pairs that the threshold accepts."""
        return _share_from(self.impostor, cosine)

    def tar(self, cosine: float) -> float:
        """Share of genuine pairs that the threshold accepts."""
        return _share_from(self.genuine, cosine)

    def smallest_far(self) -> float:
        """Of one accepted impostor pair; nothing below it can be measured."""
        return 1.0 / max(1, len(self.impostor))

    def cosine_at_far(self, far: float) -> float:
        """The lowest threshold with a FAR of `far` or less."""
        allowed = int(np.floor(far * len(self.impostor) * (1 + 1e-9)))
        if allowed < 1:
            raise ValueError(
                f"--far {far:g} needs {int(np.ceil(1 / far)):,} impostor pairs, but {self.name} "
                f"has {len(self.impostor):,}; pass --far {self.smallest_far():.2g} or more, or "
                "calibrate with a larger set."
            )
        if allowed >= len(self.impostor):
            return -1.0
        return float(np.nextafter(self.impostor[-1 - allowed], np.float32(2)))

    def histogram(self, bins: int = BINS) -> Dict[str, List[Any]]:
        """Shares of genuine and impostor pairs in equal steps of the cosine from -1 to 1."""
        edges = np.linspace(-1, 1, bins + 1)
        shares = {
            kind: (np.histogram(values, edges)[0] / max(1, len(values))).tolist()
            for kind, values in (("genuine", self.genuine), ("impostor", self.impostor))
        }
        return dict(edges=edges.tolist(), **shares)


class Threshold(NamedTuple):
    """From which cosine on two faces count as one person."""

    cosine: float
    far: Optional[float]  # of one comparison, as measured; None without a calibration
    tar: Optional[float]
    calibrated_on: Optional[str]  # name of the verification set

    @property
    def squared_l2(self) -> float:
        """The same as squared distance of unit vectors."""
        return 2.0 - 2.0 * self.cosine

    def fpir(self, comparisons: int) -> Optional[float]:
        """Probability that someone who is not enrolled is accepted in a search over so many
        samples: 1 - (1 - FAR)^N, for independent comparisons."""
        if self.far is None:
            return None
        return 1.0 - (1.0 - self.far) ** comparisons

    def describe(self, comparisons: int) -> Dict[str, Any]:
        """The threshold as the fields of an answer."""
        fields: Dict[str, Any] = {
            "cosine": self.cosine,
            "squared_l2": self.squared_l2,
            "far": self.far,
        }
        fields.update(tar=self.tar, fpir=self.fpir(comparisons), calibrated_on=self.calibrated_on)
        return fields


def calibrate(name: str, embeddings_ND: np.ndarray, issame_P: np.ndarray) -> Calibration:
    """Unit embeddings of a set's images (rows 2 i and 2 i + 1 are pair i) -> its cosines."""
    cosine_P = np.einsum("pd,pd->p", embeddings_ND[0::2], embeddings_ND[1::2]).astype(np.float32)
    genuine, impostor = np.sort(cosine_P[issame_P]), np.sort(cosine_P[~issame_P])
    if not len(genuine) or not len(impostor):
        raise ValueError(f"{name} needs pairs of the same person and of different people.")
    return Calibration(name, genuine, impostor)


def parse_threshold(text: str) -> float:
    """ "1.54" or "l2:1.54" (squared L2, as the PyTorch port) or "cosine:0.23" -> a cosine."""
    kind, _, number = text.rpartition(":")
    low, high = {"": (0.0, 4.0), "l2": (0.0, 4.0), "cosine": (-1.0, 1.0)}.get(kind, (1.0, 0.0))
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise ValueError(
            f"--threshold {text} is neither a squared L2 from 0 to 4 (1.54) nor a cosine from "
            "-1 to 1 (cosine:0.23)."
        )
    return value if kind == "cosine" else 1.0 - value / 2.0


def resolve(
    threshold: Optional[str], far: Optional[float], calibration: Optional[Calibration]
) -> Threshold:
    """The threshold that --threshold or --far name; without both, that of FAR 1e-3."""
    if threshold is not None and far is not None:
        raise ValueError("--threshold and --far exclude each other; pass one of them.")
    if threshold is not None:
        cosine = parse_threshold(threshold)
    elif calibration is None:
        what = "--far needs a" if far is not None else "there is no --threshold, and no"
        raise ValueError(
            f"{what} calibration of the bank's model; run facebank.py calibrate --pairs lfw.bin, "
            "or pass --threshold 1.54."
        )
    elif far is not None and not 0 < far < 1:
        raise ValueError(f"--far is {far:g}; it must be above 0 and below 1.")
    else:
        wanted = max(DEFAULT_FAR, calibration.smallest_far()) if far is None else far
        cosine = calibration.cosine_at_far(wanted)
    if calibration is None:
        return Threshold(cosine, None, None, None)
    return Threshold(cosine, calibration.far(cosine), calibration.tar(cosine), calibration.name)


def _share_from(values, cosine):
    return float(len(values) - np.searchsorted(values, np.float32(cosine), side="left")) / max(
        1, len(values)
    )
