"""A .rec -> TFRecord shards: two sequential passes for a global shuffle, one for the file's order.

Pass one deals records to buckets, each block by a permutation of its own, so that every bucket
holds an even sample of the whole file; pass two permutes each bucket in memory and frames it.
Memory is a block and a bucket a process, whatever the file's size, and the shards do not depend on
how many processes made them. Shape letter: R records of a block.
"""

import dataclasses
import glob
import json
import os
from typing import Any, Callable, List, Optional, Tuple

import numpy as np

from data.convert.worker_pool import run_calls
from data.formats.image_headers import image_faults
from data.formats.recordio import BrokenRecordError
from data.formats.recordio_blocks import (
    BLOCK_BYTES,
    Block,
    find_records,
    image_columns,
    read_blocks,
)
from data.formats.tfrecord import mix, slices, write_frames, write_vectors
from runtime.files import atomic_write

BUCKET_BYTES, BUCKETS = 1 << 25, 1 << 12  # buckets are this small, unless there would be more
Progress = Callable[[int], Any]
EXACT_FLOAT32 = 1 << 24  # float32, the form of labels in a .rec, holds every whole number to here


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a conversion does: all that its processes need to know."""

    rec_path: str
    work_path: str  # the directory that is written into
    size: int  # bytes of the .rec
    shards: int
    seed: Optional[int]  # None: keep the file's order
    skip: bool = False  # broken records, instead of stopping
    max_errors: int = 0
    num_output: Optional[int] = None
    decode: bool = False  # decode every image to see whether it can be
    listed: Optional[np.ndarray] = None  # sorted offsets of the records to take; None: all
    new_label: Optional[np.ndarray] = None  # label -> its number in the shards

    @property
    def buckets_per_shard(self) -> int:
        largest = max(BUCKET_BYTES, self.size // BUCKETS)
        return max(1, -(-self.size // (self.shards * largest)))

    @property
    def block_bytes(self) -> int:
        # many buckets: more for each of them from one block
        return BLOCK_BYTES if self.shards * self.buckets_per_shard <= 128 else 8 * BLOCK_BYTES


@dataclasses.dataclass
class Tally:
    """What a stretch of a .rec, or a shard, turned out to hold."""

    images: int = 0
    records: int = 0
    offset_sum: int = 0  # of mixed offsets modulo 2^64: which records were seen, in 8 bytes
    checksum: int = 0
    written: int = 0  # bytes
    unlisted: int = 0
    broken: list = dataclasses.field(default_factory=list)  # (offset, why)
    info: list = dataclasses.field(default_factory=list)  # (offset, labels), first and last only
    seen: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, bool))  # labels
    entered: Optional[int] = None  # offset of the first record
    left: Optional[int] = None  # and of the one after the last


def survey(plan: Plan, _: int, begin: int, end: int, report: Progress) -> Tally:
    """Only looks at the records that start in bytes [begin, end): Tally."""
    tally = Tally()
    for block in read_blocks(plan.rec_path, begin, end):
        tally.images += len(_examine(plan, block, tally).label_R)
        report(min(BLOCK_BYTES, end - begin))
    return tally


def copy_in_order(plan: Plan, shard: int, begin: int, end: int, report: Progress) -> Tally:
    """Writes the images of the records that start in bytes [begin, end) as a shard: Tally."""
    tally = Tally()
    descriptor = _create(part_path(plan, shard))
    try:
        for block in read_blocks(plan.rec_path, begin, end):
            _frame(plan, descriptor, _examine(plan, block, tally), None, tally)
            report(min(BLOCK_BYTES, end - begin))
    finally:
        os.close(descriptor)
    return tally


def scatter(plan: Plan, worker: int, begin: int, end: int, report: Progress) -> Tally:
    """Pass one over the blocks of bytes [begin, end); begin is a multiple of block_bytes: Tally."""
    tally, size = Tally(), plan.block_bytes
    for number, block in enumerate(read_blocks(plan.rec_path, begin, end, size), begin // size):
        rows = _examine(plan, block, tally).record_R
        tally.images += len(rows)
        order = np.random.RandomState([plan.seed, number])
        buckets = plan.shards * plan.buckets_per_shard
        bucket_R = (order.permutation(len(rows)) + order.randint(buckets)) % buckets
        _deal(plan, worker, block, rows, bucket_R)
        report(min(size, end - begin))
    return tally


def gather(plan: Plan, shard: int, report: Progress) -> Tally:
    """Pass two for one shard: its buckets, each permuted, one behind the other: Tally.

    A shard whose note is there was finished before an interruption."""
    note = part_path(plan, shard) + ".json"
    if os.path.exists(note):
        with open(note) as stream:
            return Tally(**json.load(stream))
    tally = Tally()
    descriptor = _create(part_path(plan, shard))
    try:
        for i in range(plan.buckets_per_shard):
            bucket = shard * plan.buckets_per_shard + i
            data = _read_whole(_bucket_files(plan, bucket))
            starts, stops, broken, end = find_records(data, data.size, True)
            assert not broken and end == data.size, (bucket, broken)  # pass one wrote it
            columns = image_columns(Block(data, 0, end, starts, stops, []))
            order = np.random.RandomState([plan.seed, bucket, 1]).permutation(len(columns.label_R))
            _frame(plan, descriptor, columns, order, tally)
            report(data.size)
    finally:
        os.close(descriptor)
    done = dict(images=tally.images, checksum=tally.checksum, written=tally.written)
    with atomic_write(note) as stream:
        json.dump(done, stream)
    clear_buckets(plan, shard)
    return tally


def clear_buckets(plan: Plan, shard: Optional[int] = None) -> None:
    """Frees the space of the buckets of one shard, or of all."""
    count = plan.buckets_per_shard
    shards = range(plan.shards) if shard is None else [shard]
    for bucket in (shard * count + i for shard in shards for i in range(count)):
        for path in _bucket_files(plan, bucket):
            os.remove(path)


def part_path(plan: Plan, shard: int) -> str:
    """The name of a shard until the conversion is finished; no reader takes it for a shard."""
    return os.path.join(plan.work_path, f"shard-{shard:05d}.part")


def stretches(size: int, count: int, unit: int) -> List[Tuple[int, int]]:
    """[(begin, end)]: `size` bytes in at most `count` even stretches of whole `unit`s."""
    units = -(-size // unit)
    count = max(1, min(count, units))
    edges = [units * i // count * unit for i in range(count)] + [size]
    return list(zip(edges[:-1], edges[1:]))


def read_all(
    function: Callable[..., Tally],
    plan: Plan,
    calls: List[Tuple[Any, ...]],
    workers: int,
    progress: Progress,
) -> List[Tally]:
    """Runs a pass for all stretches (the last two values of each call): [Tally].

    Checks that each stretch ends at the record with which the next one starts."""
    tallies = run_calls(function, [(plan,) + call for call in calls], workers, progress)
    for before, after in zip(tallies, tallies[1:]):
        if before.left != after.entered:
            why = f"and the next ones up to byte {after.entered} do not join"
            note_broken(plan, before, [(before.left, why)])
    return tallies


def _examine(plan, block, tally):
    """The good images of a block as Columns; everything else goes into the tally or ends it."""
    columns = image_columns(block)
    if tally.entered is None:
        tally.entered = block.offset
    tally.left = block.end
    head_damage = np.array([at for at, _ in block.broken], np.int64)
    offset_R = np.concatenate([block.offset + block.start_R, head_damage])
    tally.records += len(offset_R)
    tally.offset_sum = (tally.offset_sum + mix(offset_R)) % (1 << 64)
    info = tally.info + columns.info
    tally.info = [(at, labels.copy()) for at, labels in info[:1] + info[1:][-1:]]
    at_R = block.offset + block.start_R[columns.record_R]
    faults = dict(image_faults(columns, plan.decode))
    faults.update(_label_faults(columns.label_R, plan.num_output))
    keep = np.ones(len(at_R), bool)
    keep[list(faults)] = False
    broken = columns.broken + [(int(at_R[i]), why) for i, why in faults.items()]
    if plan.listed is not None:
        keep &= _among(at_R, plan.listed)
        broken = [item for item in broken if _among(np.array(item[:1]), plan.listed)[0]]
        tally.unlisted += int((~_among(offset_R, plan.listed)).sum())
    note_broken(plan, tally, sorted(broken))
    columns = columns._replace(
        label_R=columns.label_R[keep],
        start_R=columns.start_R[keep],
        stop_R=columns.stop_R[keep],
        record_R=columns.record_R[keep],
    )
    tally.seen = union(tally.seen, _seen(columns.label_R))
    return columns


def note_broken(plan: Plan, tally: Tally, broken: List[Tuple[int, str]]) -> None:
    """Takes note of broken records, or ends at the first one."""
    tally.broken += broken
    if broken and not plan.skip:
        raise BrokenRecordError(plan.rec_path, None, *broken[0])
    if len(tally.broken) > plan.max_errors:
        raise too_many(plan, tally.broken[-1])


def too_many(plan: Plan, last: Tuple[int, str]) -> ValueError:
    """The error for more broken records than were allowed."""
    return ValueError(
        f"{plan.rec_path}: more than --max_errors {plan.max_errors} records are broken, one of "
        f"them at byte {last[0]} ({last[1]}); copy or build the file again, or allow more."
    )


def _label_faults(label_R, num_output):
    """{row: why} for labels that cannot be an identity's."""
    if num_output is not None:
        return {
            i: f"has label {label_R[i]}, but --num_output is {num_output}; pass --num_output "
            f"{label_R[i] + 1} or more, or rebuild the records"
            for i in np.flatnonzero(label_R >= num_output)
        }
    return {
        i: f"has label {label_R[i]}, above the {EXACT_FLOAT32} that a .rec holds exactly"
        for i in np.flatnonzero(label_R > EXACT_FLOAT32)
    }


