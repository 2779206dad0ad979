"""dataset.json: a data set says how many images and identities it has, in which shards, from where.

Nobody types --num_output: it is read here. Shards without a dataset.json (the original's
`tran.tfrecords`) are counted once, and the count is kept in their directory where that is writable.
"""

import contextlib
import dataclasses
import fnmatch
import io
import json
import logging
import os
from typing import Any, Dict, Optional, Tuple

from data.formats.tfrecord import count_shard
from runtime.files import atomic_write, first_line

FILE = "dataset.json"
COUNT = "counted.json"  # the count of shards that have no dataset.json
UNFINISHED = "conversion.json"  # lies in a directory that a conversion is still writing
PATTERN = "*.tfrecords*"
FORMAT = 1
MAX_BYTES = 1 << 28  # of dataset.json; 10^7 renumbered labels take 80 MB
MAX_COUNT = 1 << 40  # of images, identities and bytes of a shard


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a directory of shards holds. `shards` are (file name, images) in writing order."""

    images: int
    identities: int  # labels are 0 ... identities - 1
    shards: Tuple[Tuple[str, int], ...]
    shard_bytes: Tuple[int, ...] = ()
    image_size: Optional[Tuple[int, int]] = None  # height, width; None: not looked at
    seed: Optional[int] = None  # of the global shuffle; None: in the order of the source
    source: str = ""  # the file's name, without its directory
    checksum: str = ""  # of all (label, image) in any order; empty: only counted
    skipped: int = 0
    skipped_records: Tuple[str, ...] = ()  # one sentence each
    empty_identities: int = 0  # labels below `identities` that no image has
    remapped_labels: Tuple[int, ...] = ()  # the source's label of each identity, if renumbered
    conversion: Optional[dict] = None  # what the conversion depends on, to know it again

    @property
    def identity(self) -> Dict[str, Any]:
        """What a run records of its data: the same wherever the files lie."""
        return {
            "images": self.images,
            "identities": self.identities,
            "source": self.source,
            "checksum": self.checksum,
        }


class LocalFiles:
    """What reading a manifest needs of tf.io.gfile, for local paths."""

    GFile = staticmethod(io.open)
    exists = staticmethod(os.path.exists)
    isdir = staticmethod(os.path.isdir)
    listdir = staticmethod(os.listdir)


def read_manifest(path: str, files: Any = LocalFiles) -> Manifest:
    """A directory of shards, or one TFRecord file -> Manifest.

    files: tf.io.gfile for paths such as gs://; only local shards have their sizes checked."""
    if not files.exists(path):
        raise ValueError(
            f"{path} is not there; write it with data/mx2tfrecords.py or data/image_folder.py."
        )
    if not files.isdir(path):
        directory, name = os.path.split(path)
        return _counted(directory, [name], files)
    listed = sorted(files.listdir(path))
    if UNFINISHED in listed:
        raise ValueError(f"{path} is an unfinished conversion; run the same conversion again.")
    if FILE in listed:
        return _read(path, files)
    shards = [name for name in listed if fnmatch.fnmatch(name, PATTERN)]
    if not shards:
        raise ValueError(
            f"{path} has neither {FILE} nor files named {PATTERN}; write shards into it with "
            "data/mx2tfrecords.py or data/image_folder.py."
        )
    return _counted(path, shards, files)


def write_manifest(directory: str, manifest: Manifest, name: str = FILE) -> None:
    """Writes dataset.json, whole or not at all, also if another process does so at this moment."""
    content = dict(format=FORMAT, **dataclasses.asdict(manifest))
    content["shards"] = [{"name": name, "images": count} for name, count in manifest.shards]
    with atomic_write(os.path.join(directory, name), durable=True) as stream:
        json.dump(content, stream, indent=1)
        stream.write("\n")


def _read(directory, files):
    path = os.path.join(directory, FILE)
    try:
        with files.GFile(path, "r") as stream:
            manifest = _parse(json.loads(_limited(stream)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} does not describe a data set ({type(error).__name__}: {first_line(error)}); "
            "convert the data again, or delete the file to have the shards counted."
        ) from None
    _check(directory, manifest, files)
    return manifest


