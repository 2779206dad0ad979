"""How much label noise tools/clean_with_subcenters.py finds, and what it costs in clean images.

Draws a synthetic data set, gives --noise of its images another identity's label, trains a small
network with sub-centres on it by train_nets.py, cleans it, and prints the share of the wrong labels
that were left out (wanted: 80 % or more) and of the right ones (wanted: 5 % or less).

    python benchmarks/cleaning.py --work_path /tmp/cleaning
"""

import os
import sys

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import dataclasses  # noqa: E402
import glob  # noqa: E402
import subprocess  # noqa: E402

import numpy as np  # noqa: E402

from data.formats.manifest import FILE, read_manifest, write_manifest  # noqa: E402
from data.formats.tfrecord import read_shard, write_frames  # noqa: E402
from runtime.cli import ROOT, run  # noqa: E402
from runtime.flags import flag, parse_flags  # noqa: E402


@dataclasses.dataclass(frozen=True)
class CleaningConfig:
    """What is drawn, spoilt and trained."""

    work_path: str = flag(dataclasses.MISSING, "directory for everything; reused where it is there")
    identities: int = flag(80, "people drawn", low=2)
    images_per_identity: int = flag(40, "images of each", low=2)
    image_size: int = flag(64, "pixels", low=32)
    noise: float = flag(0.3, "share of images whose label is made wrong", above=0.0, below=1.0)
    steps: int = flag(500, "training steps of 64 images", low=1)
    loss: str = flag("arcface", "margin loss")
    margin: float = flag(0.3, "its margin")
    scale: float = flag(32.0, "its scale")
    sub_centers: int = flag(3, "centres of an identity", low=1)
    angle: float = flag(75.0, "degrees beyond which an image is left out", above=0.0)
    seed: int = flag(0, "of faces, noise and training", low=0)


def main(argv=None):
    config = parse_flags(CleaningConfig, argv)
    drawn, right, wrong, trained, cleaned = (
        os.path.join(config.work_path, name)
        for name in ("drawn", "right", "wrong", "run", f"clean_{config.angle:g}")
    )
    if not os.path.exists(os.path.join(right, FILE)):
        side = ["--image_size", config.image_size]
        count = ["--identities", config.identities]
        count += ["--images_per_identity", config.images_per_identity, "--eval_pairs", 20]
        _call("data/synthetic.py", "--output_path", drawn, "--seed", config.seed, *side, *count)
        record = os.path.join(drawn, "train.rec")
        _call("data/mx2tfrecords.py", "--bin_path", record, "--tfrecords_file_path", right)
    if not os.path.exists(os.path.join(wrong, FILE)):
        spoil(right, wrong, config.noise, config.seed)
    _call(
        "train_nets.py --lineage arcface_torch --net_depth 18 --width 0.25 --embedding_size 128",
        *f"--batch_size 64 --schedule cosine --warmup 20 --lr 0.1 --loss {config.loss}".split(),
        *f"--margin {config.margin} --scale {config.scale} --seed {config.seed}".split(),
        *f"--sub_centers {config.sub_centers} --epoch {config.steps}step --resume true".split(),
        *f"--image_size {config.image_size},{config.image_size}".split(),
        *f"--tfrecords_file_path {wrong} --output_path {trained}".split(),
    )
    last = max(glob.glob(os.path.join(trained, "ckpt", "*.ckpt.index")), key=os.path.getmtime)
    words = ["--ckpt_file", last[: -len(".index")], "--tfrecords_file_path", wrong]
    words += ["--output_path", cleaned, "--angle", config.angle]
    _call("tools/clean_with_subcenters.py", *words)
    found, lost = compare(right, wrong, cleaned)
    print(f"wrong labels left out: {found:.1%} (wanted: 80 % or more)")
    print(f"right labels left out: {lost:.1%} (wanted: 5 % or less)")


def spoil(source, target, noise, seed):
    """A copy of a set in which `noise` of the images have the label of another identity."""
    random, manifest = np.random.RandomState(seed), read_manifest(source)
    os.makedirs(target, exist_ok=True)
    sizes = []
    for name, _ in manifest.shards:
        records = list(read_shard(os.path.join(source, name)))
        labels = np.array([label for label, _ in records])
        other = (labels + random.randint(1, manifest.identities, len(labels))) % manifest.identities
        labels = np.where(random.uniform(size=len(labels)) < noise, other, labels)
        stops = np.cumsum([len(encoded) for _, encoded in records])
        data = np.frombuffer(b"".join(encoded for _, encoded in records), np.uint8)
        with open(os.path.join(target, name), "wb") as stream:
            starts = np.concatenate([[0], stops[:-1]])
            sizes.append(write_frames(stream.fileno(), data, labels, starts, stops)[0])
    write_manifest(target, dataclasses.replace(manifest, shard_bytes=tuple(sizes), checksum=""))


def compare(right, wrong, cleaned):
    """(share of wrong labels, share of right labels) that `cleaned` no longer has."""
    kept = set()
    for name, _ in read_manifest(cleaned).shards:
        kept.update(read_shard(os.path.join(cleaned, name)))
    spoilt, dropped = [], []
    for name, _ in read_manifest(right).shards:
        pairs = zip(read_shard(os.path.join(right, name)), read_shard(os.path.join(wrong, name)))
        for one, other in pairs:
            spoilt.append(one[0] != other[0])
            dropped.append(other not in kept)
    spoilt, dropped = np.array(spoilt), np.array(dropped)
    return dropped[spoilt].mean(), dropped[~spoilt].mean()


def _call(line, *words):
    words = [sys.executable] + line.split() + [str(word) for word in words]
    print("$ python " + " ".join(words[1:]), flush=True)
    if subprocess.run(words, cwd=ROOT).returncode:
        raise ValueError(f"{words[1]} failed; what it said is above.")


if __name__ == "__main__":
    run(main)
