"""Photos: headers are read before pixels, and each photo that cannot be used has its reason."""

import random
import struct

import cv2
import numpy as np
import pytest

from faces import photo
from faces.photo import PhotoError, quality, read_header, read_photo, sharpness, upright

IMAGE = np.random.RandomState(0).randint(0, 256, (24, 37, 3)).astype(np.uint8)
SMOOTH = np.stack(
    [np.add.outer(np.arange(24) * 5, np.arange(37) * 3), np.zeros((24, 37)), np.ones((24, 37))], -1
).astype(np.uint8)


def png(image=IMAGE):
    return cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()


def jpeg(image=SMOOTH):
    return cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


def exif(orientation, order="<"):
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(order + "IH", 8, 1) + entry + b"\0\0\0\0"


def with_exif(encoded, orientation, order="<"):
    content = b"Exif\0\0" + exif(orientation, order)
    return encoded[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + encoded[2:]


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + b"\0\0\0\0"


def with_size(encoded, height, width):
    """A JPEG whose header claims another size."""
    at = encoded.index(b"\xff\xc0") + 5
    return encoded[:at] + struct.pack(">HH", height, width) + encoded[at + 4 :]


def cmyk():
    """A JPEG header with four colour components and a scan."""
    frame = struct.pack(">BHHB", 8, 24, 37, 4) + bytes([1, 17, 0] * 4)
    segment = b"\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame
    return b"\xff\xd8" + segment + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + bytes(9) + b"\xff\xd9"


def test_png_comes_back_as_rgb():
    np.testing.assert_array_equal(read_photo(png()), IMAGE)


def test_jpeg_comes_back_as_rgb():
    difference = np.abs(read_photo(jpeg()).astype(int) - SMOOTH)
    assert difference.mean() < 3


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, order):
    stored = read_photo(jpeg())
    turned = read_photo(with_exif(jpeg(), orientation, order))
    np.testing.assert_array_equal(turned, upright(stored, orientation))


def test_each_orientation_brings_its_corner_to_the_upper_left():
    corners = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0)}
    corners.update({5: (0, 0), 6: (-1, 0), 7: (-1, -1), 8: (0, -1)})
    for orientation, (row, column) in corners.items():
        turned = upright(IMAGE, orientation)
        np.testing.assert_array_equal(turned[0, 0], IMAGE[row, column])
        assert turned.shape[:2] == ((24, 37) if orientation < 5 else (37, 24))


def test_orientation_of_a_png_is_applied():
    encoded = png()
    turned = encoded[:33] + png_chunk(b"eXIf", exif(6)) + encoded[33:]
    np.testing.assert_array_equal(read_header(turned).orientation, 6)


def test_size_comes_from_the_header():
    assert read_header(png())[:3] == (24, 37, 3)
    assert read_header(jpeg())[:3] == (24, 37, 3)


ANIMATED = png()[:33] + png_chunk(b"acTL", b"\0\0\0\2\0\0\0\0") + png()[33:]
THUMBNAIL_ONLY = with_exif(jpeg(), 1)[:-2].replace(b"Exif\0\0", b"Exif\xff\xd9")
REFUSED = {
    "empty": (b"", "0 bytes"),
    "a text": (b"hello, this is a text", "neither a JPEG nor a PNG"),
    "a GIF": (b"GIF89a" + bytes(50), "is a GIF"),
    "a WebP": (b"RIFF\0\0\0\0WEBPVP8 ", "is a WebP"),
    "a HEIC": (b"\0\0\0\x18ftypheic", "is a HEIC photo"),
    "an LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "LFS pointer"),
    "an animation": (ANIMATED, "is animated"),
    "a CMYK JPEG": (cmyk(), "CMYK"),
    "a cut PNG": (png()[:-12], "cut off"),
    "a cut JPEG": (jpeg()[:-2], "cut off"),
    "a cut JPEG with a thumbnail": (THUMBNAIL_ONLY, "cut off"),
    "a JPEG's start": (jpeg()[:30], "cut off"),
    "70 megapixels": (with_size(jpeg(), 7000, 10000), "10000 x 7000 pixels"),
    "no pixels": (with_size(jpeg(), 0, 37), "no pixels"),
    "damaged data": (png()[:45] + bytes(40) + png()[85:], "cannot be decoded"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_photo_is_refused_with_its_reason(kind):
    encoded, words = REFUSED[kind]
    with pytest.raises(PhotoError, match=words):
        read_photo(encoded)


def test_fifty_megapixels_are_read():
    image = np.zeros((6250, 8000, 3), np.uint8)
    encoded = cv2.imencode(".jpg", image)[1].tobytes()
    assert read_photo(encoded).shape == image.shape


def test_many_bytes_are_refused(monkeypatch):
    monkeypatch.setattr(photo, "MAX_BYTES", 100)
    with pytest.raises(PhotoError, match="MiB"):
        read_photo(png())


def test_blur_lowers_sharpness_and_quality():
    blurred = cv2.GaussianBlur(IMAGE, (0, 0), 3)
    assert sharpness(blurred) < sharpness(IMAGE) / 10
    assert 0 <= quality(blurred, 24) < quality(IMAGE, 24) <= 1


def test_small_faces_have_a_lower_quality():
    assert quality(IMAGE, 6) == pytest.approx(quality(IMAGE, 24) / 4)


def test_mutated_photos_raise_nothing_but_photo_errors():
    chooser = random.Random(0)
    seeds = [jpeg(), with_exif(jpeg(), 6), png(), ANIMATED, cmyk()]
    for number in range(3000):
        content = bytearray(seeds[number % len(seeds)])
        for _ in range(chooser.randint(1, 5)):
            at = chooser.randrange(min(len(content), chooser.choice((30, 100, len(content)))))
            if chooser.random() < 0.5:
                content[at] = chooser.randrange(256)
            else:
                del content[at : at + chooser.choice((1, 2, 20))]
            if not content:
                break
        try:
            image = read_photo(bytes(content), max_pixels=1 << 16)
        except PhotoError:
            continue
        assert image.dtype == np.uint8 and image.ndim == 3


def test_png_chunk_that_declares_gigabytes_is_refused_before_it_is_decoded():
    encoded = bytearray(png())
    at = 33  # behind the signature and IHDR
    assert encoded[at + 4 : at + 8] == b"IDAT"
    encoded[at] = 0xDD
    with pytest.raises(PhotoError, match="damaged chunk"):
        read_photo(bytes(encoded))


def test_second_size_in_a_png_is_refused():
    encoded = png()
    with pytest.raises(PhotoError, match="damaged chunk"):
        read_photo(encoded[:33] + encoded[8:33] + encoded[33:])
