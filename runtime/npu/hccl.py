"""The collectives of a run whose ranks are Ascend devices: by HCCL.

The same calls as runtime.distributed.collectives, with the same gradients: HCCL's gather has
none of its own. n is what one rank holds of something.
"""

from typing import Any, List

from runtime.distributed.collectives import Collectives
from runtime.npu import adapter
from runtime.tf1 import tf

_REDUCTIONS = {"Add": "sum", "Max": "max"}


class Hccl(Collectives):
    """The calls of this process's card. No input may come straight from a variable, and each call
    is made by itself (fusion 0): gradients come in buckets already."""

    def __init__(self, rank: int, size: int, hint: str = "auto") -> None:
        super().__init__(rank, size, hint)
        self._sent: List[tf.Tensor] = []  # the last broadcast: there are hundreds, in sequence

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

    def _reduce(self, x: tf.Tensor, merge: str = "Add") -> tf.Tensor:
        self._options(merge.lower(), x)
        return self._hccl().allreduce(tf.identity(x), _REDUCTIONS[merge], fusion=0)

    def _gather(self, x: tf.Tensor) -> tf.Tensor:
        self._options("gather", x)
        y = self._hccl().allgather(tf.identity(x), self.size)
        y.set_shape([self.size * x.shape.as_list()[0]] + x.shape.as_list()[1:])
        return y

    def _hccl(self) -> Any:
        return adapter.adapter().hccl_ops
