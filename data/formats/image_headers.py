"""What encoded images show without being decoded: whether they are JPEG or PNG, and whole."""

import struct

import numpy as np

JPEG, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
PNG, PNG_END = b"\x89PNG", b"IEND\xaeB`\x82"


def image_faults(columns, decode=False):
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


def image_fault(encoded, decode=False):
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
        return "holds an image that cannot be decoded"
    return None


def decoded(encoded):
    """uint8 [H, W, 3] BGR, or None where OpenCV cannot decode it."""
    import cv2  # takes longer to load than a small conversion takes

    try:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None


def image_size(encoded):
    """(height, width) as the header of a JPEG or PNG says, or None."""
    if encoded[: len(PNG)] == PNG and len(encoded) >= 24:
        width, height = struct.unpack_from(">II", encoded, 16)
        return height, width
    at = 2
    while encoded[: len(JPEG)] == JPEG and at + 9 <= len(encoded) and encoded[at] == 0xFF:
        kind = encoded[at + 1]
        if kind == 0xFF:  # a filling byte
            at += 1
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # a start of frame
            return struct.unpack_from(">HH", encoded, at + 5)
        else:
            at += 2 + struct.unpack_from(">H", encoded, at + 2)[0]
    return None
