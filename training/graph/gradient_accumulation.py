"""A batch in parts (--accumulate): sums over the parts, and one update from their mean.

The sums are local variables: they are empty between steps, so no checkpoint needs them. With one
part there is nothing to sum, and every function here hands back what it is given.
"""

from runtime.tf1 import tf


class Parts:
    """The parts of each step's batch. turn: int64 scalar, another for each part of each step."""

    def __init__(self, count, global_step):
        self.count, self._sums = count, []
        self._part = _local("part", [], tf.int64) if count > 1 else None
        self.turn = global_step if count == 1 else global_step * count + self._part

    def mean(self, tensors):
        """Tensors of one part -> their means over all parts, in the run of the last."""
        if self.count == 1:
            return list(tensors)
        sums = [_local(str(len(self._sums) + i), t.shape) for i, t in enumerate(tensors)]
        self._sums += list(zip(sums, tensors))
        return [(one.read_value() + tensor) / self.count for one, tensor in zip(sums, tensors)]

    def mean_pairs(self, pairs):
        """[(gradient, variable)] of one part -> of all; rows of a variable become the whole."""
        if self.count == 1:
            return pairs
        gradients = self.mean([tf.convert_to_tensor(gradient) for gradient, _ in pairs])
        return [(gradient, variable) for gradient, (_, variable) in zip(gradients, pairs)]

    def before(self, statistics):
        """The ops of the parts before the last: each adds to the sums, and moves `statistics`."""
        if self.count == 1:
            return ()
        added = [tf.assign_add(one, tensor) for one, tensor in self._sums]
        with tf.control_dependencies(added + statistics):
            return (tf.assign_add(self._part, 1).op,) * (self.count - 1)

    def clear(self):
        """The op that empties the sums, once their mean was used."""
        if self.count == 1:
            return tf.no_op()
        emptied = [tf.assign(one, tf.zeros_like(one)) for one, _ in self._sums]
        return tf.group(*(emptied + [tf.assign(self._part, 0)]))


def _local(name, shape, dtype=tf.float32):
    return tf.get_variable(
        f"accumulated/{name}",
        shape,
        dtype,
        initializer=tf.zeros_initializer(),
        trainable=False,
        collections=[tf.GraphKeys.LOCAL_VARIABLES],
    )
