"""Communication of a rank in a step, counted in its graph, and the step time that follows.

Bytes are those that a rank sends, which are as many as it receives. A ring of n ranks sends
2 (n - 1) / n of what it sums, and n - 1 times a rank's share of what is gathered.
"""

import collections
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from runtime.tf1 import tf
from training.cost.peak_memory import needed, scope_of, tensor_bytes
from training.graph.step import StepOps
from training.graph.tower import Tower

BACKWARD = 2 / 3  # of a step's time: gradients can be exchanged during it
LATENCY = 10e-6  # seconds of an empty message to the next rank
OPS = {"CollectiveReduce": "sum", "CollectiveGather": "gather", "CollectiveBcastSend": "broadcast"}
# Operations between the tensors of a bucket and its sum: see collectives.in_buckets.
_PACKING = {"Identity", "IdentityN", "Cast", "ConcatV2", "Reshape", "StridedSlice"}

GRADIENTS = "gradients of the net"
STATISTICS = "moving statistics"


class Exchange(NamedTuple):
    """One kind of exchange between ranks."""

    what: str  # is exchanged
    op: str  # sum, gather or broadcast
    calls: int  # per step
    payload: int  # bytes of a rank
    sent: float  # bytes that a rank sends for them


def exchanges(ops: StepOps, size: int) -> List[Exchange]:
    """The exchanges of a rank, one of `size`, in a whole step."""
    tower, runs = ops.towers[0], [list(ops.accumulate[:1])] * len(ops.accumulate)
    last = [ops.train, ops.scalars["inference_loss"]]
    runs.append(last + [ops.scalars[name] for name in ("stop_count",) if name in ops.scalars])
    found: Dict[Tuple[str, str], List[int]] = collections.OrderedDict()
    for op in (op for run in runs for op in needed(run) if op.type in OPS):
        found.setdefault((_what(op, tower), OPS[op.type]), []).append(tensor_bytes(op.inputs[0]))
    return [
        Exchange(what, kind, len(sizes), sum(sizes), sent(kind, sum(sizes), size))
        for (what, kind), sizes in found.items()
    ]


def sent(kind: str, payload: float, size: int) -> float:
    """Bytes that each of `size` ranks in a ring sends, for a payload of each."""
    if kind == "sum":
        return 2 * (size - 1) * payload / size
    return (size - 1) * payload if kind == "gather" else payload


def _what(op: tf.Operation, tower: Tower) -> str:
    """The name of an exchange."""
    shape, scope = op.inputs[0].shape.as_list(), scope_of(tower)
    if scope in op.name.split("/"):
        return "statistics of batch norm"
    packed = _packed(op) if op.type == "CollectiveReduce" else None
    if packed is not None:
        read = any(source.type == "ReadVariableOp" for source in packed)
        return STATISTICS if read else GRADIENTS
    if op.type == "CollectiveGather" and not op.inputs[0].dtype.is_floating:
        return "labels"
    if len(shape) == 2 and shape[1] == tower.plain_bD.shape.as_list()[1] and shape[0] > 2:
        return "embeddings" if op.type == "CollectiveGather" else "gradient of the embeddings"
    return "softmax: values per image" if shape else "scalars"


def _packed(op: tf.Operation) -> Optional[List[tf.Operation]]:
    """The operations whose results are in a bucket, or None where `op` sums no bucket."""
    waiting, ends, packed = [op.inputs[0].op], [], False
    while waiting:
        source = waiting.pop()
        if source.type in _PACKING:
            packed = packed or source.type in ("ConcatV2", "Reshape", "StridedSlice")
            waiting += [tensor.op for tensor in source.inputs]
        else:
            ends.append(source)
    return ends if packed else None


class Speeds(NamedTuple):
    """How fast a rank computes and communicates."""

    images_per_second: float  # of a device by itself
    bandwidth: float  # bytes per second to the next rank; with several hosts, of their network
    latency: float = LATENCY  # seconds of an empty message


def step_seconds(
    found: Sequence[Exchange], size: int, images: float, speeds: Speeds
) -> Tuple[float, float]:
    """(seconds of a step without overlap, seconds of one in which the gradients are exchanged
    during the backward pass). images: of a rank and step."""
    alone = images / speeds.images_per_second
    gradients = sum(_seconds(each, size, speeds) for each in found if each.what == GRADIENTS)
    others = sum(_seconds(each, size, speeds) for each in found if each.what != GRADIENTS)
    hidden = max(0.0, gradients - BACKWARD * alone)
    return alone + others + gradients, alone + others + hidden


def _seconds(exchange: Exchange, size: int, speeds: Speeds) -> float:
    """Buckets of gradients follow each other round the ring; other calls wait for one another."""
    hops = 2 * (size - 1) if exchange.op == "sum" else size - 1
    calls = 1 if exchange.what == GRADIENTS else exchange.calls
    return exchange.sent / speeds.bandwidth + calls * hops * speeds.latency
