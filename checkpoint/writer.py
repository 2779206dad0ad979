"""Weights through time: whole checkpoints or none, the newest that is whole, and how many are kept.

A checkpoint is written into a directory of its own, then renamed file by file, its record last. The
record holds the size and CRC-32 of each file: what has no record, or does not match it, is torn.
"""

import errno
import logging
import math
import os
import re
import shutil
import zlib

import numpy as np

from checkpoint.reader import read_record, write_record
from runtime.distributed.ranks import SINGLE
from runtime.tf1 import for_npu, tf
from runtime.variables import is_sliced, plain_name, stored, variable_bytes

PREFIX = "InsightFace_iter_{}.ckpt"
BEST_PREFIX = "InsightFace_iter_best_{}.ckpt"
SAVE_BLOCK = 256 << 20  # bytes of a large variable that are read at a time, to be written
_RECORD = re.compile(r"^InsightFace_iter_(\d+)\.ckpt\.json$")
_PART = re.compile(r"\.part-\d+-\d+\.")  # of what one process wrote, before it is merged
_BEST_RECORD = re.compile(r"^InsightFace_iter_best_(\d+)\.ckpt\.json$")


class CheckpointWriter:
    """Writes the checkpoints of one run. record: what every one of them says of the run.
    agreement: of the processes that write it together, where there are several."""

    def __init__(self, directory, record, keep, ranks=SINGLE, agreement=None):
        self.directory, self.record, self.keep = directory, record, keep
        self.ranks, self.agreement = ranks, agreement
        self._prefix = tf.placeholder_with_default("", [], "prefix")
        names = [plain_name(v.op.name) == v.op.name for v in tf.global_variables()]
        kept = [v for v, own in zip(tf.global_variables(), names) if own or is_sliced(v)]
        self._restore = _restore_op(self._prefix, kept)
        ours = [v for v in kept if ranks.leads or is_sliced(v)]
        self._save = save_op(self._prefix, f".part-{ranks.host}", ours, ranks.size)
        self._merge = merge_op(self._prefix, kept, ranks)

    def restore(self, session, prefix):
        """Takes a checkpoint in: what is whole, and of each slice what is this process's."""
        session.run(self._restore, {self._prefix: prefix})

    def save(self, session, step, **facts):
        """Writes the checkpoint of `step`; facts (images_seen, best, ...) go into its record.
        Returns its prefix, or None where it could not be written: that is said, and training goes
        on, since the next may fit."""
        prefix = self._try(session, PREFIX.format(step), dict(self.record, step=step, **facts))
        if prefix is None or not self.ranks.leads:
            return prefix
        tf.train.update_checkpoint_state(self.directory, prefix)
        for old in steps_in(self.directory)[: -self.keep]:
            _remove(os.path.join(self.directory, PREFIX.format(old)))
        return prefix

    def save_best(self, session, step, **facts):
        """Writes the best checkpoint so far, and only then removes the one that it beats."""
        prefix = self._try(session, BEST_PREFIX.format(step), dict(self.record, step=step, **facts))
        if prefix is None or not self.ranks.leads:
            return prefix
        for old in steps_in(self.directory, _BEST_RECORD):
            if old != step:
                _remove(os.path.join(self.directory, BEST_PREFIX.format(old)))
        return prefix

    def _try(self, session, name, record):
        try:
            return self._write(session, name, record)
        except (OSError, tf.errors.OpError) as error:
            why = getattr(error, "strerror", None) or str(error).splitlines()[0]
            logging.warning(
                "%s could not be written to %s (%s); training goes on: make room there.",
                name,
                self.directory,
                why,
            )
            return None

    def _write(self, session, name, record):
        beside = os.path.join(self.directory, f".writing-{name}")
        self._write_parts(session, os.path.join(beside, name))
        prefix = os.path.join(self.directory, name)
        if not self.ranks.leads:
            return prefix
        try:
            session.run(self._merge, {self._prefix: os.path.join(beside, name)})
            ours = [file for file in sorted(os.listdir(beside)) if not _PART.search(file)]
            record["files"] = {file: _size_and_crc(os.path.join(beside, file)) for file in ours}
            _remove(prefix)  # the record goes first: a half-replaced checkpoint is never whole
            for file in ours:
                os.replace(os.path.join(beside, file), os.path.join(self.directory, file))
            write_record(prefix, record)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return prefix

    def _write_parts(self, session, prefix):
        """Each process its part. Where one of them cannot, none goes on with this checkpoint."""
        fault = None
        try:
            os.makedirs(os.path.dirname(prefix), exist_ok=True)
            session.run(self._save, {self._prefix: prefix})
        except (OSError, tf.errors.OpError) as error:
            fault = error
        written = fault is None
        if self.agreement and not self.agreement.all_say(session, written):
            fault = fault or OSError(errno.EIO, "another host could not write its part")
        if fault is not None:
            shutil.rmtree(os.path.dirname(prefix), ignore_errors=True)
            raise fault


