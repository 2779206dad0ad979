"""The operations of a graph that an Ascend NPU compiles, and those that are not known to work."""

import collections
from typing import Any, Dict, Iterable, List, Sequence, Set, Tuple

from runtime.npu.supported_ops import EVIDENCE, HOST, NEVER, REF_USERS, SPARE_OUTPUTS
from runtime.tf1 import tf

STANDS_FOR = "_npu_op"  # attribute of a test double's op: the name of the device's op
CLEAN = ("float16", "float32", "bool", "int8", "uint8", "int16", "int32", "int64")


def compiled(fetches: Iterable[object]) -> List[tf.Operation]:
    """The operations that a run of these fetches sends to the device: all that they depend on,
    without the input pipeline."""
    todo = [getattr(item, "op", item) for item in fetches]
    found: Dict[tf.Operation, bool] = collections.OrderedDict()
    while todo:
        op: Any = todo.pop()
        if op in found or op.type in HOST:
            continue
        found[op] = True
        if op.type != "IteratorGetNext":
            todo += [tensor.op for tensor in op.inputs]
        todo += list(op.control_inputs)
    return list(found)


def folded(ops: Iterable[tf.Operation]) -> Set[tf.Operation]:
    """The operations that TensorFlow folds before the adapter sees the graph: those that depend on
    constants and static shapes alone."""
    known: Set[tf.Operation] = set()
    for op in sorted(ops, key=lambda op: op._id):  # inputs before their users
        if _computed(op, known):
            known.add(op)
    return known


def _computed(op, known):
    if op.type == "Const":
        return True
    if op.type in ("Shape", "ShapeN", "Size", "Rank"):
        return all(tensor.shape.is_fully_defined() for tensor in op.inputs)
    plain = op.inputs and not op.op_def.is_stateful and STANDS_FOR not in op.node_def.attr
    return bool(plain) and all(tensor.op in known for tensor in op.inputs)


def kind_of(op: tf.Operation) -> str:
    """The device's name of an operation: its type, or that of the op that a double replaces."""
    try:
        return op.get_attr(STANDS_FOR).decode()
    except ValueError:
        return op.type


def faults(ops: Sequence[tf.Operation], where: str) -> List[str]:
    """Operations on the device -> a sentence for each kind of fault, with the first operation."""
    found: Dict[str, str] = collections.OrderedDict()
    inside, before = set(ops), folded(ops)
    for op in ops:
        if op in before:
            continue
        kind = kind_of(op)
        for what in _faults_of(op, kind, inside):
            found.setdefault(f"{where}: {what}", op.name)
    return [f"{what} (first: {name})" for what, name in found.items()]


def _faults_of(op, kind, inside):
    if kind in NEVER:
        yield f"{kind} is refused: {NEVER[kind]}"
    elif kind not in EVIDENCE:
        yield f"there is no evidence that the device supports {kind}"
    if kind != op.type:
        return  # the types of a double are not those of the device
    for tensor in op.outputs[: SPARE_OUTPUTS.get(kind)]:
        dtype = tensor.dtype.base_dtype.name
        if dtype not in CLEAN:
            yield f"{kind} makes {dtype}, which the device does not support"
        if not tensor.shape.is_fully_defined():
            yield f"{kind} makes a shape that is not static: {tensor.shape}"
        if tensor.dtype._is_ref_dtype:
            for user in tensor.consumers():
                if user in inside and user.type not in REF_USERS:
                    yield f"a variable's reference goes into {user.type}"


def convolved(ops: Iterable[tf.Operation]) -> Set[Tuple[int, ...]]:
    """The input shapes of the graph's convolutions. Each new shape is compiled separately."""
    kinds = ("Conv2D", "DepthwiseConv2dNative")
    return {tuple(op.inputs[0].shape.as_list()) for op in ops if op.type in kinds}
