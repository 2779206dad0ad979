"""Headers of encoded images: format, size and end, before anything is decoded. R: records."""

import struct
from typing import Any, Iterator, Optional, Tuple

import numpy as np

from faces.png_chunks import exceeds_file, png_chunks

JPEG, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
PNG, PNG_END = b"\x89PNG", b"IEND\xaeB`\x82"
# Decoded, 2^26 pixels take 200 MB. A PNG of 1 MB may claim 2^30, which takes 6 GB with OpenCV.
MAX_PIXELS = 1 << 26


def image_faults(columns: Any, decode: bool = False) -> Iterator[Tuple[int, str]]:
    """Yields (row, why) for images of Columns that are no whole JPEG or PNG; decode: also tries."""
    start_R, stop_R, data = columns.start_R, columns.stop_R, columns.data
    long_enough = stop_R - start_R >= 8
    doubted = ~long_enough
    at = np.where(long_enough, start_R, 0)
    end = np.where(long_enough, stop_R, 2)
    if len(data) >= 8:
        is_jpeg = (data[at] == 0xFF) & (data[at + 1] == 0xD8) & (data[at + 2] == 0xFF)
        doubted |= ~(is_jpeg & (data[end - 2] == 0xFF) & (data[end - 1] == 0xD9))
    for row in range(len(start_R)) if decode else np.flatnonzero(doubted):
        why = image_fault(data[start_R[row] : stop_R[row]].tobytes(), decode)
        if why:
            yield row, why


def image_fault(encoded: bytes, decode: bool = False) -> Optional[str]:
    """Why encoded bytes are no image that training can read, or None."""
    if encoded[: len(JPEG)] == JPEG:
        if JPEG_END not in encoded:
            return f"is a JPEG that is cut off: {len(encoded)} bytes without an end marker"
    elif encoded[: len(PNG)] == PNG:
        if PNG_END not in encoded:
            return f"is a PNG that is cut off: {len(encoded)} bytes without an end"
    else:
        return f"is neither JPEG nor PNG: its image starts with the bytes {encoded[:4]!r}"
    if decode and decoded(encoded) is None:
        fault = size_fault(encoded) if image_size(encoded) else None
        return fault or "holds an image that cannot be decoded"
    return None


def decoded(encoded: bytes) -> Optional[np.ndarray]:
    """uint8 [H, W, 3] BGR, or None where OpenCV cannot decode it or its header is refused."""
    import cv2  # takes longer to load than a small conversion takes

    if size_fault(encoded):
        return None
    try:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None


def size_fault(encoded: bytes) -> Optional[str]:
    """Why an image is not decoded, by its header alone, or None."""
    size = image_size(encoded)
    if size is None:
        return "is no JPEG, PNG, BMP, WebP or TIFF with a size in its header"
    if size[0] * size[1] > MAX_PIXELS:
        return f"has {size[0]}x{size[1]} pixels, more than the {MAX_PIXELS:,} that are decoded"
    if encoded[: len(PNG)] == PNG and any(
        exceeds_file(encoded, stop) for _, _, stop in png_chunks(encoded)
    ):
        return "is a PNG with a chunk that declares more bytes than the file has"
    return None


def image_size(encoded: bytes) -> Optional[Tuple[int, int]]:
    """(height, width) by the header of a JPEG, PNG, BMP, WebP or TIFF, or None."""
    for start, read in _SIZE_READERS:
        if encoded[: len(start)] == start:
            try:
                return read(encoded)
            except struct.error:  # the header is cut off
                return None
    return None


def _png_size(encoded: bytes) -> Tuple[int, int]:
    width, height = struct.unpack_from(">II", encoded, 16)
    return height, width


def _jpeg_size(encoded: bytes) -> Optional[Tuple[int, int]]:
    at = 2
    while at + 9 <= len(encoded):
        kind = encoded[at + 1]
        if encoded[at] != 0xFF or kind == 0xFF:  # garbage, or a fill byte: decoders skip both
            at += 1
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # a start of frame
            return struct.unpack_from(">HH", encoded, at + 5)
        elif kind in (0x00, 0x01) or 0xD0 <= kind <= 0xD8:  # markers without a length
            at += 2
        else:
            at += 2 + struct.unpack_from(">H", encoded, at + 2)[0]
    return None


def _bmp_size(encoded: bytes) -> Tuple[int, int]:
    if struct.unpack_from("<I", encoded, 14)[0] == 12:  # the header of OS/2
        width, height = struct.unpack_from("<HH", encoded, 18)
    else:
        width, height = struct.unpack_from("<ii", encoded, 18)
    return abs(height), abs(width)  # rows from the top have a negative height


def _webp_size(encoded: bytes) -> Optional[Tuple[int, int]]:
    kind = encoded[12:16]
    if kind == b"VP8X":
        low, middle, high, *rest = struct.unpack_from("<6B", encoded, 24)
        width = low | middle << 8 | high << 16
        return 1 + (rest[0] | rest[1] << 8 | rest[2] << 16), 1 + width
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", encoded, 21)
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    width, height = struct.unpack_from("<HH", encoded, 26)
    return (height & 0x3FFF, width & 0x3FFF) if kind == b"VP8 " else None


def _tiff_size(encoded: bytes) -> Optional[Tuple[int, int]]:
    order = "<" if encoded[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", encoded, 4)
    (entries,) = struct.unpack_from(order + "H", encoded, directory)
    sides = {}
    for at in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind = struct.unpack_from(order + "HH", encoded, at)
        if tag in (256, 257):  # width, height; as a short or a long
            (sides[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), encoded, at + 8)
    return (sides[257], sides[256]) if len(sides) == 2 else None


_SIZE_READERS = (
    (PNG, _png_size),
    (JPEG, _jpeg_size),
    (b"BM", _bmp_size),
    (b"RIFF", _webp_size),
    (b"II*\0", _tiff_size),
    (b"MM\0*", _tiff_size),
)
