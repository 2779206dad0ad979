"""How many bytes of tensors a step holds at most, read from its graph: nothing is run.

The operations that a step needs are walked in the order in which two threads of TensorFlow's
executor start them when each takes as long as the others. A tensor is held from its operation
until the last of those that read it is done; some operations write into the buffer of what they
read last. A while loop is one operation, whose body is walked by itself. Kernels' own scratch
memory is not in the graph.
"""

import collections
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from losses.centre_cosines import BLOCK_ROWS
from runtime.tf1 import tf

# Operations that hand on a buffer: of input i for output i, or of the first for all outputs.
SAME_BUFFER = {
    "Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "Switch", "Merge",
    "Enter", "Exit", "NextIteration", "PreventGradient", "CheckNumerics", "PlaceholderWithDefault",
    "Bitcast", "Snapshot",
}  # fmt: skip
# Operations that write into an input's buffer if nothing else will read it.
IN_PLACE = {
    "Add", "AddN", "AddV2", "BiasAdd", "CollectiveReduce", "Exp", "FloorMod", "FusedBatchNormV3",
    "Log", "Maximum", "Minimum", "Mul", "Neg", "RealDiv", "Relu", "ReluGrad", "Rsqrt", "RsqrtGrad",
    "Select", "SelectV2", "Sigmoid", "SigmoidGrad", "Sqrt", "SqrtGrad", "Square", "Sub", "Tanh",
    "TensorScatterAdd", "TensorScatterSub", "TensorScatterUpdate",
}  # fmt: skip
# Operations whose outputs are not made in the step: they were there before it, or are fed.
THERE_BEFORE = {"Const", "Placeholder", "VarHandleOp", "VariableV2", "ReadVariableOp"}
UPDATES = "ResourceApply"  # how the names of operations begin that write a variable's own buffer
# Operations on rows of a variable: every other reading of it is then a copy.
BY_ROWS = {"ResourceGather", "ResourceScatterUpdate"}


class Live(NamedTuple):
    """The tensors that a run holds."""

    peak: int  # bytes
    held: Dict[str, int]  # name of an operation -> bytes of its outputs that are held at the peak


def live_tensors(fetches: Sequence[Any]) -> Live:
    """The tensors of a session.run of operations or tensors."""
    ops = needed(fetches)
    return _Walk(_units(ops), copied=_read_by_rows(ops[0].graph)).live()


def needed(fetches: Sequence[Any]) -> List[tf.Operation]:
    """Every operation that a session.run of `fetches` runs, in the order of their creation."""
    found, waiting = set(), [getattr(fetch, "op", fetch) for fetch in fetches]
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return sorted(found, key=lambda op: op._id)


def scope_of(tower: Any) -> str:
    """The name scope of a tower's network, forward and backward. tower: a training.graph.Tower."""
    return tower.backbone[0].op.name.split("/")[0]


class _Unit:
    """What runs at one go: an operation, or a while loop with all that is in it."""

    def __init__(self, place, ops):
        self.place, self.ops = place, ops
        self.inputs, self.outputs = [], []  # tensors from other units; those that others may read
        self.before, self.after = set(), []

    @property
    def op(self):
        """The operation, or None for a loop."""
        return self.ops[0] if len(self.ops) == 1 else None


def _units(ops, inside=None):
    """Operations -> units that know their neighbours, in the order of their making.
    inside: the loop whose body this is; its own cycle is cut."""
    groups = collections.OrderedDict()
    for op in ops:
        loop = _loop(op, inside)
        groups.setdefault(id(op) if loop is None else id(loop), []).append(op)
    units = [_Unit(place, members) for place, members in enumerate(groups.values())]
    of = {op: unit for unit in units for op in unit.ops}
    for unit in units:
        _join(unit, of, cyclic=inside is not None)
    return units


def _join(unit, of, cyclic):
    own = set(unit.ops)
    for op in unit.ops:
        read = [tensor for tensor in op.inputs if tensor.op not in own]
        if cyclic:  # the next turn's values come from this turn's end
            read = [tensor for tensor in read if tensor.op.type != "NextIteration"]
        unit.inputs += [tensor for tensor in read if tensor.op in of]
        before = [tensor.op for tensor in read] + list(op.control_inputs)
        unit.before |= {of[one] for one in before if one in of and of[one] is not unit}
    unit.inputs = list(collections.OrderedDict.fromkeys(unit.inputs))
    for tensor in unit.inputs:
        others = of[tensor.op].outputs
        if tensor not in others:
            others.append(tensor)
    for one in unit.before:
        one.after.append(unit)


def _loop(op, inside):
    """The outermost while loop within `inside` that an operation belongs to, or None."""
    if op.type == "Exit":  # it stands in the context around its loop
        op = op.inputs[0].op
    context, found = op._get_control_flow_context(), None
    while context is not None and context is not inside:
        found = context if context.IsWhileContext() else found
        context = context.outer_context
    return found


