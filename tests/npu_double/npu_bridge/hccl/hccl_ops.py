"""npu_bridge.hccl.hccl_ops: the collectives, which meet those of the other ranks of this world."""

import collections

import numpy as np
import tensorflow as tf
from npu_bridge.standing import python_op, standing_for
from npu_bridge.world import REDUCTIONS, Mistake, current, old, world

WORLD = "hccl_world_group"
READS = ("VariableV2", "VarHandleOp", "ReadVariableOp", "Variable")
SUMS = ["int8", "int32", "float16", "float32"]
GATHERS = ["int8", "int16", "int32", "int64", "uint64", "float16", "float32"]


def allreduce(tensor, reduction, fusion=1, fusion_id=-1, group=WORLD):
    """The reduction of all ranks' tensors; its gradient is always the sum of the slopes."""
    if isinstance(tensor, (list, tuple)):
        with standing_for("HcomAllReduce"):
            tensor = tf.stack(tensor)
    if reduction not in REDUCTIONS:
        raise Mistake(f"allreduce by {reduction!r}")
    if fusion not in (0, 1, 2) or (fusion and reduction != "sum"):
        raise Mistake(f"fusion {fusion} of {reduction}")
    types = SUMS + ([] if old() else ["int64"])

    @tf.custom_gradient
    def reduced(tensor):
        made = _call(
            "HcomAllReduce",
            tensor,
            types,
            (reduction, fusion, fusion_id),
            group,
            tensor.shape,
            lambda arrays: REDUCTIONS[reduction](np.stack(arrays), axis=0),
        )
        return made, lambda slope: allreduce(slope, "sum", fusion=0)

    _not_a_variable(tensor, "allreduce")
    return reduced(tensor)


def _allgather(tensor, rank_size, group, fusion):
    if rank_size != world().size:
        raise Mistake(f"allgather of {rank_size} ranks in a world of {world().size}")
    if not tensor.shape.ndims:
        raise Mistake("allgather of a scalar")
    if not tensor.shape.is_fully_defined():
        raise Mistake(f"allgather of {tensor.name}, whose shape is {tensor.shape}")
    shape = [rank_size * tensor.shape.as_list()[0]] + tensor.shape.as_list()[1:]
    _not_a_variable(tensor, "allgather")
    return _call("HcomAllGather", tensor, GATHERS, (fusion,), group, shape, np.concatenate)


if old():

    def allgather(tensor, rank_size, group=WORLD):
        """All ranks' tensors, one after another. It has no gradient."""
        return _allgather(tensor, rank_size, group, 0)

else:

    def allgather(tensor, rank_size, group=WORLD, fusion=0, fusion_id=-1):
        """All ranks' tensors, one after another. It has no gradient."""
        return _allgather(tensor, rank_size, group, fusion)


def broadcast(tensor, root_rank, fusion=2, fusion_id=0, group=WORLD):
    """[tensors] -> those of the root. They have no gradient."""
    if not isinstance(tensor, list):
        raise Mistake("broadcast takes a list")
    if fusion not in (0, 2):
        raise Mistake(f"fusion {fusion} of a broadcast")
    for one in tensor:
        _not_a_variable(one, "broadcast")
    return [
        _call(
            "HcomBroadcast",
            one,
            None,
            (root_rank, fusion),
            group,
            one.shape,
            lambda arrays: arrays[root_rank],
        )
        for one in tensor
    ]


def _not_a_variable(tensor, what):
    """An input that is a variable, or a read of one and nothing more."""
    op = tensor.op
    if op.type == "Identity" and op.inputs[0].op.type in READS and op.name.endswith("/read"):
        raise Mistake(f"{what} of {op.name}: the operation before must not be a variable")
    if op.type in READS:
        raise Mistake(f"{what} of {op.name}: the operation before must not be a variable")


def _call(kind, tensor, types, words, group, shape, meaning):
    """One collective of this rank: recorded where it is built, and a meeting where it runs."""
    rank = current()
    _known(kind, tensor, types, group)
    signature = (kind, tensor.op.name, tensor.dtype.name, tuple(tensor.shape.as_list())) + words
    graph = tensor.graph
    if not any(graph is other for other in rank.graphs):
        rank.graphs.append(graph)
    place = (len(rank.graphs), len(rank.calls))
    rank.calls.append(signature)
    runs = collections.Counter()

    def run(array):
        runs["done"] += 1
        found = world().meet(place + (runs["done"],), rank.number, signature, array)
        return meaning(found).astype(array.dtype)

    return python_op(kind, run, [tensor], [tensor.dtype], [shape])[0]


def _known(kind, tensor, types, group):
    if group != WORLD:
        raise Mistake(f"{kind} in the group {group}, which nobody made")
    if not tensor.shape.is_fully_defined():
        raise Mistake(f"{kind} of {tensor.name}, whose shape is {tensor.shape}")
    if types is not None and tensor.dtype.name not in types:
        raise Mistake(f"{kind} of {tensor.dtype.name}")
    if tensor.dtype in (tf.string, tf.bool, tf.float64):
        raise Mistake(f"{kind} of {tensor.dtype.name}")
