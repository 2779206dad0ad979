"""The chain of records in a .rec, in stretches of the file, as columns.

An aligned magic is always the start of a part (see recordio.py), so a stretch can be entered
anywhere, and damage is stepped over. Shape letter: R records of a block.
"""

import os
import struct
from typing import Any, BinaryIO, Iterator, List, NamedTuple, Optional, Tuple, Union

import numpy as np

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
LENGTH_BITS = 29
LENGTH_MASK = (1 << LENGTH_BITS) - 1
WHOLE, FIRST, MIDDLE, LAST = range(4)
HEADER = struct.Struct("<IfQQ")  # flag, label, id, id2
LARGEST_RECORD = 1 << 26  # bytes; a longer claim is damage, not an image of a face
BLOCK_BYTES = 1 << 24
EXACT_FLOAT32 = 1 << 24  # the first whole number that float32 may round


class Block:
    """The records that begin in one stretch of a .rec, as columns.

    Record i is data[start_R[i] : stop_R[i]], from its magic to its padding; `offset` is the place
    of data[0] in the file, `end` that of the record after the block. broken: [(offset, why)]."""

    def __init__(
        self,
        data: np.ndarray,
        offset: int,
        end: int,
        start_R: np.ndarray,
        stop_R: np.ndarray,
        broken: List[Tuple[int, str]],
    ) -> None:
        self.data, self.offset, self.end = data, offset, end
        self.start_R, self.stop_R, self.broken = start_R, stop_R, broken

    def __len__(self):
        return len(self.start_R)

    def payload(self, i: int) -> Union[memoryview, bytes]:
        """The payload of record i: a memoryview, or bytes where parts had to be joined."""
        start, stop = int(self.start_R[i]), int(self.stop_R[i])
        view, parts = memoryview(self.data), []
        while start < stop:
            length = struct.unpack_from("<I", view, start + 4)[0] & LENGTH_MASK
            parts.append(view[start + 8 : start + 8 + length])
            start += 8 + length + (-length) % 4
        return parts[0] if len(parts) == 1 else MAGIC_BYTES.join(bytes(part) for part in parts)


