"""Where images come from: a directory, a list, an .npy, a .bin set or TFRecord shards.

N images of a source, B images of a batch, H W pixels. Reading and decoding are separate, so that
decoding can run in threads ahead of the network.
"""

import itertools
import os
import zlib
from typing import Any, Callable, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np

from data.eval_data_reader import decode_images, read_pairs
from data.formats.image_headers import decoded
from data.formats.image_lists import list_items
from data.formats.manifest import read_manifest
from data.formats.tfrecord import read_shard
from runtime.files import read_npy

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
SHARD = ".tfrecords"


class Item(NamedTuple):
    """One image before it is decoded."""

    name: str  # "" for a row of an .npy
    content: Any  # what the source's decode takes: a path, bytes or an array


class Source(NamedTuple):
    """A sequence of images; `items(start)` iterates from any position."""

    images: int  # how many there are
    items: Callable[[int], Iterator[Item]]  # start -> the items from there on
    decode: Callable[[Any], np.ndarray]  # content -> uint8 RGB [H, W, 3]; ValueError: unreadable
    identity: str  # equal for equal sources; a resumed run compares it
    named: bool  # whether the items have names
    ignored: Tuple[str, ...] = ()  # files of a directory that are no images


class Batch(NamedTuple):
    """Decoded images of consecutive items."""

    images_BHWC: np.ndarray  # uint8 RGB, without the unreadable ones
    names: List[str]  # of these images
    all_names: List[str]  # of these and of the unreadable ones
    rows: List[int]  # their positions in the batch
    size: int  # items in the batch, with the unreadable ones
    failed: List[Tuple[str, str]]  # (name, reason) of the unreadable ones


def open_source(
    path: str, image_size: Tuple[int, int], recursive: bool = False, ignore_others: bool = False
) -> Source:
    """The images at `path`. ignore_others: files that are no images are not a mistake."""
    if os.path.isdir(path):
        names = os.listdir(path)
        if "dataset.json" in names or any(SHARD in name for name in names):
            return _shards(path, image_size)
        return _directory(path, image_size, recursive, ignore_others)
    with open(path, "rb"):  # a missing file is reported as the system reports it
        pass
    ending = os.path.splitext(path)[1].lower()
    if ending == ".npy":
        return _array(path, image_size)
    if ending == ".bin":
        return _pairs(path, image_size)
    if ending in (".txt", ".lst"):
        return _list(path, image_size)
    if SHARD in os.path.basename(path):
        return _shards(path, image_size)
    raise ValueError(
        f"--images {path} is neither a directory nor an .npy, .bin, .txt, .lst or .tfrecords file."
    )


def decode_batch(items: Sequence[Item], source: Source, image_size: Tuple[int, int]) -> Batch:
    """Decodes consecutive items; each unreadable one is in `failed` with its reason."""
    images, names, rows, failed = [], [], [], []
    for row, item in enumerate(items):
        try:
            images.append(source.decode(item.content))
        except (ValueError, OSError) as error:
            failed.append((item.name, _reason(error)))
            continue
        names.append(item.name)
        rows.append(row)
    shape = (0,) + tuple(image_size) + (3,)
    images_BHWC = np.stack(images) if images else np.empty(shape, np.uint8)
    return Batch(images_BHWC, names, [item.name for item in items], rows, len(items), failed)


def grouped(items: Iterator[Item], size: int) -> Iterator[List[Item]]:
    """Lists of `size` items; the last may be shorter."""
    while True:
        group = list(itertools.islice(items, size))
        if not group:
            return
        yield group


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return str(error)


def _directory(
    path: str, image_size: Tuple[int, int], recursive: bool, ignore_others: bool
) -> Source:
    names: List[str] = []
    others: List[str] = []
    for folder, folders, files in os.walk(path):
        relative = os.path.relpath(folder, path)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if folders and not recursive:
            if not ignore_others:
                raise ValueError(
                    f"{os.path.join(folder, folders[0])} is a directory; pass --recursive to embed "
                    "the images inside it too."
                )
            folders[:] = []
        for name in files:
            is_image = name.lower().endswith(IMAGE_ENDINGS)
            (names if is_image else others).append(os.path.normpath(os.path.join(relative, name)))
    if others and not ignore_others:
        first = min(others)
        raise ValueError(
            f"{os.path.join(path, first)} is not an image ({', '.join(IMAGE_ENDINGS)}); move it "
            "out of --images, or pass --on_error skip."
        )
    if not names:
        raise ValueError(f"--images {path} is empty; put aligned images there.")
    return _files(path, sorted(names), image_size)._replace(ignored=tuple(sorted(others)))


