"""MXNet's RecordIO without MXNet: .rec, .idx and `property`, written and read to the byte.

A .rec is a chain of parts: magic, (continuation << 29 | length), data, zeros up to 4 bytes. The
writer cuts a payload wherever its aligned bytes equal the magic, so that an aligned magic is always
the start of a part; the reader puts those 4 bytes back. A payload is an IRHeader, `flag` float32
labels when flag > 0, and the encoded image. Shape letters: R records of a block.
"""

import collections
import os
import struct

import numpy as np

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
LENGTH_BITS = 29
LENGTH_MASK = (1 << LENGTH_BITS) - 1
WHOLE, FIRST, MIDDLE, LAST = range(4)
HEADER = struct.Struct("<IfQQ")  # flag, label, id, id2
LARGEST_RECORD = 1 << 26  # bytes; a longer claim is damage, not an image of a face
BLOCK_BYTES = 1 << 25
EXACT_FLOAT32 = 1 << 24  # the first whole number that float32 may round

Image = collections.namedtuple("Image", "key label encoded offset")
Record = collections.namedtuple("Record", "key offset labels encoded")


class BrokenRecordError(ValueError):
    """One record that cannot be used: where it is and why; a reader that skips goes on after it."""

    def __init__(self, path, key, offset, reason):
        name = "a record" if key is None else f"record {key}"
        super().__init__(f"{path}: {name} at byte {offset} {reason}.")
        self.key, self.offset, self.reason = key, offset, reason


def pack_header(labels, key, id2=0):
    """The IRHeader of one record: flag 0 for one number, flag k and k float32 for a sequence."""
    if np.ndim(labels) == 0:
        return HEADER.pack(0, labels, key, id2)
    array = np.asarray(labels, "<f4")
    return HEADER.pack(array.size, 0.0, key, id2) + array.tobytes()


def pack_image(label, encoded, key):
    """The payload of an image record. encoded: JPEG or PNG bytes; label: a number or a sequence."""
    return pack_header(label, key) + bytes(encoded)


def unpack(payload):
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


def write_property(path, identities, image_size=(112, 112)):
    """The `property` file beside a .rec: identities,height,width."""
    with open(path, "w") as stream:
        stream.write(f"{identities},{image_size[0]},{image_size[1]}\n")


def read_property(path):
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

    def __init__(self, rec_path, idx_path):
        self._paths = (rec_path, idx_path)
        self._rec = open(rec_path + ".incomplete", "wb")
        self._idx = open(idx_path + ".incomplete", "w", newline="\n")

    def write(self, key, payload):
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


class Block:
    """The records that begin in one stretch of a .rec, as columns.

    start_R, stop_R: each record's extent in `data`, from its magic to its padding; file offset
    = offset + start. broken: [(file offset, reason)] of damage between and inside records.
    """

    def __init__(self, data, offset, start_R, stop_R, broken):
        self.data, self.offset = data, offset
        self.start_R, self.stop_R, self.broken = start_R, stop_R, broken

    def __len__(self):
        return len(self.start_R)

    def payload(self, i):
        """The payload of record i: a memoryview, or bytes where parts had to be joined."""
        start, stop = int(self.start_R[i]), int(self.stop_R[i])
        view, parts = memoryview(self.data), []
        while start < stop:
            length = struct.unpack_from("<I", view, start + 4)[0] & LENGTH_MASK
            parts.append(view[start + 8 : start + 8 + length])
            start += 8 + length + (-length) % 4
        return parts[0] if len(parts) == 1 else MAGIC_BYTES.join(bytes(part) for part in parts)


