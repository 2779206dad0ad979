"""MXNet's RecordIO without MXNet: .rec, .idx and `property`, written and read to the byte.

A .rec is a chain of parts: magic, (continuation << 29 | length), data, zeros up to 4 bytes. The
writer cuts a payload wherever its aligned bytes equal the magic, so that an aligned magic is always
the start of a part; the reader puts those 4 bytes back. A payload is an IRHeader, `flag` float32
labels when flag > 0, and the encoded image. Shape letters: R records of a block.
"""

import os
import struct
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from data.formats.record_index import RecordIndex
from data.formats.recordio_blocks import (
    FIRST,
    HEADER,
    LAST,
    LENGTH_BITS,
    LENGTH_MASK,
    MAGIC,
    MAGIC_BYTES,
    MIDDLE,
    WHOLE,
    Block,
    find_records,
    label_fault,
    read_at,
    read_blocks,
    unpack,
)


class Image(NamedTuple):
    """One image of a .rec."""

    key: Optional[int]  # of the .idx
    label: int
    encoded: bytes  # JPEG or PNG
    offset: int  # of the record in the .rec


class Record(NamedTuple):
    """One record of a .rec, whatever it holds."""

    key: Optional[int]  # of the .idx
    offset: int  # in the .rec
    labels: np.ndarray  # float32 [k]
    encoded: bytes  # empty for header and range records


class BrokenRecordError(ValueError):
    """One record that cannot be used: where it is and why. A reader that skips continues after."""

    def __init__(self, path: str, key: Optional[int], offset: int, reason: str) -> None:
        name = "a record" if key is None else f"record {key}"
        super().__init__(f"{path}: {name} at byte {offset} {reason}.")
        self.path, self.key, self.offset, self.reason = path, key, offset, reason

    def __reduce__(self):  # errors travel between processes
        return BrokenRecordError, (self.path, self.key, self.offset, self.reason)


def pack_header(labels: Any, key: int, id2: int = 0) -> bytes:
    """The IRHeader of one record: flag 0 for one number, flag k and k float32 for a sequence."""
    if np.ndim(labels) == 0:
        return HEADER.pack(0, labels, key, id2)
    array = np.asarray(labels, "<f4")
    return HEADER.pack(array.size, 0.0, key, id2) + array.tobytes()


def pack_image(label: Any, encoded: bytes, key: int) -> bytes:
    """The payload of an image record. encoded: JPEG or PNG bytes; label: a number or a sequence."""
    return pack_header(label, key) + bytes(encoded)


def write_property(path: str, identities: int, image_size: Sequence[int] = (112, 112)) -> None:
    """The `property` file of a .rec: identities,height,width."""
    with open(path, "w") as stream:
        stream.write(f"{identities},{image_size[0]},{image_size[1]}\n")


def read_property(path: str) -> Optional[Tuple[int, Tuple[int, int]]]:
    """`property` -> (identities, (height, width)); None where there is no such file."""
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8", errors="replace") as stream:
        first = stream.readline(200).strip()
    try:
        identities, height, width = (int(part) for part in first.split(","))
        if min(identities, height, width) < 1:
            raise ValueError(first)
    except ValueError:
        raise ValueError(
            f"{path}: its first line is {first!r}, not "
            "identities,height,width; correct or remove it."
        ) from None
    return identities, (height, width)


class RecordWriter:
    """Writes a .rec and its .idx; both appear under their names when the `with` ends well."""

    def __init__(self, rec_path: str, idx_path: str) -> None:
        self._paths = (rec_path, idx_path)
        self._rec = open(rec_path + ".incomplete", "wb")
        self._idx = open(idx_path + ".incomplete", "w", newline="\n")

    def write(self, key: int, payload: bytes) -> None:
        """Appends one record and its .idx line. payload: bytes, as pack_image makes them."""
        self._idx.write(f"{key}\t{self._rec.tell()}\n")
        parts = _parts(payload)
        for i, part in enumerate(parts):
            if len(part) > LENGTH_MASK:
                raise ValueError(
                    f"{self._paths[0]}: record {key} has {len(part)} bytes; 2^29 - 1 fit."
                )
            place = WHOLE if len(parts) == 1 else FIRST if i == 0 else MIDDLE
            place = LAST if i == len(parts) - 1 > 0 else place
            self._rec.write(struct.pack("<II", MAGIC, place << LENGTH_BITS | len(part)))
            self._rec.write(part)
            self._rec.write(bytes(-len(part) % 4))

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        try:
            self._rec.close()
            self._idx.close()
        except OSError:
            self._discard()
            raise
        if kind is None:
            for path in self._paths:
                os.replace(path + ".incomplete", path)
        else:
            self._discard()

    def _discard(self):
        for path in self._paths:
            os.remove(path + ".incomplete")


