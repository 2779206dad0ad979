"""Gradient accumulation (--accumulate): sums over the parts of a batch, one update from their mean.

The sums are local variables: they are empty between steps, so no checkpoint needs them. With one
part there is nothing to sum, and every method here returns what it is given.
"""

from typing import Any, List, Sequence, Tuple

from runtime.tf1 import tf


class Accumulator:
    """Sums over the parts of each step's batch. turn: int64 scalar, unique to a part of a step."""

    def __init__(self, count: int, global_step: tf.Variable) -> None:
        self.count = count
        self._sums: List[Tuple[tf.Variable, tf.Tensor]] = []
        self._part = _local("part", [], tf.int64) if count > 1 else None
        self.turn = global_step if count == 1 else global_step * count + self._part

    def mean(self, tensors: Sequence[tf.Tensor]) -> List[tf.Tensor]:
        """Tensors of one part -> their means over all parts, valid in the run of the last part."""
        if self.count == 1:
            return list(tensors)
        sums = [_local(str(len(self._sums) + i), t.shape) for i, t in enumerate(tensors)]
        self._sums += list(zip(sums, tensors))
        return [(total.read_value() + t) / self.count for total, t in zip(sums, tensors)]

    def mean_pairs(self, pairs: List[Tuple[Any, Any]]) -> List[Tuple[Any, Any]]:
        """[(gradient, variable)] of one part -> of all; IndexedSlices become dense."""
        if self.count == 1:
            return pairs
        gradients = self.mean([tf.convert_to_tensor(gradient) for gradient, _ in pairs])
        return [(gradient, variable) for gradient, (_, variable) in zip(gradients, pairs)]

    def partial_ops(self, statistics: List[tf.Operation]) -> Tuple[tf.Operation, ...]:
        """The ops of all parts but the last: each adds to the sums and runs the updates of
        `statistics`, the moving statistics of batch norm."""
        if self.count == 1:
            return ()
        added = [tf.assign_add(total, tensor) for total, tensor in self._sums]
        # The part's number comes last: it seeds the dropout and the sampling of this very part.
        with tf.control_dependencies(added + statistics):
            return (tf.assign_add(self._part, 1).op,) * (self.count - 1)

    def reset_op(self) -> tf.Operation:
        """The op that empties the sums, to be run after their mean was used."""
        if self.count == 1:
            return tf.no_op()
        reset = [tf.assign(total, tf.zeros_like(total)) for total, _ in self._sums]
        return tf.group(*(reset + [tf.assign(self._part, 0)]))


def _local(name: str, shape: Any, dtype: Any = tf.float32) -> tf.Variable:
    return tf.get_variable(
        f"accumulated/{name}",
        shape,
        dtype,
        initializer=tf.zeros_initializer(),
        trainable=False,
        collections=[tf.GraphKeys.LOCAL_VARIABLES],
    )
