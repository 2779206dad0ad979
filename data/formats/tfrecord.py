"""TFRecord shards of Examples {image_raw: bytes, label: int64}, as bytes, without TensorFlow.

A frame is uint64 length, its masked CRC-32C, an Example, its masked CRC-32C. Heads of many frames
are built as columns at once, and images go from the buffer they were read into straight to the
file: nothing is copied for the sake of framing. Shape letter: R records.
"""

import errno
import os
import struct
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from data.formats.crc32c import crc32c, extend, extend_rows, masked
from runtime.protobuf import ProtobufError, fields, number

LENGTH, TAIL = struct.Struct("<QI"), 4  # before and behind an Example
LARGEST_EXAMPLE = 1 << 28
VARINT_STEPS = 1 << np.arange(7, 63, 7, dtype=np.int64)  # where a varint takes another byte
VECTORS = 1024  # buffers of one writev; POSIX systems take at least this many
IMAGE, LABEL = b"image_raw", b"label"


class Count(NamedTuple):
    """What a shard without a manifest holds."""

    images: int
    largest_label: int


def write_frames(
    descriptor: int, data: np.ndarray, label_R: np.ndarray, start_R: np.ndarray, stop_R: np.ndarray
) -> Tuple[int, int]:
    """Writes one frame for each image data[start:stop], in that order; returns (bytes, checksum).

    descriptor: of an open file. label_R: int64 >= 0. The checksum is a sum over the records, so
    that it identifies a data set in any order, and adds up over shards (modulo 2^64)."""
    if not len(label_R):
        return 0, 0
    glue, at_R, crc_R = _glue(label_R, stop_R - start_R)
    crc_R = extend(crc_R, data, start_R, stop_R)
    tails = masked(crc_R).astype("<u4").view(np.uint8).reshape(-1, TAIL)
    glue[at_R[1:-1, None] + np.arange(TAIL)] = tails[:-1]
    at_R[0] = TAIL  # nothing is before the first
    vectors = [tails[-1].data] * (2 * len(label_R) + 1)
    vectors[0:-1:2] = slices(glue, at_R[:-1], at_R[1:])
    vectors[1:-1:2] = slices(data, start_R, stop_R)
    size = int(at_R[-1] + (stop_R - start_R).sum())
    write_vectors(descriptor, vectors, size)
    return size, mix(crc_R)


def slices(data: np.ndarray, start_R: np.ndarray, stop_R: np.ndarray) -> List[memoryview]:
    """[data[start:stop]] without copying."""
    extents = map(slice, start_R.tolist(), stop_R.tolist())
    return list(map(memoryview(data).__getitem__, extents))


def example_bytes(label: int, encoded: bytes) -> bytes:
    """One Example with the original's keys."""
    array = np.frombuffer(encoded, np.uint8)
    glue, _, _ = _glue(np.array([label]), np.array([array.size]))
    return glue[TAIL + LENGTH.size :].tobytes() + array.tobytes()


def read_frames(path: str, check: bool = True) -> Iterator[Tuple[int, bytes]]:
    """Yields (offset, Example bytes) of each frame. check: compare the Examples' checksums."""
    size, at = os.path.getsize(path), 0
    with open(path, "rb") as stream:
        while at < size:
            head = stream.read(LENGTH.size)
            if len(head) < LENGTH.size:
                raise _damage(path, at, "is cut off; the file ends inside its first 12 bytes")
            length, crc = LENGTH.unpack(head)
            if masked(crc32c(head[:8])) != crc:
                raise _damage(path, at, "is no TFRecord: the checksum of its length is wrong")
            if length > LARGEST_EXAMPLE or at + 16 + length > size:
                raise _damage(path, at, f"is cut off: it claims {length} bytes")
            example, tail = stream.read(length), stream.read(4)
            if len(tail) < 4:
                raise _damage(path, at, f"is cut off: it claims {length} bytes")
            if check and masked(crc32c(example)) != struct.unpack("<I", tail)[0]:
                raise _damage(path, at, "is damaged: its checksum is wrong")
            yield at, example
            at += 16 + length


