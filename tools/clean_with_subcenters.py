"""A data set without the images that a network with sub-centres finds to be mislabelled.

Train with --sub_centers 3 on the noisy set: an identity's clean images gather at one of its
centres, the dominant one, and what does not belong at the others. Images farther than --angle from
the dominant centre are left out (Sub-center ArcFace, ECCV 2020, section 3.3: 75 degrees). Labels
stay as they are; train on the result with --sub_centers 1.

python tools/clean_with_subcenters.py --ckpt_file output/run/ckpt/InsightFace_iter_20000.ckpt \\
    --tfrecords_file_path tfrecords/faces --output_path tfrecords/faces_clean

The computation is in data/convert/outliers.py.
"""

import dataclasses
import os
import sys
from typing import Any, List, Optional, Tuple

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from checkpoint.format import find_checkpoints  # noqa: E402
from checkpoint.reader import variable_arrays  # noqa: E402
from data.convert.atomic_directory import is_done, work_directory  # noqa: E402
from data.convert.outliers import centre_cosines, near_dominant, write_kept  # noqa: E402
from data.formats.manifest import Manifest, read_manifest  # noqa: E402
from data.formats.tfrecord import read_shard  # noqa: E402
from inference.backends.checkpoint import CheckpointEmbedder  # noqa: E402
from runtime.cli import run  # noqa: E402
from runtime.flags import DEVICES, flag, parse_flags  # noqa: E402

CENTRES = "class_centres"


@dataclasses.dataclass(frozen=True)
class CleanConfig:
    """Flags of tools/clean_with_subcenters.py."""

    ckpt_file: str = flag(
        dataclasses.MISSING, "checkpoint trained with --sub_centers on this data set", "files"
    )
    tfrecords_file_path: str = flag(
        dataclasses.MISSING, "directory of the shards to clean", "files"
    )
    output_path: str = flag(
        dataclasses.MISSING, "directory to write the kept images into; made here", "files"
    )
    angle: float = flag(
        75.0,
        "degrees from the dominant centre beyond which an image is left out",
        above=0.0,
        below=180.0,
    )
    device: str = flag("cpu", "where the network runs:", choices=DEVICES)
    batch_size: int = flag(64, "images per batch", low=1)


def main(argv: Optional[List[str]] = None) -> None:
    config = parse_flags(CleanConfig, argv, __doc__)
    manifest = read_manifest(config.tfrecords_file_path)
    prefix = find_checkpoints(config.ckpt_file)[-1]
    centres_KSD = read_centres(prefix, manifest, config.tfrecords_file_path)
    known = {
        "cleaned": manifest.checksum or manifest.images,
        "with": os.path.basename(prefix),
        "angle": config.angle,
    }
    target = os.path.abspath(config.output_path)
    if is_done(target, known):
        print(f"{config.output_path} already holds this cleaning; nothing to do.")
        return
    label_N, cosine_NS = look(config, prefix, manifest, centres_KSD)
    kept_N = near_dominant(cosine_NS, label_N, manifest.identities, config.angle)
    if not kept_N.any():
        raise ValueError(
            f"{prefix}: no image is within {config.angle:g} degrees of its identity's centre; was "
            f"it trained on {config.tfrecords_file_path}?"
        )
    size = sum(manifest.shard_bytes) or _bytes(config.tfrecords_file_path, manifest)
    with work_directory(target, size) as work_path:
        cleaned = write_kept(config.tfrecords_file_path, manifest, kept_N, work_path, known)
    dropped = manifest.images - cleaned.images
    print(
        f"{config.output_path}: {cleaned.images} of {manifest.images} images kept, {dropped} "
        f"({dropped / manifest.images:.1%}) farther than {config.angle:g} degrees left out, "
        f"{cleaned.empty_identities - manifest.empty_identities} identities lost all theirs."
    )


def read_centres(prefix: str, manifest: Manifest, directory: str) -> np.ndarray:
    """A checkpoint's class centres as [K, S, D], K being the data set's identities."""
    centres_MD = variable_arrays(prefix, [CENTRES])[CENTRES]
    identities = manifest.identities
    if len(centres_MD) % identities:
        raise ValueError(
            f"{prefix} has {len(centres_MD)} class centres, which are not so many for each of the "
            f"{identities} identities of {directory}; pass the checkpoint that was trained on it."
        )
    return centres_MD.reshape(identities, -1, centres_MD.shape[1])


def look(
    config: Any, prefix: str, manifest: Manifest, centres_KSD: np.ndarray
) -> Tuple[np.ndarray, np.ndarray]:
    """(label [N], cosine to each centre of its identity [N, S]) of all images in shard order. Of
    the embeddings only a batch is held: of ten million images they would be 20 GB."""
    labels, cosines = [], []
    paths = [os.path.join(config.tfrecords_file_path, name) for name, _ in manifest.shards]
    with CheckpointEmbedder(prefix, config.device, config.batch_size) as embedder, tqdm(
        total=manifest.images, unit="img", disable=None
    ) as bar:
        for label_B, encoded in _batches(paths, config.batch_size):
            plain_BD, mirrored_BD = embedder.embed_encoded(encoded, bar.update)
            labels.append(label_B)
            cosines.append(centre_cosines(plain_BD + mirrored_BD, label_B, centres_KSD))
    return np.concatenate(labels), np.concatenate(cosines)


def _batches(paths, size):
    """(labels [B], [image bytes]) of at most `size` records, across the shards."""
    labels, encoded = [], []
    for path in paths:
        for label, image in read_shard(path):
            labels.append(label)
            encoded.append(image)
            if len(labels) == size:
                yield np.array(labels), encoded
                labels, encoded = [], []
    if labels:
        yield np.array(labels), encoded


def _bytes(directory, manifest):
    return sum(os.path.getsize(os.path.join(directory, name)) for name, _ in manifest.shards)


if __name__ == "__main__":
    run(main)
