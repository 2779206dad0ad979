"""Variables and what their owners say of them: the layer that makes a weight says if it decays, and
whether it is a slice of a larger one."""

import collections
import copy
import re
import zlib

from runtime.tf1 import tf

DECAYED = "decayed_variables"
SLICED = "sliced_variables"
OPTIONAL = "optional_variables"  # which a checkpoint may lack: they keep their first values then
_REPLICA = re.compile(r"^replica_\d+(/|$)")  # the scope of a host's second rank and the next

# A variable in a checkpoint: its name there, the shape of the whole of it, and which part of that
# it is, as SaveV2 and RestoreV2 write it: "1000 512 250,250:0,512" is rows 250 to 499; "" all.
Stored = collections.namedtuple("Stored", "name full_shape slice_spec")


def weight(name, shape, initializer, decay=False, trainable=True, slice_of=None):
    """A float32 variable of the current scope. decay: whether L2 pulls it towards zero.
    slice_of: (first_row, all_rows), where it is rows of a variable that several ranks hold.
    Where the initializer has no seed of its own, the graph's seed and the variable's name are it:
    one more operation elsewhere in the graph changes no first weight, and each rank's is the same.
    """
    variable = tf.get_variable(
        name, shape, tf.float32, initializer=_seeded(initializer, name), trainable=trainable
    )
    if decay and not any(variable is other for other in tf.get_collection(DECAYED)):
        tf.add_to_collection(DECAYED, variable)  # a second tower reuses the variable: marked once
    if slice_of is not None:
        _mark_slice(variable, *slice_of)
    return variable


def decayed_variables():
    """The default graph's variables that their owners marked as decaying, oldest first."""
    return tf.get_collection(DECAYED)


def sliced_like(variable, other):
    """Marks `variable` as the same rows of a larger one as `other` is, if it is some; returns it.
    For the state of an optimizer, that goes with the rows of what it moves."""
    found = _slice(other)
    if found is not None and variable.shape.as_list() == other.shape.as_list():
        _mark_slice(variable, *found)
    return variable


def is_sliced(variable):
    """Whether other ranks hold other rows of what `variable` is a part of."""
    return _slice(variable) is not None


def stored(variable, rows=None):
    """variable -> Stored. Each rank's own copy of a variable, as each rank's slice, has the name
    that it has where there is one rank. rows: (start, stop), where it is only some of its rows."""
    name, shape = plain_name(variable.op.name), variable.shape.as_list()
    found = _slice(variable)
    if found is None and rows is None:
        return Stored(name, tuple(shape), "")
    start, stop = rows or (0, shape[0])
    first, all_rows = found or (0, shape[0])
    full = (all_rows,) + tuple(shape[1:])
    spans = [f"{first + start},{stop - start}"] + [f"0,{length}" for length in shape[1:]]
    return Stored(name, full, f"{' '.join(map(str, full))} {':'.join(spans)}")


def variable_bytes(variable):
    return variable.shape.num_elements() * variable.dtype.size


def plain_name(name):
    """A name without the scope of the rank that it belongs to: replica_1/conv1/W -> conv1/W."""
    return _REPLICA.sub("", name)


def _mark_slice(variable, first_row, all_rows):
    """Kept by name: a variable of another graph, or a second handle to this one, is the same."""
    assert 0 <= first_row and first_row + variable.shape.as_list()[0] <= all_rows
    if _slice(variable) is None:
        tf.add_to_collection(SLICED, (variable.op.name, first_row, all_rows))


def _slice(variable):
    """(first_row, all_rows) of a slice, None of a whole variable."""
    marked = variable.graph.get_collection(SLICED)
    return next(((first, rows) for name, first, rows in marked if name == variable.op.name), None)


def _seeded(initializer, name):
    if getattr(initializer, "seed", 0) is not None:
        return initializer
    whole = f"{plain_name(tf.get_variable_scope().name)}/{name}"
    initializer = copy.copy(initializer)  # the caller's may start another variable, too
    initializer.seed = zlib.crc32(whole.encode()) & 0x7FFFFFFF
    return initializer