def find_records(data, limit, whole):
    """The chain of records in uint8 data -> (start [R], stop [R], broken [(at, why)], end).

    Takes the records that start before byte `limit`; `whole` says that data ends where the file
    ends. `end` is where the next record starts, or None: more data is needed to know. After damage
    the chain goes on at the next part that can begin a record."""
    words = data[: data.size // 4 * 4].view("<u4")
    marks = np.flatnonzero(words[:-1] == MAGIC)
    heads = words[marks + 1]
    after = marks + 2 + ((heads & LENGTH_MASK).astype(np.int64) + 3) // 4
    if (
        len(marks)
        and marks[0] == 0
        and not (heads >> LENGTH_BITS).any()
        and (after[:-1] == marks[1:]).all()
        and (heads & LENGTH_MASK).max() <= LARGEST_RECORD
    ):
        if after[-1] * 4 == data.size and whole:
            inside = int(np.searchsorted(marks * 4, limit))
            end = int(after[inside - 1]) * 4 if inside else 0
            return marks[:inside] * 4, after[:inside] * 4, [], end
        inside = int(np.searchsorted(marks[:-1] * 4, limit))
        if marks[inside] * 4 >= limit:
            return marks[:inside] * 4, after[:inside] * 4, [], int(marks[inside]) * 4
    return _walk(data, words, marks, limit, whole)


def _walk(data, words, marks, limit, whole):
    """find_records one record at a time: joins parts and steps over damage."""
    starts, stops, broken, at = [], [], [], 0
    while at < limit and at < data.size:
        stop, why = _record_end(words, data.size, at, whole)
        if stop is None and why is None:
            return None, None, None, None
        if why is None:
            starts.append(at)
            stops.append(stop)
            at = stop
            continue
        broken.append((at, why))
        at = _resume(words, marks, at + 4)
        if at is None:
            if not whole:
                return None, None, None, None
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


def read_blocks(path, first=0, last=None, block_bytes=BLOCK_BYTES):
    """Yields the Blocks number first ... last - 1 of a .rec, reading it once, front to back.

    Block b holds the records that start in bytes [b, b + 1) * block_bytes, wherever reading began:
    how the file is dealt to processes does not change the blocks. Damage is in `Block.broken`."""
    size = os.path.getsize(path)
    last = block_count(size, block_bytes) if last is None else last
    with open(path, "rb", buffering=0) as stream:
        at = None if first else 0
        for number in range(first, last):
            begin, limit = number * block_bytes, min((number + 1) * block_bytes, size)
            at = begin if at is None else at
            if at >= limit:  # one record spans the whole block
                yield Block(np.empty(0, np.uint8), at, *(np.empty((2, 0), np.int64)), broken=[])
                continue
            block, at = _read_block(stream, size, at, limit, number == first > 0)
            yield block


def block_count(size, block_bytes=BLOCK_BYTES):
    """How many blocks a .rec of `size` bytes has."""
    return -(-size // block_bytes)


def _read_block(stream, size, at, limit, join):
    """One block from byte `at`, and where the next starts. join: `at` may be inside a record."""
    beyond = 1 << 16
    while True:
        stop = min(limit + beyond, size)
        data = _read_at(stream, at, stop - at)
        skipped = _first_start(data) if join else 0
        if skipped is None or at + skipped >= limit:
            if stop == size or skipped is not None:
                where = size if skipped is None else at + skipped
                return Block(data[:0], where, *(np.empty((2, 0), np.int64)), broken=[]), where
        else:
            inner = data[skipped:]
            found = find_records(inner, limit - at - skipped, stop == size)
            if found[3] is not None:
                starts, stops, broken, end = found
                offset = at + skipped
                broken = [(offset + where, why) for where, why in broken]
                return Block(inner, offset, starts, stops, broken), offset + end
        beyond *= 8


def _first_start(data):
    words = data[: data.size // 4 * 4].view("<u4")
    return _resume(words, np.flatnonzero(words[:-1] == MAGIC), 0)


def _read_at(stream, at, count):
    """uint8 [count] from byte `at`; one copy, straight into the array."""
    data = np.empty(count, np.uint8)
    view, done = memoryview(data), 0
    stream.seek(at)
    while done < count:
        got = stream.readinto(view[done:])
        if not got:
            raise ValueError(f"{stream.name}: shrank while it was read; is it still being copied?")
        done += got
    return data


class RecordReader:
    """A .rec in any of the layouts that InsightFace's tools write, with or without its .idx.

    Iterating gives each image once, in the file's order, as Image(key, label, encoded, offset);
    header and range records (no image bytes, several labels) are left out. `read(key)` goes through
    the .idx. Without one, a record's key is its place in the file."""

    def __init__(self, rec_path, idx_path=None):
        self.path = rec_path
        beside = os.path.splitext(rec_path)[0] + ".idx"
        self.idx_path = idx_path or (beside if os.path.exists(beside) else None)
        if os.path.getsize(rec_path) == 0:
            raise ValueError(f"{rec_path} is empty (0 bytes); copy or build it again.")
        self._offsets = dict(read_index(self.idx_path)) if self.idx_path else None
        self._keys = {at: key for key, at in self._offsets.items()} if self._offsets else None
        self._stream = open(rec_path, "rb", buffering=0)
        self._size = os.path.getsize(rec_path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()

    def keys(self):
        """The keys of the .idx, in its order."""
        if self._offsets is None:
            raise ValueError(f"{self.path} has no .idx beside it: it can only be read in order.")
        return list(self._offsets)

    def read(self, key):
        """The Record under `key` of the .idx."""
        if self._offsets is None:
            raise ValueError(
                f"{self.path} has no .idx beside it: record {key} cannot be looked up."
            )
        if key not in self._offsets:
            raise ValueError(f"{self.idx_path}: there is no record {key} in it.")
        offset = self._offsets[key]
        if offset + 8 > self._size or offset % 4:
            where = "past the end" if offset + 8 > self._size else "inside a record"
            raise BrokenRecordError(
                self.path,
                key,
                offset,
                f"is {where} ({self._size} bytes): is the .idx of another .rec",
            )
        want = 1 << 16
        while True:
            stop = min(offset + want, self._size)
            data = _read_at(self._stream, offset, stop - offset)
            starts, stops, broken, end = find_records(data, 1, stop == self._size)
            if end is not None:
                break
            want *= 8
        if broken:
            raise BrokenRecordError(self.path, key, offset, broken[0][1])
        return self._record(Block(data, offset, starts, stops, []), 0, key)

    def records(self, on_broken=None):
        """Yields every Record in the file's order, header and range records too.
        on_broken: called with each BrokenRecordError to go on after it; without it the first is
        raised."""
        place = 0
        for block in read_blocks(self.path):
            broken = list(block.broken)
            for i in range(len(block)):
                offset = int(block.offset + block.start_R[i])
                while broken and broken[0][0] < offset:
                    self._refuse(*broken.pop(0), place=place, on_broken=on_broken)
                    place += 1
                try:
                    yield self._record(block, i, self._key(offset, place))
                except BrokenRecordError as error:
                    if on_broken is None:
                        raise
                    on_broken(error)
                place += 1
            for at, why in broken:
                self._refuse(at, why, place=place, on_broken=on_broken)
                place += 1

    def __iter__(self):
        return self.images()

    def images(self, on_broken=None):
        """Yields the images alone; see records()."""
        for record in self.records(on_broken):
            if len(record.encoded) or len(record.labels) == 1:
                try:
                    yield self._image(record)
                except BrokenRecordError as error:
                    if on_broken is None:
                        raise
                    on_broken(error)

    def _refuse(self, at, why, place, on_broken):
        error = BrokenRecordError(self.path, self._key(at, place), at, why)
        if on_broken is None:
            raise error
        on_broken(error)

    def _key(self, offset, place):
        return place if self._keys is None else self._keys.get(offset)

    def _record(self, block, i, key):
        offset = int(block.offset + block.start_R[i])
        try:
            labels, encoded = unpack(block.payload(i))
        except ValueError as error:
            raise BrokenRecordError(self.path, key, offset, str(error)) from None
        return Record(key, offset, labels, bytes(encoded))

    def _image(self, record):
        why = label_fault(record.labels[0])
        if why is None and not record.encoded:
            why = "has no image bytes"
        if why is not None:
            raise BrokenRecordError(self.path, record.key, record.offset, why)
        return Image(record.key, int(record.labels[0]), record.encoded, record.offset)


def label_fault(label):
    """Why a float32 label is no identity, or None."""
    if np.isfinite(label) and label >= 0 and label == int(label):
        return None
    return f"has label {float(label):g}, which is not a whole number from 0 up"


def read_index(path):
    """.idx -> [(key, offset)] in the file's order."""
    pairs = []
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                key, offset = line.split()
                pairs.append((int(key), int(offset)))
                if pairs[-1][1] < 0:
                    raise ValueError(line)
            except ValueError:
                text = line[:60].decode("ascii", "backslashreplace").rstrip()
                raise ValueError(
                    f"{path}: line {number} is {text!r}, not key<tab>offset; delete the .idx to "
                    "read the .rec in order without it."
                ) from None
    if not pairs:
        raise ValueError(f"{path} is empty; delete it to read the .rec in order without it.")
    return pairs
