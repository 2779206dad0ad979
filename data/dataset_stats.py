"""Statistics of a data set of any kind in one reading: content, damage, and images to look at.

A source yields (identity or None, encoded image, where); a survey counts them.
"""

import collections
import fnmatch
import hashlib
import os
import random
from typing import Any, Callable, List, Tuple, Union

from data.crop_geometry import IMAGES
from data.eval_data_reader import read_pairs
from data.formats.image_headers import image_fault, image_size
from data.formats.image_lists import folder_items
from data.formats.manifest import FILE, PATTERN
from data.formats.recordio import RecordReader, read_property
from data.formats.tfrecord import read_shard

SHOWN_IDENTITIES, SHOWN_EACH = 10, 10


class Survey:
    """Counts of one data set. identities: Counter of images by identity; sizes: by (H, W)."""

    def __init__(self, path: str, decode: bool = False) -> None:
        self.path, self.decode, self.layout = path, decode, []
        self.images, self.identities = 0, collections.Counter()
        self.sizes, self.broken = collections.Counter(), []
        self.shown = {}  # rank of the identity -> its first images
        self.sample: List[bytes] = []  # images of the whole set, each as likely as any other
        self._random = random.Random(0)

    def add(self, identity: Union[int, str], encoded: bytes, where: str) -> None:
        """Counts one image."""
        self.images += 1
        if identity is not None:
            self.identities[identity] += 1
            self._show(identity, encoded)
        fault = image_fault(encoded, self.decode)
        if fault:
            self.broken.append(f"{where} {fault}")
        else:
            self.sizes[image_size(encoded)] += 1
            self._draw(encoded)

    def _draw(self, encoded: bytes) -> None:
        """Reservoir sampling: in a .rec the first images are of a few identities only."""
        if len(self.sample) < IMAGES:
            self.sample.append(encoded)
            return
        place = self._random.randrange(sum(self.sizes.values()))
        if place < IMAGES:
            self.sample[place] = encoded

    def add_broken(self, error: Any) -> None:
        self.broken.append(str(error))

    def _show(self, identity, encoded):
        """Keeps the identities whose names hash lowest: a fair sample that one pass can take."""
        rank = hashlib.md5(str(identity).encode()).hexdigest(), identity
        if rank not in self.shown:
            if len(self.shown) == SHOWN_IDENTITIES:
                worst = max(self.shown, key=lambda other: other[0])
                if rank[0] > worst[0]:
                    return
                del self.shown[worst]
            self.shown[rank] = []
        if len(self.shown[rank]) < SHOWN_EACH:
            self.shown[rank].append((encoded, f"identity {identity}"))

    def rows(self) -> List[List[Tuple[bytes, str]]]:
        """What the contact sheet shows: a row an identity, by its name or number."""
        return [self.shown[rank] for rank in sorted(self.shown, key=lambda rank: rank[1])]


def survey(
    path: str, decode: bool = False, progress: Callable[[Any], Any] = lambda items: items
) -> Survey:
    """A .rec, a .bin, a directory of shards or one, or a folder of identities -> Survey.
    progress: wraps the images as they pass."""
    if not os.path.exists(path):
        raise ValueError(
            f"{path} is not there; name a .rec, a .bin, a directory of shards or a "
            "folder of identities."
        )
    found = Survey(path, decode)
    read = _reader(path)
    for identity, encoded, where in progress(read(path, found)):
        found.add(identity, encoded, where)
    return found


def _reader(path):
    """Which source a path is."""
    name = os.path.basename(path)
    if not os.path.isdir(path):
        for pattern, read in (("*.rec", _records), ("*.bin", _pairs), (PATTERN, _shards)):
            if fnmatch.fnmatch(name, pattern):
                return read
        raise ValueError(
            f"{path} is of no kind that is known here: name a .rec, a .bin, a .tfrecords file, or "
            "a directory."
        )
    names = os.listdir(path)
    if FILE in names or fnmatch.filter(names, PATTERN):
        return _shards
    if "train.rec" in names:
        return lambda path, found: _records(os.path.join(path, "train.rec"), found)
    return _folders


def _records(path, found):
    reader = RecordReader(path)
    ranges, first = 0, None
    with reader:
        for record in reader.records(found.add_broken):
            first = record.key if first is None else first
            if not record.encoded and len(record.labels) > 1:
                ranges += 1
                continue
            yield _label(record.labels[0]), record.encoded, f"{path}: record {record.key}"
    index = reader.idx_path or "no .idx: it can only be read in order"
    found.layout = [f"RecordIO {path}", f"index {index}"]
    found.layout.append(
        f"InsightFace's: {ranges} header and range records besides the images"
        if ranges
        else f"plain: no header record, images from key {first}"
    )
    found.layout.append(_property(path))


def _property(path):
    property_path = os.path.join(os.path.dirname(path), "property")
    if not os.path.exists(property_path):
        return "no property file"
    identities, (height, width) = read_property(property_path)
    return f"property: {identities:,} identities, {height} x {width}"


def _label(label):
    """float32 as the file has it -> int where it is one."""
    return int(label) if label == label and abs(label) < 1 << 62 else None


def _shards(path, found):
    directory = path if os.path.isdir(path) else os.path.dirname(path)
    names = os.listdir(directory) if os.path.isdir(path) else [os.path.basename(path)]
    shards = sorted(fnmatch.filter(names, PATTERN))
    described = f"with {FILE}" if FILE in names else f"no {FILE}"
    found.layout = [f"{len(shards)} TFRecord shards in {directory or '.'}, {described}"]
    for name in shards:
        shard = os.path.join(directory, name)
        try:
            for number, (label, encoded) in enumerate(read_shard(shard)):
                yield label, encoded, f"{shard}: record {number}"
        except ValueError as error:
            found.add_broken(f"{error} The rest of the shard was not read.")


def _folders(path, found):
    items, names = folder_items(path)
    found.layout = [f"folders of identities in {path}"]
    for item in items:
        with open(item.path, "rb") as stream:
            yield names[item.label], stream.read(), item.path


def _pairs(path, found):
    encoded, issame_P = read_pairs(path)
    found.layout = [
        f"verification set {path}",
        f"{len(issame_P)} pairs: {int(issame_P.sum())} same, {int((~issame_P).sum())} different",
    ]
    found.rows = lambda: _pair_rows(encoded, issame_P)
    for number, image in enumerate(encoded):
        yield None, image, f"{path}: image {number}"


def _pair_rows(encoded, issame_P, pairs_a_row=5, count=50):
    """Evenly spaced pairs, side by side."""
    shown = [i * len(issame_P) // count for i in range(count)] if len(issame_P) > count else None
    shown = shown or range(len(issame_P))
    words = [f"pair {i} {'same' if issame_P[i] else 'different'}" for i in shown]
    tiles = [
        tile
        for i, word in zip(shown, words)
        for tile in ((encoded[2 * i], word), (encoded[2 * i + 1], ""))
    ]
    wide = 2 * pairs_a_row
    return [tiles[i : i + wide] for i in range(0, len(tiles), wide)]
