"""Finds identities of a test set that are in the training set, and the accuracy without them.

The embeddings of each identity of the .bin are compared with the class centres of the checkpoint.

python -m tools.find_overlap --ckpt_file output/run/ckpt/InsightFace_iter_20000.ckpt \\
    --eval_db_path datasets/faces --names datasets/faces/identities.txt --output_path overlap
"""

import csv
import dataclasses
import os
import sys
from typing import List, Optional, Sequence, Tuple

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

import verification  # noqa: E402
from checkpoint.format import find_checkpoint, read_record  # noqa: E402
from checkpoint.reader import variable_arrays  # noqa: E402
from evaluation.overlap import (  # noqa: E402
    Overlap,
    Without,
    accuracy_without,
    find_overlaps,
    identity_means,
)
from evaluation.verification_set import VerificationSet, find_sets  # noqa: E402
from inference.backends.checkpoint import CheckpointEmbedder  # noqa: E402
from runtime.cli import run  # noqa: E402
from runtime.files import atomic_write  # noqa: E402
from runtime.flags import DEVICES, flag, parse_flags  # noqa: E402

CENTRES = "class_centres"


@dataclasses.dataclass(frozen=True)
class OverlapConfig:
    """Flags of tools/find_overlap.py."""

    ckpt_file: str = flag(dataclasses.MISSING, "checkpoint with its class centres", "files")
    eval_db_path: str = flag(dataclasses.MISSING, "directory of the .bin sets", "files")
    eval_datasets: Tuple[str, ...] = flag((), "names of the sets (default: all)", "files")
    names: Optional[str] = flag(
        None, "file of the training identities' names, a line per label (identities.txt)", "files"
    )
    output_path: str = flag(
        "overlap", "directory to write <set>_overlap.csv to, one line per identity", "files"
    )
    cosine: Optional[float] = flag(
        None,
        "flag identities at least this near to a class (default: from the gaps between classes)",
        above=-1.0,
        below=1.0,
    )
    folds: int = flag(10, "contiguous folds of the accuracy", low=1)
    device: str = flag("cpu", "where the network runs:", choices=DEVICES)
    batch_size: int = flag(64, "images per batch", low=1)


def main(argv: Optional[List[str]] = None) -> None:
    config = parse_flags(OverlapConfig, argv, __doc__)
    paths = find_sets(config.eval_db_path, config.eval_datasets or None)
    prefix = find_checkpoint(config.ckpt_file)
    centres_KSD = read_centres(prefix)
    names = read_names(config.names, len(centres_KSD)) if config.names else None
    os.makedirs(config.output_path, exist_ok=True)
    with CheckpointEmbedder(prefix, config.device, config.batch_size) as embedder:
        for name, path in paths.items():
            pairs = VerificationSet.open(path, config.folds)
            with tqdm(total=len(pairs.images), unit="image", disable=None, leave=False) as bar:
                plain_ND, mirrored_ND = pairs.embed(embedder, bar.update)
            means_ID = identity_means(plain_ND + mirrored_ND, pairs.identity_N)
            found = find_overlaps(means_ID, centres_KSD, pairs.identity_N, config.cosine)
            distances_P = verification.pair_distances(plain_ND, mirrored_ND)
            without = accuracy_without(
                distances_P, pairs.issame_P, pairs.identity_N, found, config.folds
            )
            listed = os.path.join(config.output_path, f"{name}_overlap.csv")
            write_list(listed, found, names)
            print("\n".join(describe(name, listed, len(means_ID), found, without)))


def read_centres(prefix: str) -> np.ndarray:
    """A checkpoint's class centres as [K, S, D]; K from its record, S sub-centres."""
    centres_MD = variable_arrays(prefix, [CENTRES])[CENTRES]
    identities = read_record(prefix).get("dataset", {}).get("identities", len(centres_MD))
    if not isinstance(identities, int) or identities < 1 or len(centres_MD) % identities:
        identities = len(centres_MD)  # --num_output may be larger than the data set
    return centres_MD.reshape(identities, -1, centres_MD.shape[1])


def read_names(path: str, classes: int) -> List[str]:
    """The names of the training identities by label."""
    with open(path, encoding="utf-8") as stream:
        names = stream.read().splitlines()
    if len(names) > classes:
        raise ValueError(
            f"{path} has {len(names)} names for {classes} classes; pass the identities.txt of the "
            "training set."
        )
    return names


def write_list(path: str, found: Sequence[Overlap], names: Optional[Sequence[str]]) -> None:
    """One line per overlapping identity. `image` is its first entry in the .bin."""
    with atomic_write(path, newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["identity", "image", "label", "name", "cosine", "gap"])
        for one in found:
            name = names[one.label] if names and one.label < len(names) else ""
            numbers = [f"{one.cosine:.4f}", f"{one.gap:.4f}"]
            writer.writerow([one.identity, one.image, one.label, name, *numbers])


def describe(
    name: str, listed: str, identities: int, found: Sequence[Overlap], without: Without
) -> List[str]:
    """The answer as text."""
    lines = [
        f"{name}: {len(found):,} of {identities:,} identities are in the training set ({listed})"
    ]
    accuracy = f"{without.accuracy:.5f} +- {without.accuracy_std:.5f}"
    if not found:
        return lines + [f"  Accuracy-Flip {accuracy}"]
    if without.accuracy_without is None:
        rest = "too few pairs are left for an accuracy"
    else:
        rest = f"{without.accuracy_without:.5f} +- {without.accuracy_without_std:.5f}"
    return lines + [
        f"  Accuracy-Flip {accuracy}; without these identities ({without.removed:,} of "
        f"{without.pairs:,} pairs): {rest}"
    ]


if __name__ == "__main__":
    run(main)
