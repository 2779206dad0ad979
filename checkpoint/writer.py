"""Writes checkpoints: complete or not at all, durable, and only as many as are kept.

A checkpoint is written into a directory of its own, then renamed file by file, its record last.
"""

import errno
import logging
import math
import os
import shutil
import time
from typing import Any, Dict, List, Mapping, Optional, Pattern, Sequence, Tuple

import numpy as np

from checkpoint.format import (
    BEST_PREFIX,
    BEST_RECORD,
    PREFIX,
    RECORD,
    WRITING,
    check_path,
    remove_checkpoint,
    size_and_crc,
    steps_in,
    write_record,
)
from checkpoint.reader import restore_op, run_restore, stored_names
from runtime.device import current
from runtime.distributed.ranks import SINGLE, Ranks
from runtime.files import first_line, sync_directory, sync_file
from runtime.session import session_config
from runtime.tf1 import tf
from runtime.variables import OPTIONAL, is_sliced, plain_name, stored

SAVE_BLOCK = 256 << 20  # bytes of a large variable that are read and written together
ATTEMPTS = 2  # a network file system often recovers; a full disk may have lost an old checkpoint
PAUSE_SECONDS = 1.0  # before the second attempt
FULL = (errno.ENOSPC, errno.EDQUOT)

Rows = Optional[Tuple[int, int]]  # (first, one past the last) of a variable; None: all
Block = List[Tuple[tf.Variable, Rows]]  # what is written into one file
WRITE_ERRORS = (OSError, tf.errors.OpError)


