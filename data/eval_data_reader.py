"""Verification sets as InsightFace packs them (lfw.bin, ...): encoded images, same or different.

P pairs; images 2i and 2i+1 are pair i. N images decoded, H W pixels, RGB. No TensorFlow, and
nothing in a file is ever executed (see safe_pickle).
"""

import pickle
from typing import Any, List, Sequence, Tuple

import cv2
import numpy as np

from data.formats import safe_pickle
from data.formats.image_headers import decoded, size_fault
from data.formats.safe_pickle import PickledArray
from runtime.files import atomic_write


def read_pairs(path: str) -> Tuple[List[bytes], np.ndarray]:
    """A .bin file -> (list of 2 P encoded images as bytes, issame as bool [P]).
    The images stay encoded: an LFW of 12,000 JPEGs is 100 MB so and 450 MB as pixels."""
    content = safe_pickle.load(path)
    if type(content) not in (list, tuple) or len(content) != 2:
        raise ValueError(
            f"{path} holds {_kind(content)}, but an evaluation set is a pair: images, issame."
        )
    images, issame = content
    if type(images) not in (list, tuple) or not images:
        raise ValueError(f"{path}: its images are {_kind(images)}, but must be a list of images.")
    encoded = [_image_bytes(image, path, number) for number, image in enumerate(images)]
    issame_P = _flags(issame, path)
    if len(encoded) != 2 * len(issame_P):
        raise ValueError(
            f"{path}: {len(encoded)} images for {len(issame_P)} pairs; a set has two images a "
            "pair, so the file is damaged or was packed wrongly."
        )
    return encoded, issame_P


def write_pairs(path: str, encoded: Sequence[bytes], issame: Sequence[Any]) -> None:
    """Encoded images (bytes, 2 P of them) and issame [P] -> a .bin that the peers read too.
    Protocol 3 and plain bytes, as InsightFace's packer writes; whole or not at all."""
    encoded, issame = [bytes(image) for image in encoded], [bool(same) for same in issame]
    if len(encoded) != 2 * len(issame):
        raise ValueError(
            f"{path}: {len(encoded)} images for {len(issame)} pairs; pass two images a pair."
        )
    with atomic_write(path, "wb") as stream:
        pickle.dump((encoded, issame), stream, protocol=3)


def decode_images(
    encoded: Sequence[bytes], image_size: Sequence[int], where: str = "image", first: int = 0
) -> np.ndarray:
    """Encoded images -> uint8 [N, H, W, 3] RGB in [0, 255]; image_size is (H, W).
    Another size is brought to H x W by its short side and cut in the middle, as InsightFace does.
    `where` and `first` name the image that does not decode."""
    height, width = image_size
    images_NHWC = np.empty((len(encoded), height, width, 3), np.uint8)
    for i, data in enumerate(encoded):
        image = decoded(data) if data else None
        if image is None:
            fault = size_fault(data)
            detail = f"{len(data)} bytes" + (f"; it {fault}" if fault else "")
            raise ValueError(
                f"{where} {first + i} is no image that can be decoded ({detail}); remove it from "
                "the set or pack the set again."
            )
        if image.shape[:2] != (height, width):
            image = _fit(image, height, width)
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=images_NHWC[i])
    return images_NHWC


def _fit(image, height, width):
    """Short side to the target, then the middle of it."""
    scale = max(height / image.shape[0], width / image.shape[1])
    high = max(height, int(round(image.shape[0] * scale)))
    wide = max(width, int(round(image.shape[1] * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image = cv2.resize(image, (wide, high), interpolation=method)
    top, left = (high - height) // 2, (wide - width) // 2
    return image[top : top + height, left : left + width]


def _image_bytes(image, path, number):
    """bytes, or an array of uint8 [n] or [n, 1] -> bytes, without a copy."""
    if type(image) is PickledArray:
        fault = image.fault()
        if fault:
            raise ValueError(f"{path}: image {number} is an array {fault}; the file is damaged.")
        if image.dtype.name != "u1" or max(image.shape, default=0) != image.size():
            raise ValueError(
                f"{path}: image {number} is an array of {image.dtype.name} {image.shape}; encoded "
                "images are uint8 of shape (n,) or (n, 1), so pack the JPEG bytes, not the pixels."
            )
        image = image.data
    if type(image) is not bytes:
        raise ValueError(f"{path}: image {number} is {_kind(image)}, but must be encoded bytes.")
    if not image:
        raise ValueError(f"{path}: image {number} is empty; pack the set again.")
    return image


def _flags(issame, path):
    """bools, ints 0 and 1, NumPy scalars of them, or one array -> bool [P]."""
    if type(issame) is PickledArray:
        if issame.fault():
            raise ValueError(f"{path}: issame is an array {issame.fault()}; the file is damaged.")
        values = issame.to_numpy().ravel()
    elif type(issame) in (list, tuple):
        values = [_flag(value, path, pair) for pair, value in enumerate(issame)]
    else:
        raise ValueError(f"{path}: issame is {_kind(issame)}, but must be a list or an array.")
    values = np.asarray(values)
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if wrong.size:
        raise ValueError(
            f"{path}: issame of pair {wrong[0]} is {values[wrong[0]]}, but must be true or false."
        )
    return values.astype(bool)


def _flag(value, path, pair):
    if type(value) is PickledArray and not value.fault() and value.size() == 1:
        value = value.to_numpy().ravel()[0]
    elif type(value) not in (bool, int, float):
        raise ValueError(
            f"{path}: issame of pair {pair} is {_kind(value)}, but must be true or false."
        )
    return value if value in (0, 1) else float("nan")


def _kind(value):
    """What a value is, for a message; never its contents, which may be endless."""
    names = {list: "a list", tuple: "a tuple", bytes: "bytes", str: "text", type(None): "nothing"}
    if type(value) in (list, tuple):
        return f"{names[type(value)]} of {len(value)}"
    if type(value) is PickledArray:
        return "an array"
    return names.get(type(value), f"a {type(value).__name__.lower().strip('_')}")
