"""A photo's bytes -> uint8 RGB [H, W, 3], upright; or why it cannot be used, in one sentence.

Size, colour components, animation and orientation are read from the headers before anything is
decoded. Also how sharp a face is. Errors follow the photo's name: f"{name} {error}.".
"""

import struct
from typing import Iterator, NamedTuple, Optional, Tuple

import cv2
import numpy as np

from faces.png_chunks import SIGNATURE, exceeds_file, png_chunks
from runtime.files import first_line

MAX_PIXELS = 1 << 26  # a decoded photo of 192 MiB
MAX_BYTES = 1 << 26
JPEG, PNG = b"\xff\xd8\xff", SIGNATURE
JPEG_END, PNG_END = b"\xff\xd9", b"IEND\xaeB`\x82"
ORIENTATION = 0x0112  # EXIF tag
# Variance of the Laplacian of a 112 x 112 gray crop. Crops of a focused camera lie above 100; a
# Gaussian blur of 3 pixels brings them below 10.
BLURRED = 10.0
SHARP = 100.0
OTHER_FORMATS = (
    (b"GIF8", 0, "a GIF"),
    (b"WEBP", 8, "a WebP image"),
    (b"ftyphei", 4, "a HEIC photo"),
    (b"ftypmif", 4, "a HEIF photo"),
    (b"ftypavif", 4, "an AVIF image"),
    (b"ftyp", 4, "a video"),
    (b"BM", 0, "a BMP image"),
    (b"II*\0", 0, "a TIFF image"),
    (b"MM\0*", 0, "a TIFF image"),
    (b"%PDF", 0, "a PDF document"),
    (b"version https://git-lfs", 0, "a Git LFS pointer, not the file itself"),
)


class PhotoError(ValueError):
    """A photo that cannot be used. code: a fixed word for programs."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class Header(NamedTuple):
    """What a JPEG's or PNG's headers contain."""

    height: int  # as stored, before the orientation is applied
    width: int
    components: int  # colour components of a pixel
    orientation: int  # EXIF's 1 to 8
    animated: bool  # an APNG


def read_photo(encoded: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Bytes of a JPEG or PNG -> uint8 RGB [H, W, 3], turned as its EXIF orientation says."""
    header = read_header(encoded)
    height, width = header.height, header.width
    if not height or not width:
        raise PhotoError("damaged", "has no pixels; copy it again")
    if height * width > max_pixels:
        raise PhotoError(
            "too_many_pixels",
            f"is {width} x {height} pixels; reduce it to {max_pixels / 1e6:.0f} megapixels or less",
        )
    if header.animated:
        raise PhotoError("animated", "is animated; give a single picture")
    if header.components == 4 and encoded.startswith(JPEG):
        raise PhotoError("cmyk", "is a CMYK JPEG for printing; save it as RGB")
    return upright(_decode(encoded), header.orientation)


def read_header(encoded: bytes) -> Header:
    """The headers of a whole JPEG or PNG."""
    if not encoded:
        raise PhotoError("empty", "is empty (0 bytes)")
    if len(encoded) > MAX_BYTES:
        raise PhotoError("too_large", f"has more than {MAX_BYTES >> 20} MiB; reduce it")
    if encoded.startswith(JPEG):
        return _jpeg_header(encoded)
    if encoded.startswith(PNG):
        return _png_header(encoded)
    for magic, place, kind in OTHER_FORMATS:
        if encoded[place : place + len(magic)] == magic:
            raise PhotoError("not_a_photo", f"is {kind}; give a JPEG or PNG")
    raise PhotoError("not_a_photo", "is neither a JPEG nor a PNG")


def upright(image_HWC: np.ndarray, orientation: int) -> np.ndarray:
    """The image turned and mirrored as EXIF's orientation 1 to 8 says."""
    if orientation in (5, 6, 7, 8):
        image_HWC = image_HWC.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image_HWC = image_HWC[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image_HWC = image_HWC[::-1]
    return np.ascontiguousarray(image_HWC)


def sharpness(crop_HWC: np.ndarray) -> float:
    """Variance of the Laplacian of an RGB crop's gray values."""
    return float(cv2.Laplacian(cv2.cvtColor(crop_HWC, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def quality(crop_HWC: np.ndarray, face_pixels: float) -> float:
    """0 to 1: how sharp a crop is, times how many of its pixels the photo really had.

    face_pixels: the shorter side of the face in the photo."""
    sharp = 1.0 - float(np.exp(-sharpness(crop_HWC) / SHARP))
    return sharp * min(1.0, face_pixels / crop_HWC.shape[0])


def _decode(encoded):
    """cv2's decoder without its own use of EXIF, which differs between versions."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image_HWC = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error as error:
        raise PhotoError("damaged", f"cannot be decoded ({first_line(error)[:80]})") from None
    if image_HWC is None:
        raise PhotoError("damaged", "cannot be decoded; copy it again")
    return cv2.cvtColor(image_HWC, cv2.COLOR_BGR2RGB)


def _jpeg_header(encoded):
    size = orientation = None
    components = 0
    for marker, start, stop in _jpeg_segments(encoded):
        if marker == 0xDA:  # the image's own data starts here; a thumbnail's lies before
            if encoded.find(JPEG_END, stop) < 0:
                raise PhotoError("damaged", "is cut off: a JPEG without its end; copy it again")
            break
        if marker == 0xE1 and encoded[start : start + 6] == b"Exif\0\0":
            orientation = orientation or _exif_orientation(encoded[start + 6 : stop])
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and stop - start >= 6:
            size, components = struct.unpack_from(">HH", encoded, start + 1), encoded[start + 5]
    else:
        raise PhotoError("damaged", "is cut off: a JPEG without image data; copy it again")
    if size is None:
        raise PhotoError("damaged", "is a JPEG without a size; copy it again")
    return Header(size[0], size[1], components, orientation or 1, False)


def _jpeg_segments(encoded) -> Iterator[Tuple[int, int, int]]:
    """(marker, start, stop of its content) up to the first scan."""
    at = 2
    while at + 4 <= len(encoded) and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:  # markers without content
            at += 2
        else:
            stop = at + 2 + struct.unpack_from(">H", encoded, at + 2)[0]
            yield marker, at + 4, min(stop, len(encoded))
            at = max(stop, at + 4)


def _png_header(encoded):
    if len(encoded) < 33 or encoded[12:16] != b"IHDR" or PNG_END not in encoded:
        raise PhotoError("damaged", "is cut off: a PNG without its end; copy it again")
    width, height, _, colour = struct.unpack_from(">IIBB", encoded, 16)
    animated, orientation = False, 1
    for kind, start, stop in png_chunks(encoded):
        if exceeds_file(encoded, stop) or kind == b"IHDR" and start > len(PNG) + 8:
            raise PhotoError("damaged", "is a PNG with a damaged chunk; copy it again")
        if kind == b"acTL":
            animated = True
        elif kind == b"eXIf":
            orientation = _exif_orientation(encoded[start:stop]) or 1
    return Header(height, width, {2: 3, 6: 4, 4: 2}.get(colour, 1), orientation, animated)


def _exif_orientation(tiff: bytes) -> Optional[int]:
    """1 to 8 from the first directory of an EXIF block, or None."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return None
    (at,) = struct.unpack_from(order + "I", tiff, 4)
    if at + 2 > len(tiff):
        return None
    (entries,) = struct.unpack_from(order + "H", tiff, at)
    for entry in range(at + 2, min(at + 2 + 12 * entries, len(tiff) - 11), 12):
        tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
        if tag == ORIENTATION:
            return value if 1 <= value <= 8 else None
    return None