def _parts(payload):
    """The payload cut at each aligned magic, which the cut drops."""
    parts, begin, look = [], 0, payload.find(MAGIC_BYTES)
    while look >= 0:
        if look % 4 == 0:
            parts.append(payload[begin:look])
            begin = look + 4
            look = payload.find(MAGIC_BYTES, begin)
        else:
            look = payload.find(MAGIC_BYTES, look + 1)
    return parts + [payload[begin:]]


class RecordReader:
    """A .rec in any of the layouts that InsightFace's tools write, with or without its .idx.

    Iterating gives each image once, in the file's order, as Image(key, label, encoded, offset);
    header and range records (no image bytes, several labels) are left out. `read(key)` goes through
    the .idx. Without one, a record's key is its place in the file."""

    def __init__(self, rec_path: str, idx_path: Optional[str] = None) -> None:
        self.path = rec_path
        sibling = os.path.splitext(rec_path)[0] + ".idx"
        self.idx_path = idx_path or (sibling if os.path.exists(sibling) else None)
        self._size = os.path.getsize(rec_path)
        if self._size == 0:
            raise ValueError(f"{rec_path} is empty (0 bytes); copy or build it again.")
        self._index = RecordIndex(self.idx_path) if self.idx_path else None
        self._stream = open(rec_path, "rb", buffering=0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()

    def keys(self) -> List[int]:
        """The keys of the .idx, in its order."""
        return self._needed_index().keys()

    def read(self, key: int) -> Record:
        """The Record under `key` of the .idx."""
        offset = self._needed_index().offset(key)
        if offset is None:
            raise ValueError(f"{self.idx_path}: there is no record {key} in it.")
        if offset + 8 > self._size or offset % 4:
            place = "past the end" if offset + 8 > self._size else "inside a record"
            why = f"is {place} ({self._size} bytes): is the .idx of another .rec"
            raise BrokenRecordError(self.path, key, offset, why)
        found, want = None, 1 << 16
        while found is None:
            stop = min(offset + want, self._size)
            data = read_at(self._stream, offset, stop - offset)
            found, want = find_records(data, 1, stop == self._size), 8 * want
        starts, stops, broken, end = found
        if broken:
            raise BrokenRecordError(self.path, key, offset, broken[0][1])
        return self._record(Block(data, offset, end, starts, stops, []), 0, key)

    def records(self, on_broken: Optional[Callable[[Exception], None]] = None) -> Iterator[Record]:
        """Yields every Record in the file's order, header and range records too.
        on_broken: called with each BrokenRecordError and skips it; without it the first is
        raised."""
        on_broken, place = on_broken or _raise, 0
        for block in read_blocks(self.path):
            whys = dict(block.broken)
            rows = {int(block.offset + start): i for i, start in enumerate(block.start_R)}
            offsets = sorted(list(rows) + list(whys))
            for offset, key in zip(offsets, self._keys(offsets, place)):
                try:
                    if offset in whys:
                        raise BrokenRecordError(self.path, key, offset, whys[offset])
                    record = self._record(block, rows[offset], key)
                except BrokenRecordError as error:
                    on_broken(error)
                else:
                    yield record
            place += len(offsets)

    def __iter__(self):
        return self.images()

    def images(self, on_broken: Optional[Callable[[Exception], None]] = None) -> Iterator[Image]:
        """Yields the images alone; see records()."""
        for record in self.records(on_broken):
            if not record.encoded and len(record.labels) > 1:
                continue
            why = label_fault(record.labels[0]) or ("" if record.encoded else "has no image bytes")
            if why:
                error = BrokenRecordError(self.path, record.key, record.offset, why)
                (on_broken or _raise)(error)
            else:
                yield Image(record.key, int(record.labels[0]), record.encoded, record.offset)

    def _needed_index(self):
        if self._index is None:
            raise ValueError(f"{self.path} has no .idx: it can only be read in order.")
        return self._index

    def _keys(self, offsets, place):
        if self._index is None:
            return range(place, place + len(offsets))
        return self._index.keys_of(offsets)

    def _record(self, block, i, key):
        offset = int(block.offset + block.start_R[i])
        try:
            labels, encoded = unpack(block.payload(i))
        except ValueError as error:
            raise BrokenRecordError(self.path, key, offset, str(error)) from None
        return Record(key, offset, labels, bytes(encoded))


def _raise(error):
    raise error