def find_records(
    data: np.ndarray, limit: int, whole: bool
) -> Tuple[np.ndarray, np.ndarray, List[Tuple[int, str]], int]:
    """The chain of records in uint8 data -> (start [R], stop [R], broken [(at, why)], end).

    Takes the records that start before byte `limit`; `whole` says that data ends where the file
    ends. `end` is where the next record starts. None: it takes more data to know. After damage the
    chain continues at the next part that can begin a record."""
    words = data[: data.size // 4 * 4].view("<u4")
    view, starts, at = memoryview(words), [], 0
    last, stop = len(words) - 2, min(limit, data.size) / 4
    while at < stop:  # whole records one behind the other, as nearly always
        if at > last or view[at] != MAGIC or view[at + 1] > LARGEST_RECORD:
            return _walk(data, words, limit, whole)
        starts.append(at)
        at += 2 + (view[at + 1] + 3 >> 2)
    if at * 4 > data.size:
        return _walk(data, words, limit, whole)
    start_R = 4 * np.array(starts, np.int64)
    return start_R, np.append(start_R[1:], 4 * at)[: len(starts)], [], 4 * at


def _walk(data, words, limit, whole):
    """find_records with records in parts, records cut off, and damage to step over."""
    starts, stops, broken, at = [], [], [], 0
    marks = np.flatnonzero(words[:-1] == MAGIC)
    while at < limit and at < data.size:
        stop, why = _record_end(words, data.size, at, whole)
        if stop is None and why is None:
            return None
        if why is None:
            starts.append(at)
            stops.append(stop)
            at = stop
            continue
        broken.append((at, why))
        at = _resume(words, marks, at + 4)
        if at is None:
            if not whole:
                return None
            at = data.size
    return np.array(starts, np.int64), np.array(stops, np.int64), broken, at


def _record_end(words, size, at, whole):
    """Where the record at byte `at` ends -> (end, None), (None, why), or two None: not in sight."""
    expected, begin = (WHOLE, FIRST), at
    while True:
        if at + 8 > size:
            return None, "is cut off in its first 8 bytes: the file ends there" if whole else None
        mark, head = int(words[at // 4]), int(words[at // 4 + 1])
        if mark != MAGIC:
            return None, f"does not start with the magic 0x{MAGIC:08x} but with 0x{mark:08x}"
        place, length = head >> LENGTH_BITS, head & LENGTH_MASK
        if place not in expected:
            return None, f"has a part marked {place} where {expected[0]} or {expected[1]} belongs"
        stop = at + 8 + length + (-length) % 4
        if stop - begin > LARGEST_RECORD:
            return None, f"claims {stop - begin} bytes, more than the {LARGEST_RECORD} of any image"
        if stop > size:
            missing = (
                f"is cut off: it claims {length} bytes and {size - at - 8} are left in the file"
            )
            return None, missing if whole else None
        if place in (WHOLE, LAST):
            return stop, None
        at, expected = stop, (MIDDLE, LAST)


def _resume(words, marks, at):
    """The first byte >= at of a part that can begin a record, or None."""
    for mark in marks[np.searchsorted(marks * 4, at) :]:
        if int(words[mark + 1]) >> LENGTH_BITS in (WHOLE, FIRST):
            return int(mark) * 4
    return None


def read_blocks(
    path: str, begin: int = 0, end: Optional[int] = None, block_bytes: int = BLOCK_BYTES
) -> Iterator[Block]:
    """Yields the records that start in bytes [begin, end) of a .rec as Blocks, front to back.

    begin: a multiple of 4, in the middle of a record or not. Block b holds the records that start
    in block_bytes from begin + b * block_bytes on, so equal grids give equal blocks."""
    size = os.path.getsize(path)
    end = size if end is None else min(end, size)
    with open(path, "rb", buffering=0) as stream:
        at = begin
        for limit in range(begin + block_bytes, end + block_bytes, block_bytes):
            limit = min(limit, end)
            if at >= limit:  # one record spans the whole block
                yield Block(np.empty(0, np.uint8), at, at, *_no_records(), broken=[])  # type: ignore[misc]
                continue
            block = _read_block(stream, size, at, limit, join=at == begin > 0)
            at = block.end
            yield block


def _no_records():
    return np.empty(0, np.int64), np.empty(0, np.int64)


def _read_block(stream, size, at, limit, join):
    """The Block from byte `at` on. join: `at` may be inside a record."""
    beyond = 1 << 16
    while True:
        stop = min(limit + beyond, size)
        data = read_at(stream, at, stop - at)
        skipped = _first_start(data[:beyond]) if join else 0  # near, if there is one
        skipped = _first_start(data) if skipped is None else skipped
        if skipped is None and stop == size:
            skipped = data.size
        if skipped is not None:
            begin = at + skipped
            if begin >= limit:
                return Block(data[:0], begin, begin, *_no_records(), broken=[])  # type: ignore[misc]
            found = find_records(data[skipped:], limit - begin, stop == size)
            if found is not None:
                starts, stops, broken, end = found
                broken = [(begin + where, why) for where, why in broken]
                return Block(data[skipped:], begin, begin + end, starts, stops, broken)
        beyond *= 8


def _first_start(data):
    """Where the first record starts in data that may begin inside one, or None. A magic that is not
    followed by another where its record would end is believed only if there is no better one."""
    words = data[: data.size // 4 * 4].view("<u4")
    marks = np.flatnonzero(words[:-1] == MAGIC)
    heads = words[marks + 1]
    marks, heads = marks[heads >> LENGTH_BITS <= FIRST], heads[heads >> LENGTH_BITS <= FIRST]
    after = marks + 2 + ((heads & LENGTH_MASK).astype(np.int64) + 3) // 4
    seen = after < len(words)
    good = np.where(seen, words[np.where(seen, after, 0)] == MAGIC, after == len(words))
    best = marks[good] if good.any() else marks
    return int(best[0]) * 4 if len(best) else None


def read_at(stream: BinaryIO, at: int, count: int) -> np.ndarray:
    """uint8 [count] from byte `at`; one copy, straight into the array."""
    data = np.empty(count, np.uint8)
    view, done = memoryview(data), 0
    stream.seek(at)
    while done < count:
        got = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            raise ValueError(f"{stream.name}: shrank while it was read; is it still being copied?")
        done += got
    return data


class Columns(NamedTuple):
    """The images of a Block, a column for each property."""

    data: np.ndarray  # uint8, the bytes of the block
    label_R: np.ndarray  # int64
    start_R: np.ndarray  # int64, where the encoded image starts in `data`
    stop_R: np.ndarray  # int64
    record_R: np.ndarray  # int64, which record of the block it is
    info: List[Any]  # (file offset, labels) of header and range records
    broken: List[Tuple[int, str]]  # (file offset, why)


def image_columns(block: Block) -> Columns:
    """The images of a Block: their int64 labels and the extents of their bytes in `data`.

    record_R: which record of the block each is. info: [(file offset, labels)] of the header and
    range records.
    broken: [(file offset, why)], the block's own damage and records that hold no usable image."""
    data, start_R, length_R, broken = _one_part_each(block)
    enough = length_R >= HEADER.size
    words, at_R = data[: data.size // 4 * 4].view("<u4"), start_R // 4
    flag_R = np.where(enough, words[np.where(enough, at_R, 0)], 0).astype(np.int64)
    enough &= HEADER.size + 4 * flag_R <= length_R
    label_at_R = np.where(flag_R > 0, at_R + HEADER.size // 4, at_R + 1)
    label_R = words.view("<f4")[np.where(enough, label_at_R, 0)]
    begin_R, end_R = start_R + HEADER.size + 4 * flag_R, start_R + length_R
    empty = end_R <= begin_R
    is_info = enough & empty & (flag_R > 0)
    known = np.isfinite(label_R) & (label_R >= 0) & (label_R < 2**31)
    known &= label_R == np.floor(np.where(known, label_R, 0))
    good = enough & known & ~empty
    for i in np.flatnonzero(~good & ~is_info):
        broken.append((int(block.offset + block.start_R[i]), _fault(block.payload(i))))
    info = [
        (
            int(block.offset + block.start_R[i]),
            np.frombuffer(data, "<f4", flag_R[i], start_R[i] + HEADER.size),
        )
        for i in np.flatnonzero(is_info)
    ]
    rows = np.flatnonzero(good)
    columns = label_R[rows].astype(np.int64), begin_R[rows], end_R[rows], rows
    return Columns(data, *columns, info=info, broken=sorted(broken))


def _one_part_each(block):
    """data, start and length of each payload, those in parts joined at the end of data."""
    data, start_R = block.data, block.start_R + 8
    heads = data[: data.size // 4 * 4].view("<u4")[block.start_R // 4 + 1]
    length_R = (heads & LENGTH_MASK).astype(np.int64)
    joined, end = [data], data.size
    for i in np.flatnonzero(heads >> LENGTH_BITS):
        payload = block.payload(i)
        padding = -end % 4
        joined.append(np.frombuffer(bytes(padding) + payload, np.uint8))
        start_R[i], length_R[i] = end + padding, len(payload)
        end += padding + len(payload)
    return (
        (np.concatenate(joined) if len(joined) > 1 else data),
        start_R,
        length_R,
        list(block.broken),
    )


def _fault(payload):
    """Why a payload is no image."""
    try:
        labels, encoded = unpack(payload)
    except ValueError as error:
        return str(error)
    return label_fault(labels[0]) or "has no image bytes"


def unpack(payload: Union[memoryview, bytes]) -> Tuple[np.ndarray, Union[memoryview, bytes]]:
    """Payload -> (labels float32 [k], encoded bytes). One scalar label is k = 1."""
    if len(payload) < HEADER.size:
        raise ValueError(f"has {len(payload)} bytes, too few for its {HEADER.size}-byte header")
    flag, label, _, _ = HEADER.unpack_from(payload)
    if flag == 0:
        return np.array([label], np.float32), payload[HEADER.size :]
    if HEADER.size + 4 * flag > len(payload):
        raise ValueError(f"claims {flag} labels but has {len(payload)} bytes")
    labels = np.frombuffer(payload, "<f4", flag, HEADER.size)
    return labels, payload[HEADER.size + 4 * flag :]


def label_fault(label: float) -> Optional[str]:
    """Why a float32 label is no identity, or None."""
    if np.isfinite(label) and 0 <= label < 2**31 and label == int(label):
        return None
    return f"has label {float(label):g}, which is not a whole number from 0 up"
