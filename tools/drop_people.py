"""Rewrites a data set without given identities, and names the checkpoints that have seen them.

Labels stay as they are, so that a checkpoint can be trained further. The result appears whole or
not at all; the source is not changed: delete it and its copies afterwards.

python -m tools.drop_people --tfrecords_file_path tfrecords/faces --people 17,203 \\
    --output_path tfrecords/faces_without --checkpoints output
"""

import dataclasses
import os
import sys
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np  # noqa: E402

from checkpoint.format import read_record  # noqa: E402
from data.convert.atomic_directory import is_done, work_directory  # noqa: E402
from data.convert.outliers import write_kept  # noqa: E402
from data.formats.manifest import FILE, Manifest, read_manifest  # noqa: E402
from data.formats.tfrecord import read_shard  # noqa: E402
from runtime.cli import run  # noqa: E402
from runtime.flags import flag, parse_flags  # noqa: E402

NAMES = "identities.txt"  # of data/image_folder.py: a name per label
SOURCES = ("dropped_from", "cleaned")  # entries of a conversion: the data set that it came from


@dataclasses.dataclass(frozen=True)
class DropConfig:
    """Flags of tools/drop_people.py."""

    tfrecords_file_path: str = flag(dataclasses.MISSING, "directory of the shards", "files")
    output_path: str = flag(
        dataclasses.MISSING, "directory to write the other identities to; made here", "files"
    )
    people: Tuple[str, ...] = flag(
        (), "identities to remove: labels, or names of identities.txt", "identities"
    )
    people_file: Optional[str] = flag(None, "file of them, one per line", "identities")
    checkpoints: Tuple[str, ...] = flag(
        (), "directories of runs; their checkpoints are compared with the data set", "files"
    )


def main(argv: Optional[List[str]] = None) -> None:
    config = parse_flags(DropConfig, argv, __doc__)
    manifest = read_manifest(config.tfrecords_file_path)
    for directory in config.checkpoints:
        if not os.path.isdir(directory):
            raise ValueError(f"--checkpoints {directory} is not a directory.")
    label_N = read_labels(config.tfrecords_file_path, manifest)
    dropped = labels_of(config, label_N)
    known = {
        "dropped_from": manifest.checksum or manifest.images,
        "dropped": dropped,
        "before": manifest.conversion,
    }
    target = os.path.abspath(config.output_path)
    if is_done(target, known):
        print(f"{config.output_path} is already without these identities.")
    else:
        rewrite(config, manifest, ~np.isin(label_N, dropped), known)
    print("\n".join(seen_lines(config, manifest)))


def read_labels(directory: str, manifest: Manifest) -> np.ndarray:
    """The label of each record, shard after shard: int64 [N]."""
    paths = [os.path.join(directory, name) for name, _ in manifest.shards]
    return np.array([label for path in paths for label, _ in read_shard(path)], np.int64)


def labels_of(config: DropConfig, label_N: np.ndarray) -> List[int]:
    """The labels that the flags name, ascending."""
    given = list(config.people)
    if config.people_file:
        with open(config.people_file, encoding="utf-8") as stream:
            given += [line.strip() for line in stream if line.strip()]
    if not given:
        raise ValueError("pass the identities to remove as --people or --people_file.")
    numbers = _numbers_of_names(config.tfrecords_file_path)
    present = set(label_N.tolist())
    found: Set[int] = set()
    for one in given:
        label = numbers.get(one, int(one) if one.isdigit() else -1)
        if label not in present:
            raise ValueError(
                f"{config.tfrecords_file_path} has no image of {one}; pass labels"
                + (f" or names of its {NAMES}." if numbers else ".")
            )
        found.add(label)
    if found == present:
        raise ValueError("these are all identities of the data set; delete it instead.")
    return sorted(found)


def _numbers_of_names(directory: str) -> Dict[str, int]:
    path = os.path.join(directory, NAMES)
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as stream:
        return {name: label for label, name in enumerate(stream.read().splitlines())}


def rewrite(
    config: DropConfig, manifest: Manifest, kept_N: np.ndarray, known: Dict[str, Any]
) -> None:
    """Writes the kept records; identities.txt keeps its lines, those of the removed are empty."""
    source = config.tfrecords_file_path
    size = sum(os.path.getsize(os.path.join(source, name)) for name, _ in manifest.shards)
    with work_directory(os.path.abspath(config.output_path), size) as work_path:
        write_kept(source, manifest, kept_N, work_path, known)
        names = sorted(_numbers_of_names(source).items(), key=lambda item: item[1])
        if names:
            lines = ["" if label in known["dropped"] else name for name, label in names]
            with open(os.path.join(work_path, NAMES), "w", encoding="utf-8") as stream:
                stream.write("\n".join(lines) + "\n")
    removed = int((~kept_N).sum())
    print(
        f"{config.output_path}: {len(known['dropped'])} identities with {removed:,} images "
        f"removed, {int(kept_N.sum()):,} of {manifest.images:,} images kept. {source} is "
        "unchanged: delete it, its copies and its backups."
    )


def seen_lines(config: DropConfig, manifest: Manifest) -> List[str]:
    """Which checkpoints were trained on the data set, or on the one that it was made from."""
    if not config.checkpoints:
        return ["Pass --checkpoints DIRECTORY to list the checkpoints that have seen them."]
    records = [item for directory in config.checkpoints for item in checkpoint_records(directory)]
    digests = digests_of(manifest)
    if not digests:
        return [f"{FILE} has no digest (the shards were only counted): no checkpoint is compared."]
    seen = checkpoints_that_saw(records, digests)
    if not seen:
        return [f"none of {len(records)} checkpoints has the digest of this data set."]
    return [f"{len(seen)} of {len(records)} checkpoints have seen them:"] + [
        f"  {prefix}" for prefix in seen
    ]


def digests_of(manifest: Manifest) -> Set[str]:
    """The digests of the data set and of those that it was made from."""
    found, conversion = {manifest.checksum}, manifest.conversion
    while isinstance(conversion, dict):
        found |= {str(conversion[name]) for name in SOURCES if name in conversion}
        conversion = conversion.get("before")
    return found - {""}


def checkpoint_records(directory: str) -> Iterator[Tuple[str, Dict[str, Any]]]:
    """(prefix, record) of every checkpoint below a directory; broken records are skipped."""
    for folder, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".ckpt.json"):
                prefix = os.path.join(folder, name[: -len(".json")])
                try:
                    yield prefix, read_record(prefix)
                except ValueError as error:
                    print(f"not compared: {error}")


def checkpoints_that_saw(records: List[Tuple[str, Dict[str, Any]]], digests: Set[str]) -> List[str]:
    """The checkpoints of a digest, and those that were finetuned from one of them."""
    seen = {
        prefix for prefix, record in records if record.get("dataset", {}).get("checksum") in digests
    }
    paths = {os.path.abspath(prefix) for prefix in seen}
    while True:
        more = {prefix for prefix, record in records if _started_from(record, paths)} - seen
        if not more:
            return [prefix for prefix, _ in records if prefix in seen]
        seen |= more
        paths |= {os.path.abspath(prefix) for prefix in more}


def _started_from(record: Dict[str, Any], paths: Set[str]) -> bool:
    """Whether a run was finetuned from a checkpoint, or from a directory that holds one."""
    source = record.get("training", {}).get("finetune")
    if not isinstance(source, str) or not source:
        return False
    start = os.path.abspath(source)
    return start in paths or any(path.startswith(start + os.sep) for path in paths)


if __name__ == "__main__":
    run(main)