def _among(offset_R, listed):
    place = np.minimum(np.searchsorted(listed, offset_R), len(listed) - 1)
    return listed[place] == offset_R


def _seen(label_R):
    return np.bincount(label_R).astype(bool) if len(label_R) else np.zeros(0, bool)


def union(seen: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Whether each label is in one of two sets, given as arrays of bool."""
    longer, shorter = (seen, more) if len(seen) >= len(more) else (more, seen)
    out = longer.copy()
    out[: len(shorter)] |= shorter
    return out


def _frame(plan, descriptor, columns, order, tally):
    """Appends images to a shard, in the given order."""
    order = np.arange(len(columns.label_R)) if order is None else order
    labels = columns.label_R[order]
    if plan.new_label is not None:
        labels = plan.new_label[labels]
    written, checksum = write_frames(
        descriptor, columns.data, labels, columns.start_R[order], columns.stop_R[order]
    )
    tally.images += len(order)
    tally.written += written
    tally.checksum = (tally.checksum + checksum) % (1 << 64)


def _deal(plan, worker, block, rows, bucket_R):
    """Appends the records `rows` of a block to their buckets, as they are."""
    order = np.argsort(bucket_R, kind="stable")
    buckets, firsts = np.unique(bucket_R[order], return_index=True)
    for bucket, part in zip(buckets, np.split(rows[order], firsts[1:])):
        start_R, stop_R = block.start_R[part], block.stop_R[part]
        path = os.path.join(plan.work_path, f"bucket-{bucket:06d}.{worker:03d}")
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.lseek(descriptor, 0, os.SEEK_END)
        try:
            vectors = slices(block.data, start_R, stop_R)
            write_vectors(descriptor, vectors, int((stop_R - start_R).sum()))
        finally:
            os.close(descriptor)


def _bucket_files(plan, bucket):
    return sorted(glob.glob(os.path.join(glob.escape(plan.work_path), f"bucket-{bucket:06d}.*")))


def _read_whole(paths):
    """The bytes of several files in one array."""
    data = np.empty(sum(map(os.path.getsize, paths)), np.uint8)
    view, at = memoryview(data), 0
    for path in paths:
        with open(path, "rb", buffering=0) as stream:
            got = True
            while got:
                got = stream.readinto(view[at:])
                at += got
    assert at == data.size, paths
    return data


def _create(path):
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
