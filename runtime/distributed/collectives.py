"""What the ranks of a run say to each other in a step: sums, means, maxima, gathers, broadcasts.

Every rank builds the same calls in the same order, so that counting them gives each call the same
key on all of them; `compare` proves it before the first step. With one rank all are the identity.
X is any static shape; n is what one rank holds of something, N = size * n.
"""

import zlib

import numpy as np

from runtime.tf1 import TF2, tf

GROUP = 1  # the key of the group of all ranks
FACTS = 8192  # how many facts `compare` can hold


class Collectives:
    """The calls of one rank. hint: "auto", "ring" or "nccl"."""

    def __init__(self, rank=0, size=1, hint="auto"):
        self.rank, self.size, self.hint = rank, size, hint
        self.calls = []  # (key, what, dtype, shape), in the order in which they were built

    def sum(self, x):
        """Tensor X -> its sum over ranks. The gradient is the slopes' sum over ranks."""
        if self.size == 1:
            return x

        @tf.custom_gradient
        def summed(x):
            return self._reduce(x), lambda slope: self._reduce(slope)

        return summed(x)

    def mean(self, x):
        """Tensor X -> its mean over ranks. The gradient is the slopes' mean over ranks."""
        return x if self.size == 1 else self.sum(x) / self.size

    def maximum(self, x):
        """Tensor X -> its largest over ranks, through which no gradient flows."""
        if self.size == 1:
            return tf.stop_gradient(x)
        x = tf.stop_gradient(x)
        if TF2:
            return self._reduce(x, "Max")
        return tf.reduce_max(self._gather(x[None]), axis=0)  # 1.15 reduces by Add and Mul alone

    def gather(self, x):
        """[n, ...] -> [N, ...] in the order of the ranks. The gradient is the slopes' sum over
        ranks, of this rank's rows."""
        if self.size == 1:
            return x
        rows = x.shape.as_list()[0]

        @tf.custom_gradient
        def gathered(x):
            def gradient(slope):
                return self._reduce(slope)[self.rank * rows : (self.rank + 1) * rows]

            return self._gather(x), gradient

        return gathered(x) if x.dtype.is_floating else self._gather(x)

    def broadcast(self, x):
        """Tensor X -> that of rank 0."""
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

    def _options(self, what, x):
        shape = tuple(x.shape.as_list())  # a shape that is not static would hang, not fail
        assert None not in shape, f"{x.name} has shape {shape}"
        key = len(self.calls) + 1
        self.calls.append((key, what, x.dtype.base_dtype.name, shape))
        return dict(
            group_size=self.size,
            group_key=GROUP,
            instance_key=key,
            communication_hint=self.hint,
        )


def in_buckets(tensors, reduce, bucket_bytes, wire=None):
    """Float32 tensors -> each reduced; `reduce` is called for flat buckets of about bucket_bytes,
    which hold small tensors together and parts of large ones, the last tensors first, as gradients
    come. wire: the type in which they travel, if another."""
    wire = wire or tf.float32
    room = max(1, bucket_bytes // wire.size)
    pieces = {index: [] for index in range(len(tensors))}  # of each tensor, reduced
    bucket, held = [], 0
    for index in reversed(range(len(tensors))):
        flat, start, count = (
            tf.reshape(tensors[index], [-1]),
            0,
            tensors[index].shape.num_elements(),
        )
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


def replicate(collectives, variables):
    """The op that gives this rank's variables rank 0's values. All ranks pass the same kinds."""
    if collectives.size == 1:
        return tf.no_op()
    return tf.group(*[tf.assign(v, collectives.broadcast(v.read_value())) for v in variables])


class Agreement:
    """Whether all processes say yes. Each asks at the same points of the run: it is a barrier."""

    def __init__(self, members):
        """members: the Collectives of this process's ranks, with the device of each."""
        self._said = tf.placeholder(tf.int32, [1], "said")
        self._all = _on_each(members, lambda collectives: collectives.gather(self._said))
        self._alone = len(members) == members[0][0].size

    def all_say(self, session, yes):
        """Whether `yes` is true in every process; waits for all of them."""
        if self._alone:
            return yes
        return bool(np.all(session.run(self._all, {self._said: [int(yes)]})[0]))


class Comparison:
    """Whether all ranks were told the same, asked before the first step.

    facts: [(what it is called, value)]; build it on every rank, run `differing` on every host."""

    def __init__(self, members):
        """members: the Collectives of this process's ranks, with the device of each."""
        self._fed = tf.placeholder(tf.int64, [1, FACTS], "facts")
        self._all = _on_each(members, lambda collectives: collectives.gather(self._fed))

    def differing(self, session, facts):
        """(name of the first fact that is not the same on all ranks, a rank that has another), or
        None."""
        mine = self.numbers(facts)
        theirs = session.run(self._all, {self._fed: mine})[0]
        ranks, places = np.nonzero(theirs != mine)
        if not len(places):
            return None
        first = places.min()
        name = facts[first][0] if first < len(facts) else "the number of calls"
        return name, int(ranks[places == first][0])

    @staticmethod
    def numbers(facts):
        """Facts -> int64 [1, FACTS], 0 where there are no more."""
        assert len(facts) <= FACTS, len(facts)
        found = np.zeros([1, FACTS], np.int64)
        found[0, : len(facts)] = [zlib.crc32(repr(fact).encode()) for fact in facts]
        return found


def _on_each(members, make):
    made = []
    for collectives, device in members:
        with tf.device(device):
            made.append(make(collectives))
    return made
