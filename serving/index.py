"""Search in a face bank: one matrix product over a memory-mapped matrix of embeddings, or FAISS.

The matrix is a cache in a file next to the bank and is rebuilt from it at any time. Samples that
were added since then are kept in memory. N samples, P people, D embedding, B queries.
"""

import json
import os
import threading
from typing import Any, List, NamedTuple, Optional

import numpy as np

from runtime.files import atomic_write
from serving.erasure import erase_cache
from serving.face_bank import FaceBank
from serving.faiss_search import FaissRows, check_faiss
from serving.unit_vectors import unit

MAGIC = b"FBIX\x01\x00\x00\x00"
HEADER = 4096  # bytes; the matrix starts on a page of its own
TAIL = 8192  # samples in memory before the file is written anew, or an eighth of the matrix
ROWS = 16384  # that are read or multiplied at once
TEMPLATES = ("best", "mean")
EXACT, FAISS = "exact", "faiss"
SEARCHES = (EXACT, FAISS)
FEWEST_FOR_FAISS = 10000  # rows; below, the exact product takes about a millisecond


class Match(NamedTuple):
    """A person of the bank and how alike a query is."""

    person_id: int
    name: str
    cosine: float

    @property
    def squared_l2(self) -> float:
        """Squared distance of the unit vectors."""
        return 2.0 - 2.0 * self.cosine


class _Matrix(NamedTuple):
    """Embeddings at one moment; rows of one person lie together."""

    generation: int
    sample_N: np.ndarray  # int64 ids
    person_N: np.ndarray  # int64 ids, rising
    unit_ND: np.ndarray  # float32


