"""The .idx of a .rec: lines of key<tab>offset, in the order of writing or in any other.

It may be larger than memory likes to hold, so it is read in pieces, and compared with a .rec by a
fingerprint of its offsets. Shape letter: R lines.
"""

import os
import re
import struct
import warnings
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from data.formats.recordio_blocks import FIRST, LENGTH_BITS, MAGIC
from data.formats.tfrecord import mix

LONGEST_LINE = 64


class Summary(NamedTuple):
    """What an .idx lists, without its lines."""

    records: int
    offset_sum: int  # of mixed offsets modulo 2^64: a fingerprint
    header_offset: Optional[int]  # of key 0


class RecordIndex:
    """An .idx in memory, 32 bytes a line, looked up either way."""

    def __init__(self, path: str) -> None:
        self._key_R, self._offset_R = read_index(path)
        self._by_key = np.argsort(self._key_R, kind="stable")
        self._by_offset = np.argsort(self._offset_R, kind="stable")

    def keys(self) -> List[int]:
        """The keys in the file's order."""
        return self._key_R.tolist()

    def offset(self, key: int) -> Optional[int]:
        """Where the record under `key` starts, or None; of a key that is there twice, the last."""
        row = np.searchsorted(self._key_R, key, side="right", sorter=self._by_key) - 1
        row = self._by_key[row]
        return int(self._offset_R[row]) if self._key_R[row] == key else None

    def keys_of(self, offsets: Sequence[int]) -> List[Optional[int]]:
        """The key of each offset, None where the .idx does not list it."""
        rows = np.searchsorted(self._offset_R, offsets, side="right", sorter=self._by_offset) - 1
        rows = self._by_offset[rows]
        listed = (self._offset_R[rows] == offsets).tolist()
        return [key if known else None for key, known in zip(self._key_R[rows].tolist(), listed)]


def summarise(path: str) -> Summary:
    """How many records an .idx lists, a fingerprint of their offsets, and that of key 0 or None."""
    records = total = 0
    header = None
    for key_R, offset_R in index_pieces(path):
        records += len(offset_R)
        total = (total + mix(offset_R)) % (1 << 64)
        zero = np.flatnonzero(key_R == 0)
        header = int(offset_R[zero[0]]) if len(zero) else header
    return Summary(records, total, header)


def find_keys(path: str, offsets: Sequence[int]) -> Dict[int, int]:
    """{offset: key} of those of `offsets` that the .idx lists."""
    wanted, found = np.array(sorted(set(offsets)), np.int64), {}
    for key_R, offset_R in index_pieces(path):
        rows = np.flatnonzero(np.isin(offset_R, wanted))
        found.update(zip(offset_R[rows].tolist(), key_R[rows].tolist()))
    return found


def index_faults(path: str, rec_path: str) -> Iterator[Tuple[int, int, str]]:
    """Yields (key, offset, why) for each line of an .idx that points at no record of its .rec."""
    size, seen = os.path.getsize(rec_path), np.empty(0, np.int64)
    with open(rec_path, "rb", buffering=0) as stream:
        for key_R, offset_R in index_pieces(path):
            again = np.isin(offset_R, seen)
            _, firsts = np.unique(offset_R, return_index=True)
            again[np.setdiff1d(np.arange(len(offset_R)), firsts)] = True
            seen = np.concatenate([seen, offset_R])
            for key, offset, twice in zip(key_R.tolist(), offset_R.tolist(), again.tolist()):
                why = _index_line_fault(stream, offset, size)
                if why or twice:
                    yield key, offset, why or f"is listed twice in {path}"


def _index_line_fault(stream, offset, size):
    if offset + 8 > size:
        return f"is past the end of the file ({size} bytes): the .idx belongs to another .rec"
    stream.seek(offset)
    mark, head = struct.unpack("<II", stream.read(8))
    if offset % 4 or mark != MAGIC or head >> LENGTH_BITS > FIRST:
        return "does not start there: the .idx points into the middle of a record"
    return None


def read_index(path: str) -> Tuple[np.ndarray, np.ndarray]:
    """.idx -> (keys int64 [R], offsets int64 [R]) in the file's order."""
    pieces = list(index_pieces(path))
    return np.concatenate([keys for keys, _ in pieces]), np.concatenate([at for _, at in pieces])


def index_pieces(path: str, piece_bytes: int = 1 << 24) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Yields (keys, offsets) of an .idx, a piece of its lines per step."""
    lines, rest, text = 0, b"", b"\n"
    with open(path, "rb") as stream:
        while text:
            text = stream.read(piece_bytes)
            rest += text
            cut = rest.rfind(b"\n") + 1 if text else len(rest)
            cut = len(rest) if not cut and len(rest) > LONGEST_LINE else cut
            whole, rest = rest[:cut].rstrip(), rest[cut:]
            if whole:
                pairs = _index_pairs(whole + b"\n")
                if pairs is None:
                    raise ValueError(_index_fault(path, whole, lines))
                lines += len(pairs)
                yield pairs[:, 0], pairs[:, 1]
    if not lines:
        raise ValueError(f"{path} is empty; delete it to read the .rec in order without it.")


def _index_pairs(text):
    """Lines of an .idx -> int64 [R, 2], or None where one of them is something else."""
    array = np.frombuffer(text, np.uint8)
    ends_line = array[(array == ord("\t")) | (array == ord(" ")) | (array == ord("\n"))] == ord(
        "\n"
    )
    if len(ends_line) % 2 or ends_line[::2].any() or not ends_line[1::2].all():
        return None  # not one tab and one line's end in turn
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            numbers = np.fromstring(text, np.int64, sep=" ")
    except (DeprecationWarning, ValueError):
        return None
    if len(numbers) != len(ends_line) or numbers.min() < 0:
        return None
    return numbers.reshape(-1, 2)


def _index_fault(path, text, lines):
    """The sentence on the first line of text that is no line of an .idx."""
    for number, line in enumerate(text.split(b"\n"), start=lines + 1):  # noqa: B007
        if not re.match(rb"\d{1,18}[\t ]\d{1,18}\s*$", line):
            break
    shown = line[:60].decode("ascii", "backslashreplace")
    return (
        f"{path}: line {number} is {shown!r}, not key<tab>offset; delete the .idx to read the .rec "
        "in order without it."
    )