def _limited(stream: Any) -> str:
    """The text of a stream, unless it is larger than a manifest can be."""
    text = stream.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    return text


def _parse(content: Any) -> Manifest:
    if content.pop("format") != FORMAT:
        raise ValueError("its format is of another version")
    shards = tuple(
        (_name(shard["name"]), _count(shard["images"], "images of a shard"))
        for shard in content.pop("shards")
    )
    content["images"] = _count(content["images"], "images", 1)
    content["identities"] = _count(content["identities"], "identities", 1)
    for name in {"skipped", "empty_identities"} & set(content):
        content[name] = _count(content[name], name)
    for name in ("shard_bytes", "remapped_labels"):
        content[name] = tuple(_count(value, name) for value in content[name])
    content["skipped_records"] = tuple(map(str, content["skipped_records"]))
    if content["image_size"] is not None:
        content["image_size"] = tuple(
            _count(side, "image_size", 1) for side in content["image_size"]
        )
        if len(content["image_size"]) != 2:
            raise ValueError("image_size is not a height and a width")
    for name in {"source", "checksum"} & set(content):
        if not isinstance(content[name], str):
            raise ValueError(f"{name} is not text")
    manifest = Manifest(shards=shards, **content)
    if manifest.images != sum(count for _, count in shards):
        raise ValueError(f"{manifest.images} images, but the shards' counts do not add up to it")
    if manifest.shard_bytes and len(manifest.shard_bytes) != len(shards):
        raise ValueError("shard_bytes has not one number for each shard")
    return manifest


def _count(value: Any, name: str, low: int = 0) -> int:
    if type(value) is not int or not low <= value <= MAX_COUNT:
        shown = (
            repr(value)[:40] if not isinstance(value, int) or value.bit_length() < 99 else "huge"
        )
        raise ValueError(f"{name} is {shown}, not a whole number from {low} to {MAX_COUNT}")
    return value


def _name(value: Any) -> str:
    """A shard's file name, which is never a path."""
    if type(value) is not str or value in ("", ".", "..") or set(value) & set("/\\\0"):
        raise ValueError(f"the shard name {str(value)[:60]!r} is not a plain file name")
    return value


def _check(directory, manifest, files):
    """Each shard is there, as long as it was written."""
    sizes = manifest.shard_bytes or (None,) * len(manifest.shards)
    for (name, _), size in zip(manifest.shards, sizes):
        path = os.path.join(directory, name)
        if not files.exists(path):
            raise ValueError(f"{path} is missing, but {FILE} lists it; copy or convert it again.")
        if files is LocalFiles and size is not None and os.path.getsize(path) != size:
            raise ValueError(
                f"{path} has {os.path.getsize(path)} bytes, but {FILE} says {size}; copy or "
                "convert it again."
            )


def _counted(directory, names, files):
    """The manifest of shards that nobody described."""
    if files is not LocalFiles and "://" in directory:
        raise ValueError(
            f"{directory} has no {FILE}, and only local shards can be counted; copy the {FILE} of "
            "the conversion into their directory."
        )
    directory = directory or "."
    sizes = tuple(os.path.getsize(os.path.join(directory, name)) for name in names)
    kept = _kept_count(directory, tuple(names), sizes)
    if kept is not None:
        return kept
    logging.info("%s has no %s: counting its images once.", directory, FILE)
    counts = [count_shard(os.path.join(directory, name)) for name in names]
    manifest = Manifest(
        images=sum(count.images for count in counts),
        identities=1 + max(count.largest_label for count in counts),
        shards=tuple((name, count.images) for name, count in zip(names, counts)),
        shard_bytes=sizes,
        source=names[0] if len(names) == 1 else os.path.basename(os.path.abspath(directory)),
    )
    with contextlib.suppress(OSError):  # where it may not be written, it is counted again
        write_manifest(directory, manifest, COUNT)
    return manifest


def _kept_count(directory, names, sizes):
    """An earlier count of exactly these files, or None."""
    path = os.path.join(directory, COUNT)
    if not os.path.exists(path):
        return None
    try:
        with open(path, encoding="utf-8") as stream:
            kept = _parse(json.loads(_limited(stream)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    same = tuple(name for name, _ in kept.shards) == names and kept.shard_bytes == sizes
    return kept if same else None
