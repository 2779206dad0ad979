"""The scores of a set's pairs as a file, from which reports are drawn without the network.

P pairs, N = 2 P images. The file is an .npz of numbers (images as bytes): reading it unpickles
nothing.
"""

import json
import zipfile
from typing import Any, Dict, NamedTuple, Optional, Tuple

import numpy as np

from runtime.files import write_npz


class SavedPairs(NamedTuple):
    """The content of a file of scores."""

    row: Dict[str, Any]  # the set's metrics, as in metrics.jsonl
    distances_P: np.ndarray  # float64, squared, of unit embeddings
    issame_P: np.ndarray  # bool
    hardest: Dict[int, Tuple[bytes, bytes]]  # pair -> its two encoded images
    norms_N: Optional[np.ndarray] = None  # of the embeddings; None in files of earlier versions
    identity_N: Optional[np.ndarray] = None  # int, as far as the pairs imply it


def save(path: str, pairs: SavedPairs) -> None:
    """Writes SavedPairs."""
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
    for name, values in (("norms", pairs.norms_N), ("identities", pairs.identity_N)):
        if values is not None:
            arrays[name] = values
    write_npz(path, arrays)


def load(path: str) -> Optional[SavedPairs]:
    """SavedPairs of a file, or None where it is missing or damaged."""
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
                arrays["norms"].astype(np.float64) if "norms" in arrays else None,
                arrays["identities"].astype(np.int64) if "identities" in arrays else None,
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
