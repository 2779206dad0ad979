"""train.rec of InsightFace -> TFRecord shards and dataset.json; JPEG bytes are copied as they are.

python data/mx2tfrecords.py --bin_path faces/train.rec --tfrecords_file_path tfrecords/faces
"""

import dataclasses
import hashlib
import logging
import os
import sys
import time
from typing import List, Optional

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's would compete with the workers

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from data.convert import shuffle  # noqa: E402
from data.convert.atomic_directory import (  # noqa: E402
    clear,
    is_done,
    read_state,
    work_directory,
    write_state,
)
from data.convert.worker_pool import cores, run_calls  # noqa: E402
from data.formats.image_headers import image_size  # noqa: E402
from data.formats.manifest import Manifest, write_manifest  # noqa: E402
from data.formats.record_index import find_keys, index_faults, read_index, summarise  # noqa: E402
from data.formats.recordio import BrokenRecordError, read_property  # noqa: E402
from data.formats.tfrecord import read_shard  # noqa: E402
from runtime.cli import run  # noqa: E402
from runtime.flags import flag, parse_flags  # noqa: E402

SHARDS, SMALL_SHARD, LARGE_SHARD = 16, 1 << 20, 1 << 28  # --shards 0, and its bounds in bytes
SAMPLE_BYTES, SAMPLES = 1 << 16, 64  # of a .rec, to know it again


@dataclasses.dataclass(frozen=True)
class ConversionConfig:
    """Flags of data/mx2tfrecords.py."""

    bin_path: str = flag(dataclasses.MISSING, "the .rec file", "files")
    idx_path: Optional[str] = flag(
        None, "its .idx; default: the one in the directory of the .rec, if any", "files"
    )
    tfrecords_file_path: str = flag(
        dataclasses.MISSING, "directory to write the shards into; made here", "files"
    )
    shards: int = flag(
        0, "files to write, at most; 0: 16, or as many as keep each between 1 and 256 MB", low=0
    )
    shuffle: bool = flag(True, "mix all records; --no_shuffle keeps the order of the .rec")
    shuffle_seed: int = flag(0, "of the order of the shuffle", low=0, high=2**32 - 1)
    workers: int = flag(0, "processes; 0: one a core, at most 4. Each takes about 150 MB", low=0)
    on_error: str = flag(
        "stop",
        "what a broken record does: end the shuffle, or be skipped and listed",
        choices=("stop", "skip"),
    )
    max_errors: int = flag(1000, "broken records that --on_error skip puts up with", low=0)
    remap_labels: bool = flag(False, "number the identities anew where labels have gaps")
    num_output: Optional[int] = flag(
        None, "refuse labels from this number up; a check, nothing else", low=1
    )
    decode: bool = flag(False, "decode every image to see that it can be; takes much longer")


def main(argv: Optional[List[str]] = None) -> None:
    began, config = time.time(), parse_flags(ConversionConfig, argv, __doc__)
    manifest = convert(config)
    if manifest is None:
        print(f"{config.tfrecords_file_path} already holds this conversion; nothing to do.")
        return
    print(
        f"{config.tfrecords_file_path}: {manifest.images} images of {manifest.identities} "
        f"identities in {len(manifest.shards)} shards, {manifest.skipped} records skipped, "
        f"{time.time() - began:.1f} s."
    )


