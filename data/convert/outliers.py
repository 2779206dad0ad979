"""Which images of a data set are far from what their identity looks like, and the set without them.

N images, K identities, S centres of an identity, D embedding. NumPy alone: what a network thinks of
the images is worked out by tools/clean_with_subcenters.py.
"""

import dataclasses
import os
from typing import Any, Dict

import numpy as np

from data.formats.manifest import Manifest, write_manifest
from data.formats.tfrecord import read_shard, write_frames

BATCH = 1 << 10  # images in one write


def centre_cosines(
    embedded_ND: np.ndarray, label_N: np.ndarray, centres_KSD: np.ndarray
) -> np.ndarray:
    """Cosines of images and the centres of their own identities: float32 [N, S]."""
    embedded_ND = embedded_ND / np.maximum(np.linalg.norm(embedded_ND, axis=1), 1e-12)[:, None]
    own_NSD = centres_KSD[label_N]
    own_NSD = own_NSD / np.maximum(np.linalg.norm(own_NSD, axis=2), 1e-12)[:, :, None]
    return np.einsum("nd,nsd->ns", embedded_ND, own_NSD).astype(np.float32)


def dominant_centres(cosine_NS: np.ndarray, label_N: np.ndarray, identities: int) -> np.ndarray:
    """The centre that most images of each identity are nearest to: int64 [K]; of two that have as
    many, the first."""
    counts_KS = np.zeros((identities, cosine_NS.shape[1]), np.int64)
    np.add.at(counts_KS, (label_N, cosine_NS.argmax(axis=1)), 1)
    return counts_KS.argmax(axis=1)


def near_dominant(
    cosine_NS: np.ndarray, label_N: np.ndarray, identities: int, degrees: float
) -> np.ndarray:
    """Whether each image is within `degrees` of its identity's dominant centre: bool [N]."""
    dominant_N = dominant_centres(cosine_NS, label_N, identities)[label_N]
    cosine_N = cosine_NS[np.arange(len(label_N)), dominant_N]
    return cosine_N >= np.cos(np.radians(degrees))


def write_kept(
    directory: str, manifest: Manifest, kept_N: np.ndarray, work_path: str, known: Dict[str, Any]
) -> Manifest:
    """Copies the shards of `directory` without the images that kept_N (in the order of the shards)
    omits, and writes their dataset.json; labels stay as they are. Returns its Manifest."""
    shards, sizes, checksum, seen, start = [], [], 0, set(), 0
    for name, count in manifest.shards:
        kept = kept_N[start : start + count]
        start += count
        if not kept.any():
            continue
        size, mixed, labels = _copy(
            os.path.join(directory, name), kept, os.path.join(work_path, name)
        )
        shards.append((name, int(kept.sum())))
        sizes.append(size)
        checksum, seen = (checksum + mixed) % (1 << 64), seen | labels
    cleaned = dataclasses.replace(
        manifest,
        images=int(kept_N.sum()),
        shards=tuple(shards),
        shard_bytes=tuple(sizes),
        checksum=f"{checksum:016x}",
        empty_identities=manifest.identities - len(seen),
        conversion=known,
    )
    write_manifest(work_path, cleaned)
    return cleaned


def _copy(source, kept, target):
    """One shard's records where `kept`: (bytes, checksum, the labels among them)."""
    size = checksum = 0
    seen, waiting = set(), []
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for keep, record in zip(kept, read_shard(source)):
            waiting += [record] if keep else []
            if len(waiting) == BATCH:
                size, checksum = _flush(descriptor, waiting, seen, size, checksum)
        size, checksum = _flush(descriptor, waiting, seen, size, checksum)
    finally:
        os.close(descriptor)
    return size, checksum, seen


def _flush(descriptor, waiting, seen, size, checksum):
    """Writes the records that wait, and empties the list."""
    labels = np.array([label for label, _ in waiting], np.int64)
    stops = np.cumsum([len(encoded) for _, encoded in waiting], dtype=np.int64)
    data = np.frombuffer(b"".join(encoded for _, encoded in waiting), np.uint8)
    starts = np.concatenate([[0], stops[:-1]]).astype(np.int64) if len(stops) else stops
    written, mixed = write_frames(descriptor, data, labels, starts, stops)
    seen.update(labels.tolist())
    del waiting[:]
    return size + written, (checksum + mixed) % (1 << 64)