def frames_after_damage(data: bytes) -> List[bytes]:
    """The Examples of a shard from its first damaged one on, b"" for each damaged one.

    Where a length is damaged, the next frame is searched byte by byte for a length with the right
    checksum; what lies between counts as one record."""
    examples, at, damaged = [], 0, False  # type: Tuple[List[bytes], int, bool]
    while at < len(data):
        length = _length_at(data, at)
        if length is None:
            candidates = range(at + 1, len(data) - LENGTH.size)
            at = next((i for i in candidates if _length_at(data, i) is not None), len(data))
            example, whole = b"", False
        else:
            example = data[at + LENGTH.size : at + LENGTH.size + length]
            (crc,) = struct.unpack_from("<I", data, at + LENGTH.size + length)
            whole = masked(crc32c(example)) == crc
            at += LENGTH.size + length + TAIL
        damaged = damaged or not whole
        if damaged:
            examples.append(example if whole else b"")
    return examples


def _length_at(data: bytes, at: int) -> Optional[int]:
    """The length of the frame that starts there, or None if none does."""
    if at + LENGTH.size > len(data):
        return None
    length, crc = LENGTH.unpack_from(data, at)
    if length > LARGEST_EXAMPLE or at + LENGTH.size + length + TAIL > len(data):
        return None
    return length if masked(crc32c(data[at : at + 8])) == crc else None


def read_shard(path: str, check: bool = True) -> Iterator[Tuple[int, bytes]]:
    """Yields (label, image bytes) of each record."""
    for at, example in read_frames(path, check):
        try:
            yield parse_example(example)
        except ValueError as error:
            raise _damage(path, at, str(error)) from None


def count_shard(path: str) -> Count:
    """Count(images, largest_label) of one TFRecord file, reading it once."""
    images, largest = 0, -1
    for label, _ in read_shard(path, check=False):
        images, largest = images + 1, max(largest, label)
    if not images:
        raise ValueError(f"{path} holds no record.")
    return Count(images, largest)


def parse_example(example: bytes) -> Tuple[int, bytes]:
    """Example bytes -> (label, image bytes); ValueError says what it lacks."""
    try:
        return _label_and_image(memoryview(example))
    except ProtobufError as error:
        raise ValueError(f"is no Example: {error}") from None


def _label_and_image(view):
    features = {}
    for field, feature_map in fields(view):
        if field == 1:
            for inner, entry in fields(_bytes(feature_map)):
                if inner == 1:
                    parts = dict(fields(_bytes(entry)))
                    features[bytes(_bytes(parts.get(1, b"")))] = _bytes(parts.get(2, b""))
    image, label = features.get(IMAGE), features.get(LABEL)
    if image is None or label is None:
        missing = "image_raw" if image is None else "label"
        raise ValueError(f"has no feature {missing!r} but {sorted(map(_text, features))}")
    images = [
        value for kind, items in fields(image) if kind == 1 for _, value in fields(_bytes(items))
    ]
    labels = [value for kind, items in fields(label) if kind == 3 for value in _integers(items)]
    if len(images) != 1 or len(labels) != 1:
        raise ValueError(f"holds {len(images)} images and {len(labels)} labels, not one of each")
    if labels[0] < 0:
        raise ValueError(f"has label {labels[0]}, below 0")
    return labels[0], bytes(_bytes(images[0]))


def _integers(items):
    """The int64 values of an Int64List, packed or not."""
    for field, value in fields(_bytes(items)):
        if field == 1 and isinstance(value, int):
            yield _signed(value)
        elif field == 1:
            at = 0
            while at < len(value):
                unsigned, at = number(value, at)
                yield _signed(unsigned)


def _signed(value):
    return value - (1 << 64) if value >= 1 << 63 else value


def _bytes(value):
    if isinstance(value, int):
        raise ValueError("is no Example: it has a number where a message belongs")
    return value


def _text(name):
    return name[:40].decode("ascii", "backslashreplace")