def _list(path: str, image_size: Tuple[int, int]) -> Source:
    root = os.path.dirname(path)
    if path.lower().endswith(".lst"):
        names = [os.path.relpath(item.path, root or ".") for item in list_items(path, root)]
    else:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            names = [line.strip() for line in stream if line.strip()]
    if not names:
        raise ValueError(f"{path} lists no image; write one path a line.")
    return _files(root, names, image_size)


def _files(root: str, names: List[str], image_size: Tuple[int, int]) -> Source:
    def items(start: int) -> Iterator[Item]:
        return (
            Item(name, os.path.join(root, name)) for name in itertools.islice(names, start, None)
        )

    def decode(path: str) -> np.ndarray:
        with open(path, "rb") as stream:
            content = stream.read()
        return _decoded(content, path, image_size)

    digest = 0
    for name in names:
        digest = zlib.crc32(os.fsencode(name) + b"\n", digest)
    identity = f"{os.path.abspath(root)} {len(names)} {digest:08x}"
    return Source(len(names), items, decode, identity, named=True)


def _decoded(content: bytes, where: str, image_size: Tuple[int, int]) -> np.ndarray:
    image_HWC = decoded(content) if content else None
    if image_HWC is None:
        raise ValueError(f"{where} cannot be decoded as an image; remove or replace it.")
    if image_HWC.shape[:2] != tuple(image_size):
        raise ValueError(
            f"{where} is {image_HWC.shape[0]}x{image_HWC.shape[1]} pixels (height x width), but "
            f"the net takes {image_size[0]}x{image_size[1]}; align or resize it first."
        )
    return image_HWC[:, :, ::-1]


def _array(path: str, image_size: Tuple[int, int]) -> Source:
    images_NHWC = read_npy(path, mapped=True)
    wanted = f"uint8 RGB [N, {image_size[0]}, {image_size[1]}, 3]"
    if images_NHWC.dtype != np.uint8 or images_NHWC.shape[1:] != tuple(image_size) + (3,):
        shape = ", ".join(map(str, images_NHWC.shape))
        raise ValueError(
            f"{path} holds {images_NHWC.dtype} [{shape}], but the net takes {wanted}; convert it."
        )
    if not len(images_NHWC):
        raise ValueError(f"{path} holds no images.")

    def items(start: int) -> Iterator[Item]:
        return (Item("", images_NHWC[row]) for row in range(start, len(images_NHWC)))

    return Source(len(images_NHWC), items, np.asarray, file_identity(path), named=False)


def _pairs(path: str, image_size: Tuple[int, int]) -> Source:
    encoded, _ = read_pairs(path)

    def items(start: int) -> Iterator[Item]:
        return (Item(f"{row}", (row, encoded[row])) for row in range(start, len(encoded)))

    def decode(content: Tuple[int, bytes]) -> np.ndarray:
        row, image = content
        return decode_images([image], image_size, f"{path}: image", row)[0]

    return Source(len(encoded), items, decode, file_identity(path), named=True)


def _shards(path: str, image_size: Tuple[int, int]) -> Source:
    manifest = read_manifest(path)
    directory = path if os.path.isdir(path) else os.path.dirname(path)
    raw_bytes = image_size[0] * image_size[1] * 3

    def items(start: int) -> Iterator[Item]:
        before = 0
        for shard, images in manifest.shards:
            if before + images > start:
                records = read_shard(os.path.join(directory, shard))
                for number, (label, image) in enumerate(records):
                    if before + number >= start:
                        name = f"{label}/{shard}#{number}"
                        yield Item(name, (name, image))
            before += images

    def decode(content: Tuple[str, bytes]) -> np.ndarray:
        name, image = content
        if len(image) == raw_bytes and decoded(image) is None:  # the original's shards: BGR pixels
            return np.frombuffer(image, np.uint8).reshape(tuple(image_size) + (3,))[:, :, ::-1]
        return _decoded(image, f"{path}: record {name}", image_size)

    identity = f"{os.path.abspath(path)} {manifest.images} {manifest.checksum}"
    return Source(manifest.images, items, decode, identity, named=True)


def file_identity(path: str) -> str:
    """Equal while a file is not written again: its path, size and time of change."""
    status = os.stat(path)
    return f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}"
