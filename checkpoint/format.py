"""The files of a checkpoint: names, the record next to them, and the search for a usable one.

A checkpoint is `<prefix>.index`, `<prefix>.data-…` and `<prefix>.json`. The last is its record:
net, step, images_seen, training, dataset, environment, and the size and CRC-32 of each file. It is
written last, so a checkpoint that has a record and matches it is complete. No TensorFlow here.
"""

import json
import logging
import math
import os
import re
import shutil
import zlib
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Pattern, Tuple

from nets.lineages import NetSpec
from runtime.files import atomic_write

PREFIX = "InsightFace_iter_{}.ckpt"
BEST_PREFIX = "InsightFace_iter_best_{}.ckpt"
WRITING = ".writing-"  # of the directory that holds a checkpoint until it is complete
RECORD = re.compile(r"^InsightFace_iter_(\d{1,18})\.ckpt\.json$")
BEST_RECORD = re.compile(r"^InsightFace_iter_best_(\d{1,18})\.ckpt\.json$")
_STEP = re.compile(r"_(\d{1,18})\.ckpt$")
_PATTERN = "[]*?" + ("\\" if os.sep == "/" else "")  # TensorFlow reads a prefix as a glob pattern
RECORD_BYTES = 16 << 20  # a record of 3 KB is usual; one of each flag and 10,000 files has 1 MB
NUMBER_DIGITS = 40  # a longer integer takes quadratic time to parse
LARGEST_STEP = 10**18 - 1  # as many digits as a name may have


class Field(NamedTuple):
    """What one entry of a record must be."""

    accepts: Callable[[Any], bool]
    expected: str  # the end of "... must be"


def write_record(prefix: str, record: Dict[str, Any]) -> None:
    """Writes `<prefix>.json`, completely or not at all, and durably."""
    with atomic_write(f"{prefix}.json", durable=True) as stream:
        json.dump(record, stream, indent=1, sort_keys=True)
        stream.write("\n")


def read_record(prefix: str) -> Dict[str, Any]:
    """The record of a checkpoint. Each entry that it has is checked; only "net" is required."""
    prefix = plain_prefix(prefix)
    path = f"{prefix}.json"
    if not os.path.isfile(path):
        raise ValueError(f"{path} is missing, so the net of the checkpoint is unknown.")
    record = _read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("net"), dict):
        raise ValueError(f'{path} has no "net" entry, so the net of the checkpoint is unknown.')
    _check_fields(path, record)
    return record


def check_path(path: str) -> None:
    """Refuses a path that TensorFlow cannot read a checkpoint from: it expands patterns in it."""
    found = sorted(set(path) & set(_PATTERN))
    if found:
        raise ValueError(
            f"{path} contains {' '.join(found)}, and TensorFlow reads such a checkpoint path as a "
            "pattern. Rename the directory, or pass another --output_path."
        )


def find_checkpoints(path: str) -> List[str]:
    """The prefixes of all checkpoints of a directory by step; of a prefix, itself alone. The
    directory of a run stands for the ckpt directory in it."""
    if os.path.isdir(path):
        prefixes = _prefixes_in(path) or _prefixes_in(os.path.join(path, "ckpt"))
        if not prefixes:
            raise ValueError(
                f"{path} holds no checkpoint (no .index file). Pass the ckpt directory of a run, "
                "or train first."
            )
        check_path(prefixes[0])
        return prefixes
    prefix = plain_prefix(path)
    if not os.path.isfile(f"{prefix}.index"):
        raise ValueError(
            f"{path} names no checkpoint: there is no {prefix}.index. Pass the path up to .ckpt."
        )
    check_path(prefix)
    return [prefix]


def find_checkpoint(path: str) -> str:
    """One prefix: of a directory, the checkpoint of the highest step."""
    return find_checkpoints(path)[-1]


def plain_prefix(path: str) -> str:
    """A prefix without .index; of a directory, its last checkpoint."""
    if os.path.isdir(path):
        return find_checkpoint(path)
    return path[: -len(".index")] if path.endswith(".index") else path


def step_of(prefix: str) -> int:
    """The step in a checkpoint's name; -1 where it has none."""
    found = _STEP.search(os.path.basename(prefix))
    return int(found.group(1)) if found else -1


def steps_in(directory: str, pattern: Pattern = RECORD) -> List[int]:
    """The steps of the recorded checkpoints in a directory, ascending; [] where it is missing."""
    names = os.listdir(directory) if os.path.isdir(directory) else []
    return sorted(int(match.group(1)) for match in map(pattern.match, names) if match)