class Index:
    """The people of a bank as a matrix. template "best": a person's score is that of the most
    similar sample; "mean": of the samples' mean, scaled to length 1 again. search "faiss":
    approximate, for banks of millions; samples that were added later are searched exactly."""

    def __init__(self, bank: FaceBank, template: str = "best", search: str = EXACT) -> None:
        if template not in TEMPLATES:
            raise ValueError(f"--template is {template}; it is one of {', '.join(TEMPLATES)}.")
        if search == FAISS:
            check_faiss()
            if template != "best":
                raise ValueError("--search faiss scores by the best sample; omit --template mean.")
        self.bank, self.template, self.search = bank, template, search
        self._lock = threading.Lock()
        self._generation = -1
        self._base: Any = None  # _Matrix of the file, after the first refresh
        self._tail: Any = None  # _Matrix of what was added since
        self.refresh()

    def refresh(self) -> None:
        """Brings the matrix up to the bank's present content."""
        with self._lock:
            generation = self.bank.generation()
            if generation == self._generation:
                return
            base: Any = self._base if self._base is not None else _read(self.bank)
            tail = _added_since(self.bank, base) if base is not None else None
            if tail is None or len(tail.sample_N) > max(TAIL, len(base.sample_N) // 8):
                base = _write(self.bank)
                tail = _added_since(self.bank, base) or _empty(self.bank)
            if base is not self._base:
                self._base_part = _Part(base, self.template, self.search)
            self._base, self._tail = base, tail
            self._generation = tail.generation
            self._names = {person.id: person.name for person in self.bank.persons()}
            self._parts = [self._base_part, _Part(tail, self.template)]
            self._shared = np.intersect1d(base.person_N, tail.person_N).size > 0
            if self.template == "mean" and self._shared:
                self._parts = [_Part(_merged(base, tail), self.template)]

    @property
    def samples(self) -> int:
        """N."""
        return len(self._base.sample_N) + len(self._tail.sample_N)

    def top(self, queries_BD: np.ndarray, count: int = 5) -> List[List[Match]]:
        """For each query the `count` most similar people, best first."""
        self.refresh()
        queries_BD = unit(queries_BD, self.bank.contract.embedding_size)
        with self._lock:
            parts, names = self._parts, self._names
        scores = [part.scores(queries_BD) for part in parts]
        person_P = np.concatenate([part.person_P for part in parts])
        scores_BP = np.concatenate(scores, axis=1)
        return [_best(person_P, row, names, count) for row in scores_BP]


class _Part:
    """A matrix with where each person's rows begin."""

    def __init__(self, matrix, template, search=EXACT):
        self.person_P, self.start_P = np.unique(matrix.person_N, return_index=True)
        self.rows = np.asarray(matrix.unit_ND)  # without np.memmap's costs at each slice
        if template == "mean" and len(self.person_P):
            sums_PD = np.add.reduceat(matrix.unit_ND, self.start_P, axis=0)
            self.rows, self.start_P = unit(sums_PD), np.arange(len(self.person_P))
        uses_faiss = search == FAISS and len(self.rows) >= FEWEST_FOR_FAISS
        self.faiss = FaissRows(self.rows) if uses_faiss else None

    def scores(self, queries_BD):
        """float32 [B, P]: each person's best cosine; -inf where FAISS does not find the person."""
        if not len(self.person_P):
            return np.empty((len(queries_BD), 0), np.float32)
        if self.faiss is not None:
            return self.faiss.person_scores(queries_BD, self.start_P)
        scores_BN = self._products(queries_BD)
        if len(self.start_P) == len(self.rows):
            return scores_BN
        return np.maximum.reduceat(scores_BN, self.start_P, axis=1)

    def _products(self, queries_BD):
        """float32 [B, N]. One query reads the matrix once; several share one read."""
        if len(queries_BD) == 1:
            return (self.rows @ queries_BD[0])[None]
        scores_BN = np.empty((len(queries_BD), len(self.rows)), np.float32)
        for start in range(0, len(self.rows), ROWS):
            rows = self.rows[start : start + ROWS]
            scores_BN[:, start : start + len(rows)] = queries_BD @ rows.T
        return scores_BN


def _best(person_P, score_P, names, count):
    """[Match] of the highest scores; a person may be there twice (in the file and in memory)."""
    wanted = min(2 * count, len(score_P))
    if not wanted:
        return []
    places = np.argpartition(-score_P, wanted - 1)[:wanted]
    places = places[np.lexsort((person_P[places], -score_P[places]))]
    found = {}
    for place in places:
        person_id = int(person_P[place])
        if person_id in names and person_id not in found and score_P[place] > -np.inf:
            cosine = float(np.clip(score_P[place], -1.0, 1.0))
            found[person_id] = Match(person_id, names[person_id], cosine)
    return list(found.values())[:count]


def _merged(base, tail):
    person_N = np.concatenate([base.person_N, tail.person_N])
    order = np.argsort(person_N, kind="stable")
    parts = [np.concatenate([base[k], tail[k]])[order] for k in (1, 2, 3)]
    return _Matrix(tail.generation, *parts)


def _added_since(bank, base):
    """_Matrix of the samples that are newer than `base`; None if one of `base` was removed."""
    newest = int(base.sample_N.max()) if len(base.sample_N) else 0
    with bank.snapshot() as (connection, generation):
        kept = connection.execute("SELECT COUNT(*) FROM sample WHERE id <= ?", (newest,))
        if kept.fetchone()[0] != len(base.sample_N):
            return None
        rows = list(bank.rows(connection, newest))
    if not rows:
        return _empty(bank)._replace(generation=generation)
    sample, person, units = zip(*rows)
    return _Matrix(generation, np.array(sample), np.array(person), np.stack(units))


def _empty(bank):
    none = np.empty(0, np.int64)
    return _Matrix(0, none, none, np.empty((0, bank.contract.embedding_size), np.float32))


def _write(bank):
    """Writes the cache from the bank, readable by its owner only, and maps it."""
    while True:
        matrix = _write_once(bank)
        if _added_since(bank, matrix) is not None:
            return matrix
        erase_cache(bank.cache_path)  # somebody was removed while it was written


def _write_once(bank):
    width = bank.contract.embedding_size
    with bank.snapshot() as (connection, generation):
        (count,) = connection.execute("SELECT COUNT(*) FROM sample").fetchone()
        ids = np.empty((2, count), "<i8")
        with atomic_write(bank.cache_path, "wb") as stream:
            os.chmod(stream.name, 0o600)
            stream.write(_header(bank, generation, count))
            stream.seek(_matrix_offset(count))
            for place, (sample_id, person_id, row_D) in enumerate(bank.rows(connection)):
                ids[:, place] = sample_id, person_id
                stream.write(row_D.tobytes())
            stream.seek(HEADER)
            stream.write(ids.tobytes())
            stream.truncate(_matrix_offset(count) + 4 * count * width)
    matrix = _read(bank)
    assert matrix is not None, bank.cache_path
    return matrix


def _header(bank, generation, count):
    fields = {"generation": generation, "samples": count, "bank": bank.identifier}
    text = json.dumps(dict(fields, width=bank.contract.embedding_size)).encode()
    return (MAGIC + text).ljust(HEADER, b" ")


def _matrix_offset(count):
    return -(-(HEADER + 16 * count) // 4096) * 4096


def _read(bank) -> Optional[_Matrix]:
    """The cache, mapped; None where there is none, or it is not whole."""
    width = bank.contract.embedding_size
    try:
        with open(bank.cache_path, "rb") as stream:
            head = stream.read(HEADER)
            size = os.fstat(stream.fileno()).st_size
            if head[: len(MAGIC)] != MAGIC:
                return None
            fields = json.loads(head[len(MAGIC) :].decode())
            count, offset = int(fields["samples"]), _matrix_offset(int(fields["samples"]))
            if fields["bank"] != bank.identifier or fields["width"] != width:
                return None
            if size != offset + 4 * count * width:
                return None
            ids = np.fromfile(stream, "<i8", 2 * count).reshape(2, count)
            if not count:
                return _empty(bank)._replace(generation=int(fields["generation"]))
            unit_ND: Any = np.memmap(stream, "<f4", "r", offset, (count, width))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _Matrix(int(fields["generation"]), ids[0], ids[1], unit_ND)
