"""Collective operations between the ranks of a run: sum, mean, maximum, gather, broadcast.

TensorFlow matches the calls of different ranks by their instance key, which is the number of the
call on its rank. So every rank builds the same calls in the same order; `Comparison` checks it
before the first step, as a mismatch would hang or add unrelated tensors. With one rank every
operation is the identity.
X is any static shape; n is what one rank holds of something, N = size * n.
"""

import zlib
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, TypeVar

import numpy as np

from runtime.tf1 import TF2, tf

GROUP = 1  # the key of the group of all ranks
FACTS = (
    8192  # capacity of `Comparison`: a net of 1,000 layers on all ranks makes about half of that
)

T = TypeVar("T")
Fact = Tuple[str, Any]  # (name, value) that must be equal on all ranks
Call = Tuple[int, str, str, Tuple[int, ...]]  # (key, operation, dtype, shape)


class Collectives:
    """The collectives of one rank. hint: "auto", "ring" or "nccl"."""

    def __init__(self, rank: int = 0, size: int = 1, hint: str = "auto") -> None:
        self.rank, self.size, self.hint = rank, size, hint
        self.calls: List[Call] = []  # in the order in which they were built

    def sum(self, x: tf.Tensor) -> tf.Tensor:
        """Tensor X -> its sum over ranks. The gradient is the sum of the gradients over ranks."""
        if self.size == 1:
            return x

        @tf.custom_gradient
        def summed(x):
            return self._reduce(x), lambda slope: self._reduce(slope)

        return summed(x)

    def mean(self, x: tf.Tensor) -> tf.Tensor:
        """Tensor X -> its mean over ranks. The gradient is the mean of the gradients over ranks."""
        return x if self.size == 1 else self.sum(x) / self.size

    def maximum(self, x: tf.Tensor) -> tf.Tensor:
        """Tensor X -> its maximum over ranks; no gradient."""
        if self.size == 1:
            return tf.stop_gradient(x)
        x = tf.stop_gradient(x)
        if TF2:
            return self._reduce(x, "Max")
        return tf.reduce_max(self._gather(x[None]), axis=0)  # 1.15 reduces by Add and Mul alone

    def gather(self, x: tf.Tensor) -> tf.Tensor:
        """[n, ...] -> [N, ...] in the order of the ranks. The gradient is that of this rank's rows,
        summed over ranks."""
        if self.size == 1:
            return x
        rows = x.shape.as_list()[0]

        @tf.custom_gradient
        def gathered(x):
            def gradient(slope):
                return self._reduce(slope)[self.rank * rows : (self.rank + 1) * rows]

            return self._gather(x), gradient

        return gathered(x) if x.dtype.is_floating else self._gather(x)

    def broadcast(self, x: tf.Tensor) -> tf.Tensor:
        """Tensor X -> the tensor of rank 0."""
        if self.size == 1:
            return x
        options = dict(self._options("broadcast", x), shape=x.shape.as_list())
        if self.rank == 0:
            return tf.raw_ops.CollectiveBcastSend(input=x, **options)
        return tf.raw_ops.CollectiveBcastRecv(T=x.dtype.base_dtype, **options)

    def _reduce(self, x, merge="Add"):
        return tf.raw_ops.CollectiveReduce(
            input=x,
            merge_op=merge,
            final_op="Id",
            subdiv_offsets=[0],
            **self._options(merge.lower(), x),
        )

    def _gather(self, x):
        shape = [self.size * x.shape.as_list()[0]] + x.shape.as_list()[1:]
        y = tf.raw_ops.CollectiveGather(input=x, shape=shape, **self._options("gather", x))
        y.set_shape(shape)
        return y

    def _options(self, operation, x):
        shape = tuple(x.shape.as_list())  # a shape that is not static would hang, not fail
        assert None not in shape, f"{x.name} has shape {shape}"
        key = len(self.calls) + 1
        self.calls.append((key, operation, x.dtype.base_dtype.name, shape))
        return dict(
            group_size=self.size,
            group_key=GROUP,
            instance_key=key,
            communication_hint=self.hint,
        )


