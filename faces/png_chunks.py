"""The chunks of a PNG as its headers declare them; nothing is decoded."""

import struct
from typing import Iterator, Tuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHECKSUM = 4  # bytes after a chunk's content


def png_chunks(encoded: bytes) -> Iterator[Tuple[bytes, int, int]]:
    """(kind, start, declared stop of its content) of every chunk up to the last one."""
    at, kind = len(SIGNATURE), b""
    while at + 12 <= len(encoded) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", encoded, at)
        yield kind, at + 8, at + 8 + length
        at += 12 + length


def exceeds_file(encoded: bytes, stop: int) -> bool:
    """Whether a chunk ends beyond the file, checksum included. OpenCV's decoder would reserve the
    memory that such a chunk declares, up to 4 GiB."""
    return stop + CHECKSUM > len(encoded)