def newest_whole(directory: str) -> Tuple[Optional[str], Optional[Dict[str, Any]]]:
    """(prefix, record) of the newest checkpoint that a run can resume from, or (None, None). One
    that is not usable is logged with the reason, and the one before it is tried."""
    for step in reversed(steps_in(directory)):
        prefix = os.path.join(directory, PREFIX.format(step))
        try:
            return prefix, _usable_record(prefix, step)
        except (ValueError, OSError) as error:
            logging.warning("%s is not usable (%s). Trying the one before it.", prefix, error)
    return None, None


def clear_unfinished(directory: str) -> None:
    """Removes what a killed writer left behind; only the run that owns the directory may."""
    for name in os.listdir(directory):
        if name.startswith(WRITING):
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)


def remove_checkpoint(prefix: str) -> None:
    """Removes the files of a checkpoint, its record first."""
    directory, name = os.path.split(prefix)
    files = [file for file in os.listdir(directory or ".") if file.startswith(name + ".")]
    for file in sorted(files, key=lambda file: not file.endswith(".json")):
        os.remove(os.path.join(directory, file))


def size_and_crc(path: str) -> Dict[str, int]:
    """What a record holds of each file."""
    crc, size = 0, 0
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 22), b""):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return {"bytes": size, "crc32": crc}


def _prefixes_in(directory: str) -> List[str]:
    if not os.path.isdir(directory):
        return []
    names = [name[: -len(".index")] for name in os.listdir(directory) if name.endswith(".index")]
    ordered = sorted((step_of(name), name) for name in names)
    return [os.path.join(directory, name) for _, name in ordered]


def _usable_record(prefix: str, step: int) -> Dict[str, Any]:
    """The record, if the checkpoint is complete and has all that a resumed run reads."""
    record = read_record(prefix)
    missing = [name for name in ("files", "step", "training", "dataset") if name not in record]
    if missing:
        raise ValueError(f'its record has no "{missing[0]}" entry')
    if record["step"] != step:
        raise ValueError(f"its record is of step {record['step']}")
    _check_file_names(os.path.basename(prefix), record["files"])
    for name, expected in record["files"].items():
        path = os.path.join(os.path.dirname(prefix), name)
        if not os.path.isfile(path):
            raise ValueError(f"{name} is missing")
        if os.path.getsize(path) != expected["bytes"] or size_and_crc(path) != expected:
            raise ValueError(f"{name} does not match its checksum")
    return record


def _check_file_names(checkpoint: str, files: Iterable[str]) -> None:
    """Only files of the checkpoint itself are read, in its own directory."""
    own = re.compile(re.escape(checkpoint) + r"\.(index|data-\d{5}-of-\d{5})")
    for name in files:
        if not own.fullmatch(name):
            raise ValueError(f"its record lists {name[:80]!r}, which is no file of it")
    if f"{checkpoint}.index" not in files:
        raise ValueError(f"its record does not list {checkpoint}.index")


def _read_json(path: str) -> Any:
    if os.path.getsize(path) > RECORD_BYTES:
        raise ValueError(
            f"{path} is larger than {RECORD_BYTES >> 20} MiB, so it is no record of a checkpoint."
        )
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream, parse_int=_integer)
    except (ValueError, RecursionError):  # a UnicodeDecodeError is a ValueError, too
        raise ValueError(f"{path} is not JSON. Restore it from a copy of the run.") from None


def _integer(digits: str) -> int:
    if len(digits) > NUMBER_DIGITS:
        raise ValueError("an integer is too long")
    return int(digits)


def _is_integer(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are_names_to(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        return isinstance(value, dict) and all(map(accepts, value.values()))

    return check


def _is_size_and_crc(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"bytes", "crc32"}
        and _is_integer(value["bytes"], 0, 2**63 - 1)
        and _is_integer(value["crc32"], 0, 2**32 - 1)
    )


def _is_count(value: Any) -> bool:
    return _is_integer(value, 0, LARGEST_STEP)


FIELDS = {
    "step": Field(_is_count, "an integer of 0 or more"),
    "images_seen": Field(_is_count, "an integer of 0 or more"),
    "total_steps": Field(_is_count, "an integer of 0 or more"),
    "best": Field(_are_names_to(_is_number), "an object of names and finite numbers"),
    "training": Field(_are_names_to(lambda value: True), "an object"),
    "dataset": Field(_are_names_to(lambda value: True), "an object"),
    "environment": Field(_are_names_to(lambda value: True), "an object"),
    "files": Field(_are_names_to(_is_size_and_crc), "an object of file names, bytes and crc32"),
}


def _check_fields(path: str, record: Dict[str, Any]) -> None:
    for key, field in FIELDS.items():
        if key in record and not field.accepts(record[key]):
            raise ValueError(
                f'{path}: "{key}" must be {field.expected}. Restore it from a copy of the run.'
            )
    try:
        NetSpec.from_json(record["net"])
    except ValueError as error:
        raise ValueError(f'{path}: "net": {error}') from None
