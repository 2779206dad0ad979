"""Reads checkpoints: the net that one holds, its variables as arrays, and the one restore.

A variable may have other names in a checkpoint: InsightFace_TF's were written by several versions
of TensorLayer, and where a run kept moving averages of its weights, those are what it validated.
"""

import os
from typing import Dict, Iterable, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from checkpoint.format import (
    check_path,
    find_checkpoint,
    plain_prefix,
    read_record,
)
from nets.lineages import NetSpec
from nets.weights.layout import describe, differences
from nets.weights.name_maps import canonical, recognise
from runtime.files import first_line
from runtime.tf1 import tf
from runtime.variables import stored, variable_bytes

AVERAGE = "/ExponentialMovingAverage"  # what tf.train.ExponentialMovingAverage names its own
LARGE = 256 << 20  # bytes; such variables are restored one after the other
UNREADABLE = (tf.errors.OpError, ValueError, RuntimeError)  # what TensorFlow raises at damage


class SavedVariable(NamedTuple):
    """A variable of a checkpoint."""

    name: str  # in the checkpoint
    shape: List[int]


def spec_of(prefix: str) -> NetSpec:
    """The NetSpec of a checkpoint: from its record, or for InsightFace_TF's own checkpoints, which
    have none, from the names and shapes of its variables."""
    prefix = plain_prefix(prefix)
    if os.path.exists(f"{prefix}.json"):
        return NetSpec.from_json(read_record(prefix)["net"])
    spec = recognise(_open(prefix).get_variable_to_shape_map())
    if spec is None:
        raise ValueError(
            f"{prefix}.json is missing, and the checkpoint's variables are not those of a net of "
            "InsightFace_TF. Put the .json back into the same directory."
        )
    return spec


def stored_names(prefix: str, averages: bool = True) -> Dict[str, SavedVariable]:
    """{name in this repository's spelling: SavedVariable}; moving averages replace the weights that
    they are of, unless `averages` is False."""
    shapes = _open(prefix).get_variable_to_shape_map()
    saved = {canonical(name): SavedVariable(name, shape) for name, shape in shapes.items()}
    averaged = [name for name in saved if name.endswith(AVERAGE)] if averages else []
    saved.update({name[: -len(AVERAGE)]: saved[name] for name in averaged})
    return saved


def variable_arrays(
    prefix: str, names: Iterable[str], averages: bool = True
) -> Dict[str, np.ndarray]:
    """{name: float32 array} of a checkpoint's variables, by this repository's spelling.
    averages: see stored_names."""
    names = list(names)
    saved, reader = stored_names(prefix, averages), _open(prefix)
    missing = [name for name in names if name not in saved]
    if missing:
        raise ValueError(f"{prefix} lacks {len(missing)} variables of its net, first {missing[0]}.")
    try:
        return {name: reader.get_tensor(saved[name].name) for name in names}
    except UNREADABLE as error:
        raise _unreadable(prefix, error) from None


def restore(session: tf.Session, prefix: str, variables: Iterable[tf.Variable]) -> None:
    """Fills `variables` by this repository's spelling; one that is missing or has another shape is
    a ValueError that lists the first ten."""
    wanted = {variable.op.name: variable for variable in variables}
    saved = stored_names(prefix)
    expected = {name: variable.shape.as_list() for name, variable in wanted.items()}
    found = {name: shape for name, (_, shape) in saved.items() if name in wanted}
    wrong = differences(expected, found)
    if wrong:
        raise ValueError(f"{prefix} does not fit the net: {wrong}.{_other_net(prefix)}")
    load(session, prefix, {saved[name].name: variable for name, variable in wanted.items()})


def load(session: tf.Session, prefix: str, variables: Mapping[str, tf.Variable]) -> None:
    """{name in the checkpoint: variable}, each filled."""
    with session.graph.as_default():
        placeholder = tf.placeholder(tf.string, [])
        operation = restore_op(placeholder, variables.items())
    run_restore(session, operation, placeholder, prefix)


def run_restore(
    session: tf.Session, operation: tf.Operation, placeholder: tf.Tensor, prefix: str
) -> None:
    """Runs a restore_op; damage on disk is a ValueError."""
    prefix = plain_prefix(prefix)
    check_path(prefix)
    try:
        session.run(operation, {placeholder: prefix})
    except UNREADABLE as error:
        raise _unreadable(prefix, error) from None


def restore_op(prefix: tf.Tensor, variables: Iterable[Tuple[str, tf.Variable]]) -> tf.Operation:
    """The op that fills (name in the checkpoint, variable) pairs, of a slice its own rows.

    One RestoreV2 reads all small variables: one for each would double the time that building a
    graph takes. Large variables follow one another, since each is in memory twice until it is
    assigned."""
    pairs = list(variables)
    small = [pair for pair in pairs if variable_bytes(pair[1]) <= LARGE]
    assigned = _restored(prefix, small) if small else []
    previous: List[tf.Operation] = []
    for pair in pairs:
        if variable_bytes(pair[1]) > LARGE:
            with tf.control_dependencies(previous):
                previous = _restored(prefix, [pair])
            assigned += previous
    return tf.group(*assigned)


def _restored(prefix: tf.Tensor, pairs: Sequence[Tuple[str, tf.Variable]]) -> List[tf.Operation]:
    """One read of the pairs' tensors, and the op that assigns each."""
    with tf.device("/cpu:0"):
        values = tf.raw_ops.RestoreV2(
            prefix=prefix,
            tensor_names=[name for name, _ in pairs],
            shape_and_slices=[stored(variable).slice_spec for _, variable in pairs],
            dtypes=[variable.dtype.base_dtype for _, variable in pairs],
        )
        fitting = [tf.ensure_shape(value, v.shape) for value, (_, v) in zip(values, pairs)]
    assigned = []
    for value, (_, variable) in zip(fitting, pairs):
        with tf.device(variable.device):
            assigned.append(variable.assign(value, read_value=False))
    return assigned


def _open(prefix: str) -> "tf.train.NewCheckpointReader":
    """TensorFlow's reader of a checkpoint that exists and can be opened."""
    prefix = find_checkpoint(prefix)
    try:
        return tf.train.load_checkpoint(prefix)
    except UNREADABLE as error:
        raise ValueError(f"{prefix} is not a readable checkpoint: {first_line(error)}") from None


def _unreadable(prefix: str, error: BaseException) -> ValueError:
    return ValueError(f"{prefix} cannot be read: {first_line(error)}. Copy it again.")


def _other_net(prefix: str) -> str:
    found = recognise(_open(prefix).get_variable_to_shape_map())
    return f" Its variables are those of {describe(found)}." if found else ""
