"""Collective operations between Ascend cards, by HCCL.

The same interface and gradients as runtime.distributed.collectives: HCCL's gather has no gradient
of its own.
"""

from typing import List

from runtime.distributed.collectives import Collectives
from runtime.npu import adapter
from runtime.tf1 import tf

_REDUCTIONS = {"Add": "sum", "Max": "max"}


class Hccl(Collectives):
    """The collectives of this process's card. Inputs pass through tf.identity, as HCCL takes no
    variable's reference. fusion=0: gradients are in buckets already."""

    def __init__(self, rank: int = 0, size: int = 1, hint: str = "auto") -> None:
        super().__init__(rank, size, hint)
        # The last broadcast. Each waits for the one before: a graph replicates hundreds of
        # variables, and all cards must run their broadcasts in the same order.
        self._sent: List[tf.Tensor] = []

    def maximum(self, x: tf.Tensor) -> tf.Tensor:
        x = tf.stop_gradient(x)
        return x if self.size == 1 else self._reduce(x, "Max")

    def broadcast(self, x: tf.Tensor) -> tf.Tensor:
        if self.size == 1:
            return x
        self._options("broadcast", x)
        with tf.control_dependencies(self._sent):
            self._sent = self._hccl().broadcast([tf.identity(x)], 0, fusion=0)
        return self._sent[0]

    def _reduce(self, x, merge="Add"):
        self._options(merge.lower(), x)
        return self._hccl().allreduce(tf.identity(x), _REDUCTIONS[merge], fusion=0)

    def _gather(self, x):
        self._options("gather", x)
        y = self._hccl().allgather(tf.identity(x), self.size)
        y.set_shape([self.size * x.shape.as_list()[0]] + x.shape.as_list()[1:])
        return y

    def _hccl(self):
        return adapter.adapter().hccl_ops
