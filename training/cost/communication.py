"""What a rank says to the others in a step, counted in its graph, and how long a step then takes.

Bytes are those that a rank sends, which are as many as it receives. A ring of n ranks passes on
2 (n - 1) / n of what it sums, and n - 1 times what a rank adds to what is gathered.
"""

import collections

from training.cost.peak_memory import needed, scope_of, tensor_bytes

BACKWARD = 2 / 3  # of a step's arithmetic: during it gradients come, and can travel
LATENCY = 10e-6  # seconds from one rank to the next, of a message of no length
OPS = {"CollectiveReduce": "sum", "CollectiveGather": "gather", "CollectiveBcastSend": "broadcast"}
# What stands between the tensors of a bucket and its sum: see collectives.in_buckets.
_PACKING = {"Identity", "IdentityN", "Cast", "ConcatV2", "Reshape", "StridedSlice"}

GRADIENTS = "gradients of the net"
STATISTICS = "moving statistics"

# One kind of exchange. what: in words; op: one of OPS; calls: how many a step; payload: the bytes
# that a rank puts into them; sent: the bytes that it sends for them.
Exchange = collections.namedtuple("Exchange", "what op calls payload sent")


def exchanges(step, size):
    """The Step of a rank, one of `size` -> [Exchange], of a whole step."""
    tower, runs = step.towers[0], [step.before[:1]] * len(step.before)
    last = [step.train, step.scalars["inference_loss"]]
    runs.append(last + [step.scalars[name] for name in ("asked",) if name in step.scalars])
    found = collections.OrderedDict()
    for op in (op for run in runs for op in needed(run) if op.type in OPS):
        found.setdefault((_what(op, tower), OPS[op.type]), []).append(tensor_bytes(op.inputs[0]))
    return [
        Exchange(what, kind, len(sizes), sum(sizes), sent(kind, sum(sizes), size))
        for (what, kind), sizes in found.items()
    ]


def sent(kind, payload, size):
    """Bytes that each of `size` ranks in a ring sends, for a payload of each."""
    if kind == "sum":
        return 2 * (size - 1) * payload / size
    return (size - 1) * payload if kind == "gather" else payload


def _what(op, tower):
    """An exchange in words."""
    shape, scope = op.inputs[0].shape.as_list(), scope_of(tower)
    if scope in op.name.split("/"):
        return "statistics of batch norm"
    packed = _packed(op) if op.type == "CollectiveReduce" else None
    if packed is not None:
        read = any(one.type == "ReadVariableOp" for one in packed)
        return STATISTICS if read else GRADIENTS
    if op.type == "CollectiveGather" and not op.inputs[0].dtype.is_floating:
        return "labels"
    if len(shape) == 2 and shape[1] == tower.plain_bD.shape.as_list()[1] and shape[0] > 2:
        return "embeddings" if op.type == "CollectiveGather" else "gradient of the embeddings"
    return "softmax: numbers for each image" if shape else "single numbers"


def _packed(op):
    """The operations whose results travel in a bucket, or None where `op` sums no bucket."""
    waiting, ends, packed = [op.inputs[0].op], [], False
    while waiting:
        one = waiting.pop()
        if one.type in _PACKING:
            packed = packed or one.type in ("ConcatV2", "Reshape", "StridedSlice")
            waiting += [tensor.op for tensor in one.inputs]
        else:
            ends.append(one)
    return ends if packed else None


def step_seconds(found, size, images, images_per_second, bandwidth, latency=LATENCY):
    """(seconds of a step in which nothing travels beside the backward pass, seconds of one in which
    the gradients do). images: of a rank and step; images_per_second: of a device by itself.
    bandwidth: bytes a second from each rank of the ring to the next; the slowest link counts, so
    with several hosts it is a host's network."""
    alone = images / images_per_second
    behind = sum(_seconds(one, size, bandwidth, latency) for one in found if one.what == GRADIENTS)
    others = sum(_seconds(one, size, bandwidth, latency) for one in found if one.what != GRADIENTS)
    return alone + others + behind, alone + others + max(0.0, behind - BACKWARD * alone)


def _seconds(exchange, size, bandwidth, latency):
    """Buckets of gradients follow each other round the ring; others wait for one another."""
    turns = 2 * (size - 1) if exchange.op == "sum" else size - 1
    calls = 1 if exchange.what == GRADIENTS else exchange.calls
    return exchange.sent / bandwidth + calls * turns * latency