def _damage(path, at, reason):
    return ValueError(f"{path}: the record at byte {at} {reason}; copy or convert the file again.")


def _glue(label_R, size_R):
    """What stands between images: room for the checksum of the one before, and the next's head.

    uint8 [sum of lengths], their begins int64 [R + 1], the checksums so far of the Examples [R]."""
    label_R, size_R = label_R.astype(np.int64), size_R.astype(np.int64)
    digits_R = _digits(label_R)
    bytes_list = 1 + _digits(size_R) + size_R
    image_feature = 1 + _digits(bytes_list) + bytes_list
    image_entry = 2 + len(IMAGE) + 1 + _digits(image_feature) + image_feature
    label_entry = 2 + len(LABEL) + 6 + digits_R
    features = 2 + label_entry + 1 + _digits(image_entry) + image_entry
    example = 1 + _digits(features) + features
    numbers = [features, image_entry, image_feature, bytes_list, size_R, label_R]
    widths = [_digits(number) for number in numbers]
    at_R = np.concatenate([[0], np.cumsum(TAIL + LENGTH.size + example - size_R)])
    glue, crc_R = np.empty(at_R[-1], np.uint8), np.zeros(len(size_R), np.uint32)
    shape_R = sum(width << (4 * i) for i, width in enumerate(widths))
    for shape in np.unique(shape_R):
        rows = np.flatnonzero(shape_R == shape)
        columns = [
            _varints(number[rows], int(width[rows[0]])) for number, width in zip(numbers, widths)
        ]
        table = _head_rows(example[rows], int(digits_R[rows[0]]), columns)
        glue[at_R[rows][:, None] + TAIL + np.arange(table.shape[1])] = table
        crc_R[rows] = extend_rows(crc_R[rows], table[:, LENGTH.size :])
    return glue, at_R, crc_R


def _head_rows(example_R, label_digits, columns):
    """Heads of one shape: uint8 [R, bytes]."""
    features, image_entry, image_feature, bytes_list, size, label = columns
    length = example_R.astype("<u8").view(np.uint8).reshape(-1, 8)
    crc = masked(extend_rows(np.zeros(len(length), np.uint32), length)).astype("<u4")
    label_entry = bytes([len(LABEL) + 8 + label_digits, 10, len(LABEL)]) + LABEL
    label_entry += bytes([18, 4 + label_digits, 26, 2 + label_digits, 10, label_digits])
    pieces = [
        length,
        crc.view(np.uint8).reshape(-1, 4),
        b"\n",
        features,
        b"\n" + label_entry,
        label,
    ]
    pieces += [b"\n", image_entry, b"\n" + bytes([len(IMAGE)]) + IMAGE]
    pieces += [b"\x12", image_feature, b"\n", bytes_list, b"\n", size]
    rows = [
        np.tile(np.frombuffer(piece, np.uint8), (len(length), 1))
        if isinstance(piece, bytes)
        else piece
        for piece in pieces
    ]
    return np.concatenate(rows, axis=1)


def _digits(value_R):
    """How many bytes each number takes as a varint."""
    return 1 + np.searchsorted(VARINT_STEPS, value_R, side="right")


def _varints(value_R, width):
    """Numbers that all take `width` bytes as varints: uint8 [R, width]."""
    shifted = value_R[:, None] >> (7 * np.arange(width)) & 0x7F
    shifted[:, :-1] |= 0x80
    return shifted.astype(np.uint8)


def write_vectors(descriptor: int, vectors: List[Any], size: int) -> None:
    """Writes buffers of `size` bytes together, straight from where they lie."""
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    for first in range(0, len(vectors), VECTORS):
        os.writev(descriptor, vectors[first : first + VECTORS])
    if os.lseek(descriptor, 0, os.SEEK_CUR) - before != size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a short write


def mix(values: np.ndarray) -> int:
    """The sum modulo 2^64 of numbers, each scrambled first (splitmix64): their fingerprint."""
    with np.errstate(over="ignore"):
        mixed = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return int((mixed ^ (mixed >> np.uint64(31))).sum(dtype=np.uint64))