class CheckpointWriter:
    """Writes the checkpoints of one run.

    saved_step: of the last one that `save` wrote. failure: why the last `save` wrote none, or "";
    a run that ends with a failure has lost the steps since saved_step."""

    def __init__(
        self,
        directory: str,
        record: Mapping[str, Any],
        keep: int,
        ranks: Ranks = SINGLE,
        agreement: Any = None,
    ) -> None:
        """record: what the record of every checkpoint holds. agreement: of the processes that write
        one checkpoint together (runtime.distributed.collectives.Agreement)."""
        check_path(directory)
        self.directory, self.record, self.keep = directory, record, keep
        self.ranks, self.agreement = ranks, agreement
        self.saved_step: Optional[int] = None
        self.failure = ""
        self._written = 0  # attempts, the same number in every process
        self._prefix = tf.placeholder_with_default("", [], "prefix")
        self._kept = kept = [v for v in tf.global_variables() if _is_kept(v)]
        self.bytes = sum({stored(v).name: _full_bytes(v) for v in kept}.values())
        self._restore = restore_op(self._prefix, [(stored(v).name, v) for v in kept])
        ours = [v for v in kept if ranks.leads or is_sliced(v)]
        self._save = save_op(self._prefix, f".part-{ranks.host}", ours, ranks.size)
        self._merge = merge_op(self._prefix, kept, ranks)

    def restore(self, session: tf.Session, prefix: str) -> None:
        """Fills all variables of the run, and of each slice what belongs to this process. A loss
        scale that the checkpoint lacks keeps its first value, and the log reports it."""
        missing = _missing_optional(prefix)
        restore = self._restore
        if missing:
            logging.info(
                "%s has no %s, as it was trained without: it starts anew.",
                prefix,
                " and no ".join(sorted({_group_of(v) for v in missing})),
            )
            left = [v for v in self._kept if not any(v is other for other in missing)]
            restore = restore_op(self._prefix, [(stored(v).name, v) for v in left])
        run_restore(session, restore, self._prefix, prefix)

    def save(self, session: tf.Session, step: int, **facts: Any) -> Optional[str]:
        """Writes the checkpoint of `step`; facts (images_seen, best, ...) go into its record.
        Returns its prefix, or None where it could not be written: that is logged, and kept in
        `failure`."""
        record = dict(self.record, step=step, **facts)
        prefix = self._attempt(session, PREFIX.format(step), record)
        if prefix is None:
            return None
        self.saved_step = step
        if self.ranks.leads:
            self._tidy(prefix)
        return prefix

    def save_best(self, session: tf.Session, step: int, **facts: Any) -> Optional[str]:
        """Writes the best checkpoint so far, and then removes the previous best."""
        record, failure = dict(self.record, step=step, **facts), self.failure
        prefix = self._attempt(session, BEST_PREFIX.format(step), record)
        self.failure = failure  # the run's last state is not in the best checkpoint
        if prefix is not None and self.ranks.leads:
            for old in _other_steps(self.directory, BEST_RECORD, step):
                remove_checkpoint(os.path.join(self.directory, BEST_PREFIX.format(old)))
        return prefix

    def _attempt(self, session: tf.Session, name: str, record: Dict[str, Any]) -> Optional[str]:
        """The prefix, or None after ATTEMPTS. Every process makes the same number of attempts."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                prefix = self._write(session, name, record)
            except WRITE_ERRORS as error:
                self.failure = _cause(error)
                last = attempt == ATTEMPTS
                logging.warning(
                    "%s could not be written to %s: %s (%s). %s",
                    name,
                    self.directory,
                    self.failure,
                    self._room(),
                    "Training continues; free some space there." if last else "Trying again.",
                )
                if not last:
                    self._make_room(name, error)
                    time.sleep(PAUSE_SECONDS)
            else:
                self.failure = ""
                return prefix
        return None

    def _tidy(self, prefix: str) -> None:
        """Points other programs to the checkpoint, and removes the oldest ones."""
        try:
            tf.train.update_checkpoint_state(self.directory, prefix)
            self._remove_oldest(self.keep)
        except WRITE_ERRORS as error:  # the checkpoint itself is complete
            logging.warning("%s could not be tidied: %s", self.directory, first_line(error))

    def _room(self) -> str:
        needed = f"{_megabytes(self.bytes)} needed"
        try:
            return f"{needed}, {_megabytes(shutil.disk_usage(self.directory).free)} free"
        except OSError:
            return needed

    def _make_room(self, name: str, error: BaseException) -> None:
        """On a full disk, removes the oldest checkpoint if this one would replace it anyway."""
        replaces = RECORD.match(f"{name}.json") and self.keep > 1
        if self.ranks.leads and replaces and _is_full(error):
            self._remove_oldest(self.keep - 1)

    def _remove_oldest(self, keep: int) -> None:
        for old in steps_in(self.directory)[:-keep]:
            remove_checkpoint(os.path.join(self.directory, PREFIX.format(old)))

    def _write(self, session: tf.Session, name: str, record: Dict[str, Any]) -> str:
        """Each process writes its part, the first merges them. All raise where one of them fails.
        Each attempt has a directory of its own, which no process can remove from under another."""
        self._written += 1
        staging = os.path.join(self.directory, f"{WRITING}{self._written}-{name}")
        try:
            self._together(session, lambda: self._write_part(session, os.path.join(staging, name)))
            self._together(session, lambda: self._merge_parts(session, staging, name, record))
        finally:
            if self.ranks.leads:
                shutil.rmtree(staging, ignore_errors=True)
        return os.path.join(self.directory, name)

    def _write_part(self, session: tf.Session, prefix: str) -> None:
        os.makedirs(os.path.dirname(prefix), exist_ok=True)
        session.run(self._save, {self._prefix: prefix})

    def _merge_parts(
        self, session: tf.Session, staging: str, name: str, record: Dict[str, Any]
    ) -> None:
        if self.ranks.leads:
            session.run(self._merge, {self._prefix: os.path.join(staging, name)})
            _publish(staging, self.directory, name, record)

    def _together(self, session: tf.Session, act: Any) -> None:
        """Runs `act`, and raises in every process where one of them could not."""
        fault: Optional[BaseException] = None
        try:
            act()
        except WRITE_ERRORS as error:
            fault = error
        if self.agreement and not self.agreement.all_agree(session, fault is None):
            fault = fault or OSError(errno.EIO, "another host could not write its part")
        if fault is not None:
            raise fault


def save_arrays(prefix: str, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
    """Writes a checkpoint of {variable's name: array} and its record."""
    check_path(prefix)
    directory, name = os.path.split(prefix)
    directory = directory or "."
    staging = os.path.join(directory, f"{WRITING}{name}")
    try:
        os.makedirs(staging, exist_ok=True)
        with tf.Graph().as_default(), tf.Session(config=session_config("cpu")) as session:
            tensors = [tf.placeholder(array.dtype, array.shape) for array in arrays.values()]
            save = _save_v2(os.path.join(staging, name), list(arrays), [""] * len(arrays), tensors)
            session.run(save, dict(zip(tensors, arrays.values())))
        _publish(staging, directory, name, dict(record))
    except tf.errors.OpError as error:
        raise ValueError(f"{prefix} cannot be written: {first_line(error)}.") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def save_op(
    prefix: tf.Tensor, part: str, variables: Sequence[tf.Variable], size: int
) -> tf.Operation:
    """Writes `variables` to files of prefix + part + "-0", "-1", ...; one block after the other,
    since a block of a large variable is a copy of its rows. size: of all ranks."""
    written = None
    for number, block in enumerate(_blocks(variables, size)):
        with tf.control_dependencies([written] if number else []):
            tensors = [_rows(variable, rows) for variable, rows in block]
        saved = [stored(variable, rows) for variable, rows in block]
        with tf.device("/cpu:0"):
            written = _save_v2(
                tf.strings.join([prefix, f"{part}-{number}"]),
                [variable.name for variable in saved],
                [variable.slice_spec for variable in saved],
                tensors,
            )
    return written


def merge_op(prefix: tf.Tensor, variables: Sequence[tf.Variable], ranks: Ranks) -> tf.Operation:
    """Merges what the hosts have written into one checkpoint: the first host wrote all that is
    kept, each of the others its slices, in as many blocks as the first wrote of its own."""
    sliced = [variable for variable in variables if is_sliced(variable)]
    counts = [len(_blocks(variables, ranks.size))]
    counts += [len(_blocks(sliced, ranks.size))] * (ranks.host_count - 1)
    parts = [f".part-{host}-{block}" for host, n in enumerate(counts) for block in range(n)]
    return tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[tf.strings.join([prefix, part]) for part in parts],
        destination_prefix=prefix,
        delete_old_dirs=False,
    )


