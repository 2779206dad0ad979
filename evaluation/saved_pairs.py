"""The scores of a set's pairs as a file, from which reports are drawn without the net.

P pairs. The file is an .npz of numbers alone (images as bytes): reading it unpickles nothing.
"""

import dataclasses
import json
import os
import zipfile
from typing import Dict, Tuple

import numpy as np


@dataclasses.dataclass(frozen=True)
class SavedPairs:
    """row: the set's numbers, as in metrics.jsonl. distances_P: squared, of unit embeddings.
    hardest: pair -> its two encoded images."""

    row: dict
    distances_P: np.ndarray  # noqa: N815
    issame_P: np.ndarray  # noqa: N815
    hardest: Dict[int, Tuple[bytes, bytes]]


def save(path, pairs):
    """Writes SavedPairs, whole or not at all."""
    order = sorted(pairs.hardest)
    images = [image for pair in order for image in pairs.hardest[pair]]
    arrays = {
        "row": np.frombuffer(json.dumps(pairs.row).encode(), np.uint8),
        "distances": pairs.distances_P,
        "issame": pairs.issame_P,
        "hardest": np.array(order, np.int64),
        "image_ends": np.cumsum([len(image) for image in images], dtype=np.int64),
        "images": np.frombuffer(b"".join(images), np.uint8),
    }
    with open(f"{path}.tmp", "wb") as stream:
        np.savez(stream, **arrays)
    os.replace(f"{path}.tmp", path)


def load(path):
    """SavedPairs of a file, or None where it is missing or no such file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ends = [0] + arrays["image_ends"].tolist()
            blob = arrays["images"].tobytes()
            images = [blob[start:end] for start, end in zip(ends, ends[1:])]
            return SavedPairs(
                json.loads(arrays["row"].tobytes().decode()),
                arrays["distances"].astype(np.float64),
                arrays["issame"].astype(bool),
                dict(zip(arrays["hardest"].tolist(), zip(images[0::2], images[1::2]))),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
