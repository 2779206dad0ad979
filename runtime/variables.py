"""Variables and their properties: the layer that creates a weight marks whether it decays and
whether it is a slice of a larger variable."""

import copy
import re
import zlib
from typing import Any, List, NamedTuple, Optional, Tuple

from runtime.tf1 import tf

DECAYED = "decayed_variables"
SLICED = "sliced_variables"
OPTIONAL = "optional_variables"  # which a checkpoint may lack: they keep their first values then
_REPLICA = re.compile(r"^replica_\d+(/|$)")  # the scope of a host's second rank and the next

Variable = Any  # tf.Variable, of the ref or the resource kind


class Stored(NamedTuple):
    """A variable in a checkpoint."""

    name: str
    full_shape: Tuple[int, ...]  # of the whole variable
    # The part of it, in the format of SaveV2 and RestoreV2: "1000 512 250,250:0,512" is rows 250
    # to 499; "" is all.
    slice_spec: str


def weight(
    name: str,
    shape: List[int],
    initializer: Any,
    decay: bool = False,
    trainable: bool = True,
    slice_of: Optional[Tuple[int, int]] = None,
) -> Variable:
    """A float32 variable of the current scope. decay: whether weight decay includes it.
    slice_of: (first_row, all_rows) where it is rows of a variable that several ranks hold.
    An initializer without a seed gets one from the variable's name, in addition to the graph's:
    initial values then do not depend on other operations of the graph, and are equal on all ranks.
    """
    variable = tf.get_variable(
        name, shape, tf.float32, initializer=_seeded(initializer, name), trainable=trainable
    )
    if decay and not any(variable is other for other in tf.get_collection(DECAYED)):
        tf.add_to_collection(DECAYED, variable)  # a second tower reuses the variable: marked once
    if slice_of is not None:
        _mark_slice(variable, *slice_of)
    return variable


def decayed_variables() -> List[Variable]:
    """The variables of the default graph that weight decay includes, in order of creation."""
    return tf.get_collection(DECAYED)


def sliced_like(variable: Variable, other: Variable) -> Variable:
    """Marks `variable` as the same slice as `other`, if that is one; returns it. For the state of
    an optimizer, which is sliced like the variable that it updates."""
    found = _slice(other)
    if found is not None and variable.shape.as_list() == other.shape.as_list():
        _mark_slice(variable, *found)
    return variable


def is_sliced(variable: Variable) -> bool:
    """Whether `variable` is a slice of which other ranks hold the other rows."""
    return _slice(variable) is not None


def stored(variable: Variable, rows: Optional[Tuple[int, int]] = None) -> Stored:
    """variable -> Stored. A rank's copy of a variable, and its slice, have the name that they have
    with one rank. rows: (start, stop), for some of its rows only."""
    name, shape = plain_name(variable.op.name), variable.shape.as_list()
    found = _slice(variable)
    if found is None and rows is None:
        return Stored(name, tuple(shape), "")
    start, stop = rows or (0, shape[0])
    first, all_rows = found or (0, shape[0])
    full = (all_rows,) + tuple(shape[1:])
    spans = [f"{first + start},{stop - start}"] + [f"0,{length}" for length in shape[1:]]
    return Stored(name, full, f"{' '.join(map(str, full))} {':'.join(spans)}")


def variable_bytes(variable: Variable) -> int:
    return variable.shape.num_elements() * variable.dtype.size


def plain_name(name: str) -> str:
    """A name without the scope of its rank: replica_1/conv1/W -> conv1/W."""
    return _REPLICA.sub("", name)


def _mark_slice(variable, first_row, all_rows):
    """By name: a second handle to the same variable finds it too."""
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
