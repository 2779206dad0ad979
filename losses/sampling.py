"""Which identities a step reads: distinct, all of the batch's among them, the rest by chance.

The chance is a keyed permutation of [0, K) that is computed where it is looked at, forwards and
backwards, so nothing of length K is ever made: the draw is the permutation's first R values, and a
label's place in it is the inverse. N images, R drawn identities, K identities.
"""

import math

from runtime.tf1 import tf

ROUNDS = 4  # of the Feistel network; two leave stripes, four pass the pair test of the tests


def drawn_count(identities, sample_rate, batch_size):
    """How many identities a step reads, or a ValueError if a batch's own may not fit in."""
    if not 0.0 < sample_rate <= 1.0:
        raise ValueError(
            f"--sample_rate {sample_rate} is out of range: it must be above 0 and 1 or less."
        )
    count = max(1, int(round(sample_rate * identities)))
    needed = min(batch_size, identities)
    if count < needed:
        raise ValueError(
            f"--sample_rate {sample_rate} draws {count} of {identities} identities, and a batch of "
            f"{batch_size} may hold {needed}; pass --sample_rate "
            f"{math.ceil(1e6 * needed / identities) / 1e6:g} or more."
        )
    return count


def draw(labels_N, identities, count, seed, step):
    """int64 labels_N in [0, identities) or -1 -> (drawn_R, places_N), both int64.
    drawn_R: `count` distinct identities, each label among them, a function of (seed, step, labels)
    alone. places_N: where each label stands in drawn_R; -1 for the label -1.
    seed: int. step: int or scalar int64 tensor."""
    with tf.name_scope("draw"), tf.device("/cpu:0"):
        shuffle = _Permutation(identities, seed, step)
        chance_R = shuffle.forward(tf.range(count, dtype=tf.int64))
        labels_U, unique_N = tf.unique(labels_N)
        places_U = shuffle.backward(tf.maximum(labels_U, 0))
        chosen_U = labels_U >= 0
        missing_U = tf.logical_and(chosen_U, places_U >= count)
        missing_M2 = tf.where(missing_U)
        free_M = _free_places(
            tf.boolean_mask(places_U, tf.logical_and(chosen_U, places_U < count)),
            count,
            window=tf.minimum(count, tf.size(labels_N)),
        )[: tf.shape(missing_M2)[0]]
        drawn_R = tf.tensor_scatter_nd_update(
            chance_R, free_M[:, None], tf.boolean_mask(labels_U, missing_U)
        )
        places_U = tf.tensor_scatter_nd_update(places_U, missing_M2, free_M)
        places_U = tf.where(chosen_U, places_U, -tf.ones_like(places_U))
        drawn_R.set_shape([count])
        return drawn_R, tf.gather(places_U, unique_N)


def _free_places(taken_T, count, window):
    """The places among the last `window` of `count` that are not in taken_T, ascending, int64."""
    start = tf.cast(count - window, tf.int64)
    inside_T = tf.boolean_mask(taken_T, taken_T >= start) - start
    taken_W = tf.scatter_nd(
        inside_T[:, None], tf.ones_like(inside_T), tf.cast(tf.reshape(window, [1]), tf.int64)
    )
    return tf.where(tf.equal(taken_W, 0))[:, 0] + start


class _Permutation:
    """A permutation of [0, size) for each (seed, step), computed where it is looked at.
    A Feistel network over side * side >= size values, walked until it ends inside [0, size)."""

    def __init__(self, size, seed, step):
        self.size = size
        self.side = int(math.ceil(math.sqrt(size)))
        step = tf.cast(step, tf.int64)
        self.keys = [
            _mix(step + _mix(tf.constant((seed * ROUNDS + turn) % 2**31, tf.int64)))
            for turn in range(ROUNDS)
        ]

    def forward(self, value_X):
        """int64 [X] in [0, size) -> where the permutation takes each."""
        return self._walk(self._there, value_X)

    def backward(self, value_X):
        """int64 [X] in [0, size) -> what the permutation takes there."""
        return self._walk(self._back, value_X)

    def _walk(self, network, value_X):
        def again(value_X):
            return tf.where(value_X >= self.size, network(value_X), value_X)

        value_X = network(value_X)
        if self.side**2 == self.size:
            return value_X
        return tf.while_loop(
            lambda value_X: tf.reduce_any(value_X >= self.size),
            again,
            [value_X],
            back_prop=False,
            parallel_iterations=1,
        )

    def _there(self, value_X):
        left_X, right_X = value_X // self.side, tf.floormod(value_X, self.side)
        for key in self.keys:
            left_X, right_X = right_X, tf.floormod(left_X + _mix(right_X + key), self.side)
        return left_X * self.side + right_X

    def _back(self, value_X):
        left_X, right_X = value_X // self.side, tf.floormod(value_X, self.side)
        for key in reversed(self.keys):
            left_X, right_X = tf.floormod(right_X - _mix(left_X + key), self.side), left_X
        return left_X * self.side + right_X


def _mix(value_X):
    """int64 -> int64 in [0, 2^31), every bit of which hangs on every bit of the lower 31."""
    for _ in range(2):
        value_X = tf.bitwise.bitwise_and(value_X, 2**31 - 1)
        value_X = tf.bitwise.bitwise_xor(value_X, tf.bitwise.right_shift(value_X, 16))
        value_X = value_X * 0x45D9F3B  # 27 bits: the product stays below 2^63
    value_X = tf.bitwise.bitwise_and(value_X, 2**62 - 1)
    return tf.bitwise.bitwise_and(
        tf.bitwise.bitwise_xor(value_X, tf.bitwise.right_shift(value_X, 16)), 2**31 - 1
    )