class _Walk:
    """The walk, and what is held as it goes. A buffer is named by the tensor it was made for."""

    def __init__(self, units, rows=None, copied=()):
        """rows: how many a dimension has that is not known. copied: handles of variables whose
        reading is a copy."""
        self.units, self.rows, self.copied = units, rows, copied
        self.readers = collections.Counter(tensor for unit in units for tensor in unit.inputs)
        self.buffer, self.left, self.size = {}, collections.Counter(), {}
        self.arrays = _arrays(units)
        self.reads = collections.defaultdict(list)  # a variable's handle -> buffers of its values
        self.now, self.peak, self.held = 0, 0, {}

    def live(self):
        missing = {unit: len(unit.before) for unit in self.units}
        ready, mine = collections.deque(unit for unit in self.units if not unit.before), False
        while ready:  # two threads: one continues with what it made, the other takes the oldest
            mine = not mine
            unit = ready.pop() if mine else ready.popleft()
            self._run(unit)
            for after in sorted(unit.after, key=lambda one: one.place):
                missing[after] -= 1
                if not missing[after]:
                    ready.append(after)
        return Live(self.peak, self._named())

    def _run(self, unit):
        for number, tensor in enumerate(unit.op.outputs if unit.op is not None else unit.outputs):
            buffer = self._shared(unit, number, tensor)
            if buffer is None:
                buffer = tensor
                self._make(tensor, self._bytes(tensor))
            self.buffer[tensor] = buffer
            self.left[buffer] += self.readers[tensor]
        if unit.op is not None and unit.op.type.startswith(UPDATES):
            self._copy_what_is_read(unit.op)
        self._note(0 if unit.op is not None else _scratch(unit))
        for tensor in unit.inputs:
            self.left[self.buffer[tensor]] -= 1
        touched = [self.buffer[tensor] for tensor in unit.inputs]
        for buffer in touched + [self.buffer.get(tensor) for tensor in unit.outputs]:
            self._free(buffer)
        if unit.op is not None:
            for tensor in unit.op.outputs:
                self._free(self.buffer[tensor])

    def _shared(self, unit, number, tensor):
        """The buffer of an input that this output is in, or None."""
        op = unit.op
        if op is None or not op.inputs:
            return None
        if op.type in SAME_BUFFER:
            place = number if op.type == "IdentityN" else 0
            candidates = op.inputs if op.type == "Merge" else [op.inputs[place]]
            return next((self.buffer[one] for one in candidates if one in self.buffer), None)
        if op.type in IN_PLACE and number == 0:
            for one in op.inputs:
                buffer = self.buffer.get(one)
                last = buffer is not None and self.left[buffer] == 1 and self.readers[one] == 1
                if last and 0 < self.size[buffer] == self._bytes(tensor):
                    return buffer
        return None

    def _bytes(self, tensor):
        if tensor in self.arrays:
            return self.arrays[tensor]
        if tensor.op.type in THERE_BEFORE:
            if tensor.op.type == "ReadVariableOp":
                if tensor.op.inputs[0] in self.copied:
                    return tensor_bytes(tensor)
                self.reads[tensor.op.inputs[0]].append(tensor)
            return 0
        return tensor_bytes(tensor, self.rows)

    def _copy_what_is_read(self, op):
        """An update copies a variable first, whose old values something will still read."""
        for buffer in self.reads[op.inputs[0]]:
            if self.left[buffer] > 0 and not self.size[buffer]:
                self._make(buffer, tensor_bytes(buffer, self.rows))

    def _make(self, buffer, size):
        self.size[buffer] = size
        self.now += size

    def _note(self, scratch):
        if self.now + scratch > self.peak:
            self.peak = self.now + scratch
            self.held = dict(self.size)

    def _free(self, buffer):
        if buffer is not None and self.left[buffer] <= 0 and buffer in self.size:
            self.now -= self.size.pop(buffer)

    def _named(self):
        named = collections.Counter()
        for buffer, size in self.held.items():
            named[buffer.op.name] += size
        return {name: size for name, size in named.items() if size}


def _scratch(loop):
    """What the body of a loop holds at most, besides what goes in and out of it."""
    body = [op for op in loop.ops if op.type not in ("Enter", "Exit")]
    return _Walk(_units(body, _loop(loop.ops[0], None)), BLOCK_ROWS).live().peak


def _read_by_rows(graph):
    """The handles of the variables that some operation of the graph reads or writes by rows."""
    handles = [op.inputs[0] for op in graph.get_operations() if op.type in BY_ROWS]
    while any(handle.op.type in SAME_BUFFER for handle in handles):
        inner = [handle.op for handle in handles if handle.op.type in SAME_BUFFER]
        handles = [handle for handle in handles if handle.op.type not in SAME_BUFFER]
        handles += [op.inputs[0] for op in inner]
    return set(handles)


def _arrays(units):
    """{the tensor that stands for a TensorArray's contents: their bytes}."""
    ends = [op for unit in units for op in unit.ops if op.type == "TensorArrayConcatV3"]
    return {op.inputs[1]: tensor_bytes(op.outputs[0]) for op in ends}


def tensor_bytes(tensor: tf.Tensor, rows: Optional[int] = None) -> int:
    """Of a tensor; a dimension that is not known is `rows`, or the tensor does not count."""
    shape = tensor.shape
    if tensor.dtype in (tf.resource, tf.variant, tf.string) or shape.ndims is None:
        return 0
    sizes = [rows if size is None else size for size in shape.as_list()]
    if None in sizes:
        return 0
    return int(np.prod(sizes, dtype=np.int64)) * tensor.dtype.size
