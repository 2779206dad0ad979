"""An embedding and a bank -> a name or "unknown", with the numbers behind the answer."""

from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np

from serving.index import Index, Match
from serving.thresholds import Threshold

UNKNOWN = "unknown"


class Identification(NamedTuple):
    """Who a face is."""

    person: Optional[Match]  # None: nobody of the bank is similar enough
    candidates: List[Match]  # the most similar people, best first, accepted or not
    threshold: Threshold
    comparisons: int  # samples that were compared

    @property
    def name(self) -> str:
        """The person's name, or "unknown"."""
        return UNKNOWN if self.person is None else self.person.name

    @property
    def margin(self) -> Optional[float]:
        """Cosine by which the first candidate leads the second; None with less than two people."""
        if len(self.candidates) < 2:
            return None
        return self.candidates[0].cosine - self.candidates[1].cosine

    def to_dict(self) -> Dict[str, Any]:
        """For programs."""
        return {
            "name": self.name,
            "known": self.person is not None,
            "person_id": None if self.person is None else self.person.person_id,
            "margin": self.margin,
            "candidates": [candidate_dict(match) for match in self.candidates],
            "threshold": self.threshold.describe(self.comparisons),
        }

    def sentence(self) -> str:
        """For people."""
        if not self.candidates:
            return f"{UNKNOWN} (the bank is empty)"
        best = self.candidates[0]
        score = f"cosine {best.cosine:.3f}, squared L2 {best.squared_l2:.3f}"
        limit = f"threshold: cosine {self.threshold.cosine:.3f}"
        if self.person is None:
            return f"{UNKNOWN} (most similar: {best.name}, {score}; {limit})"
        parts = [score]
        if self.margin is not None:
            parts.append(f"margin {self.margin:.3f} to {self.candidates[1].name}")
        parts.append(limit)
        if self.threshold.far is not None:
            fpir = self.threshold.fpir(self.comparisons)
            parts.append(f"FAR {self.threshold.far:.2g}, FPIR {fpir:.2g}")
        return f"{best.name} ({'; '.join(parts)})"


def identify(
    index: Index, units_BD: np.ndarray, threshold: Threshold, count: int = 5
) -> List[Identification]:
    """An Identification for each embedding."""
    answers = []
    for candidates in index.top(units_BD, max(2, count)):
        accepted = bool(candidates) and candidates[0].cosine >= threshold.cosine
        person = candidates[0] if accepted else None
        answers.append(Identification(person, candidates[:count], threshold, index.samples))
    return answers


def candidate_dict(match: Match) -> Dict[str, Any]:
    """A candidate's fields."""
    return dict(match._asdict(), squared_l2=match.squared_l2)
