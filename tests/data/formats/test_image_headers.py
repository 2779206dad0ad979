"""Sizes and faults of encoded images, found by their headers alone."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from data.formats.image_headers import (
    MAX_PIXELS,
    decoded,
    image_fault,
    image_size,
    size_fault,
)

IMAGE = np.arange(9 * 14 * 3, dtype=np.uint8).reshape(9, 14, 3)


def encode(extension, *options):
    return cv2.imencode(extension, IMAGE, list(options))[1].tobytes()


def bomb(width, height):
    """A PNG whose header claims any size and whose pixels are missing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", struct.pack(">I", 13), header]
    return b"".join(parts) + struct.pack(">I", zlib.crc32(header)) + b"\0\0\0\0IEND\xaeB`\x82"


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
def test_the_size_is_read_from_the_header(extension):
    assert image_size(encode(extension)) == (9, 14)
    assert decoded(encode(extension)).shape == (9, 14, 3)


@pytest.mark.parametrize(
    "options",
    [(cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 1)],
    ids=["progressive", "restarts"],
)
def test_the_size_of_other_kinds_of_jpeg(options):
    assert image_size(encode(".jpg", *options)) == (9, 14)


def test_lossless_webp_and_a_bmp_from_the_top():
    assert image_size(encode(".webp", cv2.IMWRITE_WEBP_QUALITY, 101)) == (9, 14)
    bmp = bytearray(encode(".bmp"))
    bmp[22:26] = struct.pack("<i", -9)
    assert image_size(bytes(bmp)) == (9, 14)


def test_fill_bytes_before_a_marker_are_skipped():
    jpeg = encode(".jpg")
    assert image_size(jpeg[:2] + b"\xff\xff" + jpeg[2:]) == (9, 14)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
def test_a_header_cut_anywhere_has_no_size_and_raises_nothing(extension):
    whole = encode(extension)
    assert image_size(whole[:9]) is None
    for length in range(min(200, len(whole))):
        image_size(whole[:length])


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded():
    assert size_fault(bomb(32767, 32767)).startswith("has 32767x32767 pixels, more than")
    assert decoded(bomb(32767, 32767)) is None
    assert "32767x32767" in image_fault(bomb(32767, 32767), decode=True)
    assert size_fault(bomb(MAX_PIXELS, 1)) is None


def test_a_format_that_is_not_supported_is_not_decoded():
    assert "no JPEG, PNG" in size_fault(encode(".ppm"))
    assert decoded(encode(".ppm")) is None


def test_a_png_chunk_that_declares_gigabytes_is_refused_before_it_is_decoded():
    whole = encode(".png")
    assert size_fault(whole) is None and size_fault(whole + b"trailing bytes") is None
    claim = struct.pack(">I", 0xFFFF0000) + b"tEXt" + bytes(8)
    cut = whole[:33] + claim + whole[33:]
    assert "a chunk that declares more bytes" in size_fault(cut)
    assert decoded(cut) is None
