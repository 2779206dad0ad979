import struct
import zlib

import pytest

from faces.png_chunks import SIGNATURE, exceeds_file, png_chunks


def chunk(kind, content):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


WHOLE = SIGNATURE + chunk(b"IHDR", bytes(13)) + chunk(b"IDAT", b"abc") + chunk(b"IEND", b"")


@pytest.mark.parametrize("after", [b"", b"bytes after the end of the picture"])
def test_chunks_are_listed_to_the_end_of_the_picture(after):
    found = [(kind, WHOLE[start:stop]) for kind, start, stop in png_chunks(WHOLE + after)]
    assert found == [(b"IHDR", bytes(13)), (b"IDAT", b"abc"), (b"IEND", b"")]
    assert not any(exceeds_file(WHOLE + after, stop) for _, _, stop in png_chunks(WHOLE + after))


@pytest.mark.parametrize("missing", [1, 3])
def test_a_chunk_without_its_whole_checksum_exceeds_the_file(missing):
    cut = WHOLE[: len(WHOLE) - 12 - missing]  # 12: IEND
    assert exceeds_file(cut, list(png_chunks(cut))[-1][2])