def convert(config: ConversionConfig) -> Optional[Manifest]:
    """Converts as the flags say: the Manifest, or None where that had been done before."""
    size = os.path.getsize(config.bin_path)
    if size == 0:
        raise ValueError(f"--bin_path {config.bin_path} is empty (0 bytes); copy it again.")
    idx_path = config.idx_path or sibling_path(config.bin_path, ".idx")
    target = os.path.abspath(config.tfrecords_file_path)
    shards = config.shards or min(max(SHARDS, size // LARGE_SHARD), 1 + size // SMALL_SHARD)
    known = _fingerprint(config, shards, size, idx_path)
    if is_done(target, known):
        return None
    workers = config.workers or cores()
    buckets = (
        min(1.0, workers / shards) if config.shuffle else 0
    )  # that exist together with their shards
    with work_directory(target, int(size * (1.02 + buckets))) as work_path:
        plan = shuffle.Plan(
            rec_path=config.bin_path,
            work_path=work_path,
            size=size,
            shards=shards,
            seed=config.shuffle_seed if config.shuffle else None,
            skip=config.on_error == "skip",
            max_errors=config.max_errors,
            num_output=config.num_output,
            decode=config.decode,
        )
        return _write(config, plan, known, idx_path, workers)


def _write(config, plan, known, idx_path, workers):
    """Fills the work directory, dataset.json last: Manifest."""
    state = read_state(plan.work_path)
    resuming = state.get("known") == known and "draft" in state
    passes = 1 + (config.shuffle or config.remap_labels)
    with tqdm(total=passes * plan.size, unit="B", unit_scale=True, disable=None) as bar:
        if resuming:
            logging.info("%s: resuming an interrupted conversion.", plan.work_path)
            draft, tallies = state["draft"], None
        else:
            clear(plan.work_path)
            write_state(plan.work_path, dict(known=known))
            tallies, skipped = _first_pass(config, plan, idx_path, workers, bar.update)
            draft = _draft(config, tallies, skipped)
            if config.shuffle:  # pass two can be taken up again
                write_state(plan.work_path, dict(known=known, draft=draft))
        plan = dataclasses.replace(plan, new_label=_new_labels(draft["remapped_labels"]))
        if config.shuffle:
            calls = [(plan, shard) for shard in range(plan.shards)]
            tallies = run_calls(shuffle.gather, calls, workers, bar.update)
        elif config.remap_labels:
            tallies = _in_order(shuffle.copy_in_order, plan, workers, bar.update)
    return _finish(plan, draft, tallies, known)


def _first_pass(config, plan, idx_path, workers, progress):
    """Reads the whole .rec once, twice if its .idx leaves records out: ([Tally], [broken])."""

    def read(plan):
        if not config.shuffle:
            function = shuffle.survey if config.remap_labels else shuffle.copy_in_order
            return _in_order(function, plan, workers, progress)
        parts = shuffle.stretches(plan.size, workers, plan.block_bytes)
        calls = [(i, begin, end) for i, (begin, end) in enumerate(parts)]
        return shuffle.read_all(shuffle.scatter, plan, calls, workers, progress)

    index = summarise(idx_path) if idx_path else None
    try:
        try:
            tallies = read(plan)
        except BrokenRecordError as error:
            if not idx_path or find_keys(idx_path, [error.offset]):
                raise
            _, listed = _compare(plan, [], [], idx_path)  # not in the .idx
            tallies = read(dataclasses.replace(plan, listed=listed))
        broken = [(at, why) for tally in tallies for at, why in tally.broken]
        sums = [sum(tally.records for tally in tallies), _total(tallies, "offset_sum")]
        unlisted = sum(tally.unlisted for tally in tallies)
        if index and not unlisted and sums != [index.records, index.offset_sum]:
            broken, listed = _compare(plan, tallies, broken, idx_path)
            if listed is not None:
                shuffle.clear_buckets(plan)
                tallies = read(dataclasses.replace(plan, listed=listed))
    except BrokenRecordError as error:
        key = find_keys(idx_path, [error.offset]).get(error.offset) if idx_path else None
        raise BrokenRecordError(error.path, key, error.offset, error.reason) from None
    if not sum(tally.images for tally in tallies):
        raise ValueError(f"{plan.rec_path} holds no image; is it the right file?")
    if not broken:
        _check_header(plan, tallies, index.header_offset if index else 0)
    keys = find_keys(idx_path, [at for at, _ in broken]) if idx_path and broken else {}
    return tallies, [
        str(BrokenRecordError(plan.rec_path, keys.get(at), at, why)) for at, why in broken
    ]


def _in_order(function, plan, workers, progress):
    parts = shuffle.stretches(plan.size, plan.shards, 4)
    calls = [(shard, begin, end) for shard, (begin, end) in enumerate(parts)]
    return shuffle.read_all(function, plan, calls, workers, progress)


def _compare(plan, tallies, broken, idx_path):
    """Why an .idx and the records found differ: (broken with the .idx's own faults, the sorted
    offsets that alone are to be converted, or None for all)."""
    noted, faults = {at for at, _ in broken}, []
    for key, offset, why in index_faults(idx_path, plan.rec_path):
        if not plan.skip:
            raise BrokenRecordError(plan.rec_path, key, offset, why)
        if offset not in noted:
            faults.append((offset, why))
            shuffle.note_broken(plan, tallies[0], [(offset, why)])
    wrong = [offset for offset, _ in faults]
    listed = np.setdiff1d(read_index(idx_path)[1], wrong)
    if tallies and len(listed) >= sum(tally.records for tally in tallies):
        return broken + faults, None
    logging.info(
        "%s: its .idx leaves records out; only the %d that it lists are converted.",
        plan.rec_path,
        len(listed),
    )
    requested = [
        item for item in broken if listed[np.searchsorted(listed[:-1], item[0])] == item[0]
    ]
    return requested + faults, listed


def _check_header(plan, tallies, offset):
    """The header record's count of images, where there is one, is what was found."""
    header = [labels for tally in tallies for at, labels in tally.info if at == offset]
    images = sum(tally.images for tally in tallies)
    unlisted = sum(tally.unlisted for tally in tallies)
    if not header or unlisted or header[0][0] > shuffle.EXACT_FLOAT32:
        return
    if int(header[0][0]) - 1 != images and not plan.skip:
        raise BrokenRecordError(
            plan.rec_path,
            0,
            offset,
            f"says that there are {int(header[0][0]) - 1} images, but {images} were found; copy or "
            "build the file again, or pass --on_error skip to convert what is there",
        )


def _draft(config, tallies, skipped):
    """The part of the manifest that pass one settles, as JSON holds it."""
    seen = np.zeros(0, bool)
    for tally in tallies:
        seen = shuffle.union(seen, tally.seen)
    labels = np.flatnonzero(seen)
    gaps = len(seen) - len(labels)
    remapped = labels.tolist() if gaps and config.remap_labels else []
    if gaps and not remapped:
        logging.info(
            "%s: %d of the labels 0 to %d have no image; pass --remap_labels to number anew.",
            config.bin_path,
            gaps,
            len(seen) - 1,
        )
    _check_property(config.bin_path, len(seen))
    return dict(
        images=sum(tally.images for tally in tallies),
        identities=len(labels) if remapped else len(seen),
        empty_identities=0 if remapped else gaps,
        remapped_labels=remapped,
        skipped=len(skipped),
        skipped_records=skipped,
        source=os.path.basename(config.bin_path),
    )


def _check_property(rec_path, identities):
    found = read_property(os.path.join(os.path.dirname(rec_path), "property"))
    if found and found[0] != identities:
        logging.info(
            "%s: labels go up to %d, but its property file says %d identities; labels count.",
            rec_path,
            identities - 1,
            found[0],
        )


def _new_labels(remapped):
    """The source's labels in use -> an array from label to number; None: they stay."""
    if not remapped:
        return None
    table = np.zeros(remapped[-1] + 1, np.int64)
    table[remapped] = np.arange(len(remapped))
    return table


def _finish(plan, draft, tallies, known):
    """Gives the shards their names and writes dataset.json: Manifest."""
    full = [(shuffle.part_path(plan, i), tally) for i, tally in enumerate(tallies)]
    for path, tally in full:
        if not tally.images and os.path.exists(path):  # fewer records than shards
            os.remove(path)
    full = [(path, tally) for path, tally in full if tally.images]
    shards = []
    for i, (path, tally) in enumerate(full):
        shards.append((f"train-{i:05d}-of-{len(full):05d}.tfrecords", tally.images))
        if os.path.exists(path):  # not if an interrupted run had come as far as here
            os.rename(path, os.path.join(plan.work_path, shards[-1][0]))
    _, encoded = next(read_shard(os.path.join(plan.work_path, shards[0][0])))
    manifest = Manifest(
        shards=tuple(shards),
        shard_bytes=tuple(tally.written for _, tally in full),
        image_size=image_size(encoded),
        seed=plan.seed,
        checksum=f"{_total(tallies, 'checksum'):016x}",
        conversion=known,
        **{name: tuple(v) if isinstance(v, list) else v for name, v in draft.items()},
    )
    assert sum(count for _, count in shards) == manifest.images, (shards, manifest.images)
    write_manifest(plan.work_path, manifest)
    return manifest


def _total(tallies, name):
    return sum(getattr(tally, name) for tally in tallies) % (1 << 64)


def _fingerprint(config, shards, size, idx_path):
    """What the shards depend on, wherever the files lie: dict."""
    digest = hashlib.blake2b(digest_size=16)
    with open(config.bin_path, "rb") as stream:
        for i in range(SAMPLES + 1):
            stream.seek(max(0, size - SAMPLE_BYTES) * i // SAMPLES)
            digest.update(stream.read(SAMPLE_BYTES))
    if idx_path:
        with open(idx_path, "rb") as stream:
            for piece in iter(lambda: stream.read(1 << 20), b""):
                digest.update(piece)
    return dict(
        bytes=size,
        digest=digest.hexdigest(),
        shards=shards,
        seed=config.shuffle_seed if config.shuffle else None,
        remap_labels=config.remap_labels,
        on_error=config.on_error,
        checks=[config.num_output, config.decode] if config.on_error == "skip" else [],
    )


def sibling_path(rec_path: str, suffix: str) -> Optional[str]:
    """The file of another suffix in the directory of a .rec, or None."""
    path = os.path.splitext(rec_path)[0] + suffix
    return path if os.path.exists(path) else None


if __name__ == "__main__":
    run(main)
