"""What the ranks of a run say to each other where each is an Ascend card: by HCCL.

The same calls as runtime.distributed.collectives, with the same gradients of ours: HCCL's gather
has none. n is what one rank holds of something.
"""

from runtime.distributed.collectives import Collectives
from runtime.npu import adapter
from runtime.tf1 import tf

_REDUCTIONS = {"Add": "sum", "Max": "max"}


class Hccl(Collectives):
    """The calls of this process's card. No input may come straight from a variable, and each call
    is made by itself (fusion 0): gradients come in buckets of ours already."""

    def __init__(self, *words):
        super().__init__(*words)
        self._sent = []  # the last broadcast: hundreds of them go one after another

    def maximum(self, x):
        x = tf.stop_gradient(x)
        return x if self.size == 1 else self._reduce(x, "Max")

    def broadcast(self, x):
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