def in_buckets(
    tensors: Sequence[tf.Tensor],
    reduce: Callable[[tf.Tensor], tf.Tensor],
    bucket_bytes: int,
    wire: Optional[tf.DType] = None,
) -> List[tf.Tensor]:
    """Float32 tensors -> each reduced. `reduce` is called for flat buckets of about bucket_bytes,
    each of several small tensors or a part of a large one. wire: dtype of the transfer.

    The last tensors come first: the backward pass computes the gradients of the last layers first,
    so their reduction overlaps with the rest of it."""
    wire = wire or tf.float32
    room = max(1, bucket_bytes // wire.size)
    pieces: Dict[int, List[tf.Tensor]] = {i: [] for i in range(len(tensors))}  # reduced
    bucket, held = [], 0
    for index in reversed(range(len(tensors))):
        flat = tf.reshape(tensors[index], [-1])
        start, count = 0, tensors[index].shape.num_elements()
        while start < count:
            stop = min(count, start + room - held)
            part = flat if stop - start == count else flat[start:stop]
            bucket.append((index, part, stop - start))
            held, start = held + stop - start, stop
            if held == room:
                _reduce_bucket(bucket, reduce, wire, pieces)
                bucket, held = [], 0
    if bucket:
        _reduce_bucket(bucket, reduce, wire, pieces)
    return [_joined(pieces[index], tensor) for index, tensor in enumerate(tensors)]


def _reduce_bucket(bucket, reduce, wire, pieces):
    parts = [part for _, part, _ in bucket]
    flat = parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)
    reduced = tf.cast(reduce(tf.cast(flat, wire)), tf.float32)
    parts = [reduced] if len(parts) == 1 else tf.split(reduced, [count for *_, count in bucket])
    for (index, *_), part in zip(bucket, parts):
        pieces[index].append(part)


def _joined(parts, like):
    flat = parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)
    return tf.reshape(flat, like.shape)


def replicate(collectives: Collectives, variables: Sequence[Any]) -> tf.Operation:
    """The op that assigns rank 0's values to this rank's variables; the same list on all ranks."""
    if collectives.size == 1:
        return tf.no_op()
    return tf.group(*[tf.assign(v, collectives.broadcast(v.read_value())) for v in variables])


class Agreement:
    """A logical AND over all processes. Every process calls it at the same points of the run, so
    it is also a barrier."""

    def __init__(self, members: "Members") -> None:
        """members: the Collectives of this process's ranks, with the device of each."""
        self._own = tf.placeholder(tf.int32, [1], "agrees")
        self._all = _on_each(members, lambda collectives: collectives.gather(self._own))
        self._alone = len(members) == members[0][0].size

    def all_agree(self, session: tf.Session, agrees: bool) -> bool:
        """Whether `agrees` is true in every process; waits for all of them."""
        if self._alone:
            return agrees
        return bool(np.all(session.run(self._all, {self._own: [int(agrees)]})[0]))


class Comparison:
    """Whether all ranks have the same settings and built the same calls; run before the first step.

    It is built on every rank, and `first_difference` runs on every host."""

    def __init__(self, members: "Members") -> None:
        """members: the Collectives of this process's ranks, with the device of each."""
        self._fed = tf.placeholder(tf.int64, [1, FACTS], "facts")
        self._all = _on_each(members, lambda collectives: collectives.gather(self._fed))

    def first_difference(
        self, session: tf.Session, facts: Sequence[Fact]
    ) -> Optional[Tuple[str, int]]:
        """(name of the first fact that differs between ranks, a rank where it differs), or None."""
        mine = self.checksums(facts)
        theirs = session.run(self._all, {self._fed: mine})[0]
        ranks, places = np.nonzero(theirs != mine)
        if not len(places):
            return None
        first = places.min()
        name = facts[first][0] if first < len(facts) else "the number of calls"
        return name, int(ranks[places == first][0])

    @staticmethod
    def checksums(facts: Sequence[Fact]) -> np.ndarray:
        """CRC32 of each fact: int64 [1, FACTS], padded with 0."""
        assert len(facts) <= FACTS, len(facts)
        found = np.zeros([1, FACTS], np.int64)
        found[0, : len(facts)] = [zlib.crc32(repr(fact).encode()) for fact in facts]
        return found


# The Collectives of this process's ranks, with the device of each.
Members = Sequence[Tuple[Collectives, Optional[str]]]


def _on_each(members: Members, make: Callable[[Collectives], T]) -> List[T]:
    made = []
    for collectives, device in members:
        with tf.device(device):
            made.append(make(collectives))
    return made