def save_op(prefix, part, variables, size):
    """Writes `variables` to files of prefix + part + "-0", "-1", ...; one part after the other,
    since a block of a large variable is a copy of its rows. size: of all ranks."""
    written = None
    for number, kept in enumerate(_parts(variables, size)):
        with tf.control_dependencies([written] if number else []):
            tensors = [_rows(variable, rows) for variable, rows in kept]
        names = [stored(variable, rows) for variable, rows in kept]
        with tf.device("/cpu:0"):
            written = tf.raw_ops.SaveV2(
                prefix=tf.strings.join([prefix, f"{part}-{number}"]),
                tensor_names=[one.name for one in names],
                shape_and_slices=[one.slice_spec for one in names],
                tensors=tensors,
            )
    return written


def merge_op(prefix, variables, ranks):
    """Makes one checkpoint of what the hosts have written: the first host all that is kept, each of
    the others its slices, in as many parts as the first has of its own."""
    sliced = [variable for variable in variables if is_sliced(variable)]
    counts = [len(_parts(variables, ranks.size))]
    counts += [len(_parts(sliced, ranks.size))] * (ranks.host_count - 1)
    parts = [f".part-{host}-{part}" for host, n in enumerate(counts) for part in range(n)]
    return tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[tf.strings.join([prefix, part]) for part in parts],
        destination_prefix=prefix,
        delete_old_dirs=False,
    )


def _parts(variables, size):
    """[[(variable, (first row, one past the last), or None for all)]]: what is written together. As
    many parts for each of `size` slices of one variable."""
    together, blocks = [], []
    for variable in variables:
        whole = int(np.prod(stored(variable).full_shape, dtype=np.int64)) * variable.dtype.size
        count = math.ceil(whole / (size if is_sliced(variable) else 1) / SAVE_BLOCK)
        if count < 2 or for_npu():  # where a gather is a program of its own
            together.append((variable, None))
            continue
        rows = variable.shape.as_list()[0]
        ends = [rows * number // count for number in range(count + 1)]
        blocks += [[(variable, span)] for span in zip(ends, ends[1:])]
    return [together] * bool(together) + blocks


def _rows(variable, rows):
    if rows is None:
        return variable.value()
    with tf.device(variable.device):
        return tf.gather(variable, tf.range(*rows))


def _restore_op(prefix, variables):
    """Large variables one after the other: each is in memory twice until it is taken over."""
    assigned, large = [], []
    for variable in variables:
        kept = stored(variable)
        with tf.device("/cpu:0"), tf.control_dependencies(large[-1:]):
            (value,) = tf.raw_ops.RestoreV2(
                prefix=prefix,
                tensor_names=[kept.name],
                shape_and_slices=[kept.slice_spec],
                dtypes=[variable.dtype.base_dtype],
            )
        with tf.device(variable.device):
            assigned.append(tf.assign(variable, tf.reshape(value, variable.shape)))
        if variable_bytes(variable) > SAVE_BLOCK:
            large.append(assigned[-1])
    return tf.group(*assigned)


def steps_in(directory, pattern=_RECORD):
    """The steps of the recorded checkpoints in a directory, ascending; none if it is not there."""
    names = os.listdir(directory) if os.path.isdir(directory) else []
    return sorted(int(match.group(1)) for match in map(pattern.match, names) if match)


def newest_whole(directory):
    """(prefix, record) of the newest checkpoint whose files match its record, or (None, None).
    What a killed run left half written is said aloud, and passed over."""
    for step in reversed(steps_in(directory)):
        prefix = os.path.join(directory, PREFIX.format(step))
        fault = _fault(prefix)
        if fault is None:
            return prefix, read_record(prefix)
        logging.warning("%s is torn (%s); trying the one before it.", prefix, fault)
    return None, None


def clear_unfinished(directory):
    """Removes what a killed writer left beside; done by a run that owns the directory."""
    for name in os.listdir(directory):
        if name.startswith(".writing-"):
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)


def _fault(prefix):
    """What is wrong with a recorded checkpoint, or None."""
    try:
        files = read_record(prefix)["files"]
    except (ValueError, KeyError, OSError) as error:
        return f"its record cannot be read: {error}"
    for file, expected in files.items():
        path = os.path.join(os.path.dirname(prefix), file)
        if not os.path.exists(path):
            return f"{file} is missing"
        if _size_and_crc(path) != expected:
            return f"{file} does not match its checksum"
    return None


def _size_and_crc(path):
    crc, size = 0, 0
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 22), b""):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return {"bytes": size, "crc32": crc}


def _remove(prefix):
    """Removes a checkpoint, its record first."""
    directory, name = os.path.split(prefix)
    files = [file for file in os.listdir(directory) if file.startswith(name + ".")]
    for file in sorted(files, key=lambda file: not file.endswith(".json")):
        os.remove(os.path.join(directory, file))
