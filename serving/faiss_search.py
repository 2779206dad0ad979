"""Approximate search for large banks: FAISS's inverted lists over the same rows, in memory.

N rows, P people, D embedding, B queries, C lists.
"""

import importlib.util
from typing import Any

import numpy as np

LISTS_PER_ROOT = 4  # C = 4 sqrt(N), FAISS's own advice for a million rows and less
SEARCHED = 16  # a 16th of the lists, 8 at least
FEWEST_SEARCHED = 8
TRAINED_ON = 40  # rows a list, of which the lists' centres are computed
CANDIDATES = 128  # rows that a query returns; more than the samples of the people that are shown
SEED = 1234


def check_faiss() -> None:
    """A ValueError with the command that installs FAISS, where it is missing."""
    if importlib.util.find_spec("faiss") is None:
        raise ValueError("--search faiss needs a package; run pip install faiss-cpu.")


class FaissRows:
    """Rows of a bank in inverted lists. Their copy needs as much memory as the matrix."""

    def __init__(self, rows_ND: np.ndarray, searched: int = 0) -> None:
        """searched: lists that a query reads; all of them make the search exact."""
        import faiss

        rows, width = rows_ND.shape
        self.lists = max(1, min(int(LISTS_PER_ROOT * rows**0.5), rows // TRAINED_ON))
        centres = faiss.IndexFlatIP(width)
        self._index: Any = faiss.IndexIVFFlat(
            centres, width, self.lists, faiss.METRIC_INNER_PRODUCT
        )
        chooser = np.random.RandomState(SEED)
        sample = np.sort(chooser.choice(rows, min(rows, TRAINED_ON * self.lists), replace=False))
        self._index.train(np.ascontiguousarray(rows_ND[sample]))
        for start in range(0, rows, 1 << 16):
            self._index.add(np.ascontiguousarray(rows_ND[start : start + (1 << 16)]))
        default = max(FEWEST_SEARCHED, self.lists // SEARCHED)
        self._index.nprobe = min(self.lists, searched or default)
        self._rows = rows

    def person_scores(self, queries_BD: np.ndarray, start_P: np.ndarray) -> np.ndarray:
        """float32 [B, P]: the best cosine of each person among the rows found, else -inf.

        start_P: where each person's rows begin."""
        count = min(CANDIDATES, self._rows)
        cosine_BC, row_BC = self._index.search(np.ascontiguousarray(queries_BD), count)
        scores_BP = np.full((len(queries_BD), len(start_P)), -np.inf, np.float32)
        for scores_P, cosine_C, row_C in zip(scores_BP, cosine_BC, row_BC):
            found = row_C >= 0
            person_C = np.searchsorted(start_P, row_C[found], side="right") - 1
            np.maximum.at(scores_P, person_C, cosine_C[found])
        return scores_BP