def _publish(staging: str, directory: str, name: str, record: Dict[str, Any]) -> None:
    """Renames the files of a complete checkpoint into its directory; the record follows them. They
    are synchronised before, so that a power failure leaves no record without its files."""
    files = [file for file in sorted(os.listdir(staging)) if _is_file_of(name, file)]
    record["files"] = {file: size_and_crc(os.path.join(staging, file)) for file in files}
    for file in files:
        sync_file(os.path.join(staging, file))
    prefix = os.path.join(directory, name)
    remove_checkpoint(prefix)  # its record first: a checkpoint that is half replaced has none
    for file in files:
        os.replace(os.path.join(staging, file), os.path.join(directory, file))
    sync_directory(directory)
    write_record(prefix, record)


def _is_file_of(name: str, file: str) -> bool:
    """Whether a file belongs to the merged checkpoint, not to a part: NAME.part-0-0.index."""
    return file.startswith((f"{name}.index", f"{name}.data-"))


def _save_v2(
    prefix: Any, names: List[str], slice_specs: List[str], tensors: List[tf.Tensor]
) -> tf.Operation:
    return tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=names, shape_and_slices=slice_specs, tensors=tensors
    )


def _is_kept(variable: tf.Variable) -> bool:
    """A copy of another rank's variable is not written; a slice is."""
    return plain_name(variable.op.name) == variable.op.name or is_sliced(variable)


def _missing_optional(prefix: str) -> List[tf.Variable]:
    """The optional variables of the default graph that a checkpoint lacks."""
    optional = [v for v in tf.get_collection(OPTIONAL) if _is_kept(v)]
    if not optional:
        return []
    saved = stored_names(prefix, averages=False)
    return [variable for variable in optional if stored(variable).name not in saved]


def _group_of(variable: tf.Variable) -> str:
    """`loss_scale/value` -> `loss scale`."""
    return variable.op.name.split("/")[0].replace("_", " ")


def _full_bytes(variable: tf.Variable) -> int:
    return int(np.prod(stored(variable).full_shape, dtype=np.int64)) * variable.dtype.size


def _blocks(variables: Sequence[tf.Variable], size: int) -> List[Block]:
    """What is written together: as many blocks for each of `size` slices of one variable."""
    together: Block = []
    blocks: List[Block] = []
    for variable in variables:
        share = _full_bytes(variable) / (size if is_sliced(variable) else 1)
        count = math.ceil(share / SAVE_BLOCK)
        if count < 2 or not current().fetches_vary:  # a gather would be compiled by itself
            together.append((variable, None))
            continue
        rows = variable.shape.as_list()[0]
        ends = [rows * number // count for number in range(count + 1)]
        blocks += [[(variable, span)] for span in zip(ends, ends[1:])]
    return ([together] if together else []) + blocks


def _rows(variable: tf.Variable, rows: Rows) -> tf.Tensor:
    if rows is None:
        return variable.value()
    with tf.device(variable.device):
        return tf.gather(variable, tf.range(*rows))


def _other_steps(directory: str, pattern: Pattern, step: int) -> List[int]:
    return [other for other in steps_in(directory, pattern) if other != step]


def _cause(error: BaseException) -> str:
    """The reason alone: TensorFlow puts the name of a temporary file before it."""
    return getattr(error, "strerror", None) or first_line(error).rsplit("; ", 1)[-1]


def _is_full(error: BaseException) -> bool:
    """TensorFlow has no errno: it reports a full disk by the text of it."""
    code = getattr(error, "errno", None)
    return code in FULL or "No space left" in str(error) or "quota exceeded" in str(error)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
