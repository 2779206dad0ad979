"""Which identities a step reads: distinct, all of the batch's among them, the rest by chance.

The identities stand in groups, each of which draws its own share, so that a rank draws what it
holds and no more; the number of groups, not that of the ranks, decides what is drawn.
The chance is a keyed permutation of a group that is computed where it is looked at, forwards and
backwards, so nothing of length K is ever made: the draw is the permutation's first values, and a
label's place in it is the inverse. N images, R drawn identities, K identities.
It is all made of operations, so that `draw` also works inside tf.data.Dataset.map.
"""

import math
from typing import List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from losses.class_slices import slice_of
from runtime.tf1 import tf

ROUNDS = 4  # of the Feistel network; two leave stripes, four pass the pair test of the tests
SHARES, FEW = 4, 32  # how much more than its part of a batch a group must be able to hold
APART = 0x3C6EF35F  # between the keys of two groups: far, so that no other seed's are theirs


class Group(NamedTuple):
    """Identities that are sampled together."""

    number: int  # among all groups
    first: int  # its first identity, counted from the first of the part that holds it
    identities: int  # how many it has
    draws: int  # how many of them a step reads


class Part(NamedTuple):
    """One of several equal parts of the identities, as the slice of a rank."""

    index: int = 0  # type: ignore[assignment]
    count: int = 1  # type: ignore[assignment]  # how many parts there are


WHOLE = Part()


def drawn_groups(
    identities: int,
    sample_rate: float,
    batch_size: int,
    draw_groups: int = 1,
    part: Part = WHOLE,
    whole: bool = False,
) -> List[Group]:
    """The groups of one part; a ValueError if a group may have to hold more of a batch's identities
    than it draws. batch_size: images of all ranks together.
    A group gets 1 / draw_groups of a batch's images, more or less: it must hold SHARES times that
    and a few, or with `whole` all of them; see fitting."""
    index, count = part
    if draw_groups < 1 or draw_groups % count:
        raise ValueError(
            f"--draw_groups {draw_groups} cannot be shared among {count} ranks: it must be a "
            f"multiple of {count}."
        )
    if draw_groups > identities:
        raise ValueError(
            f"--draw_groups {draw_groups} is more than there are identities, {identities}; pass "
            "fewer."
        )
    own = draw_groups // count
    part_first, _ = slice_of(identities, index, count)
    held = batch_size if whole else min(batch_size, -(-SHARES * batch_size // draw_groups) + FEW)
    groups = []
    for number in range(draw_groups):
        first, size = slice_of(identities, number, draw_groups)
        drawn = drawn_count(size, sample_rate, held, draw_groups)
        if index * own <= number < (index + 1) * own:
            groups.append(Group(number, first - part_first, size, drawn))
    return groups


def drawn_count(identities: int, sample_rate: float, batch_size: int, draw_groups: int = 1) -> int:
    """How many of a group's identities a step reads, or a ValueError if a batch's own may not fit
    in. draw_groups: how many such groups there are, for the message."""
    if not 0.0 < sample_rate <= 1.0:
        raise ValueError(
            f"--sample_rate {sample_rate} is out of range: it must be above 0 and 1 or less."
        )
    count = max(1, int(round(sample_rate * identities)))
    needed = min(batch_size, identities)
    if count < needed:
        of = f" of each of {draw_groups} groups of identities" if draw_groups > 1 else " identities"
        raise ValueError(
            f"--sample_rate {sample_rate} draws {count} of {identities}{of}, and a batch may "
            f"hold {needed} of them; pass --sample_rate "
            f"{math.ceil(1e6 * needed / identities) / 1e6:g} or more."
        )
    return count


def fitting(labels_N: tf.Tensor, groups: Sequence[Group]) -> tf.Tensor:
    """int64 labels_N in [0, identities) or -1 -> the same, but -1 for the images whose identities
    are more of one group than it draws; they then have no loss in this step. groups: all there are.
    Of 4096 images and 32 groups, one gets 128 on average and may get 544: with labels by chance it
    is never more. Every rank finds the same, for it sees all labels."""
    least, images = min(group.draws for group in groups), labels_N.shape.as_list()[0]
    most = [images if group.draws == group.identities else least for group in groups]
    if all(min(group.identities, images) <= count for group, count in zip(groups, most)):
        return labels_N
    firsts = np.array([group.first for group in groups], np.int64)
    with tf.name_scope("fitting"), tf.device("/cpu:0"):
        labels_U, unique_N = tf.unique(labels_N)
        group_U = tf.searchsorted(firsts, labels_U, side="right", out_type=tf.int64) - 1
        order_U = tf.argsort(group_U, stable=True)  # a group's together, the label -1 before all
        sorted_U = tf.gather(group_U, order_U)
        place_U = tf.range(tf.size(sorted_U)) - tf.searchsorted(sorted_U, sorted_U)
        most_U = tf.gather(most, tf.maximum(sorted_U, 0))
        fits_U = tf.gather(place_U < most_U, tf.argsort(order_U))
        labels_U = tf.where(fits_U, labels_U, -tf.ones_like(labels_U))
        return tf.reshape(tf.gather(labels_U, unique_N), labels_N.shape)


def draw(
    labels_N: tf.Tensor, groups: Sequence[Group], seed: int, step: Union[int, tf.Tensor]
) -> Tuple[tf.Tensor, tf.Tensor]:
    """int64 labels_N, counted from the first identity of the part that `groups` are of, -1 for
    those elsewhere -> (drawn_R, places_N), both int64. drawn_R: distinct identities of the part,
    group after group, each label among them, a function of (seed, step, labels) alone. places_N:
    where each label stands in drawn_R; -1 for the label -1.
    seed: int. step: int or scalar int64 tensor."""
    numbers, firsts, sizes, counts = (np.array(column, np.int64) for column in zip(*groups))
    starts = np.cumsum(counts) - counts  # where each group's stand in drawn_R
    with tf.name_scope("draw"), tf.device("/cpu:0"):
        keys = _keys(seed, step, numbers)
        chance_GR = _Permutation(sizes, keys).forward(tf.range(counts.max())[None])
        chance = [one + first for one, first in zip(tf.unstack(chance_GR), firsts)]
        chance_R = tf.concat([one[:count] for one, count in zip(chance, counts)], axis=0)
        labels_U, unique_N = tf.unique(labels_N)
        after_UG = tf.cast(labels_U[:, None] >= firsts[1:], tf.int64)
        group_U, chosen_U = tf.reduce_sum(after_UG, axis=1), labels_U >= 0
        own = _Permutation(sizes, keys, group_U)
        places_U = own.backward(tf.maximum(labels_U, 0) - tf.gather(firsts, group_U))
        drawn_U = places_U < tf.gather(counts, group_U)
        missing_M, free_M = _make_room(
            tf.one_hot(group_U, len(groups), True, False, axis=0, dtype=tf.bool),
            places_U,
            tf.logical_and(chosen_U, drawn_U),
            tf.logical_and(chosen_U, tf.logical_not(drawn_U)),
            counts,
            tf.minimum(counts.min(), tf.size(labels_N, out_type=tf.int64)),
        )
        places_U = tf.tensor_scatter_nd_update(places_U, missing_M[:, None], free_M)
        places_U += tf.gather(starts, group_U)
        drawn_R = tf.tensor_scatter_nd_update(
            chance_R, tf.gather(places_U, missing_M)[:, None], tf.gather(labels_U, missing_M)
        )
        places_U = tf.where(chosen_U, places_U, -tf.ones_like(places_U))
        drawn_R.set_shape([counts.sum()])
        return drawn_R, tf.gather(places_U, unique_N)


def _make_room(inside_GU, places_U, drawn_U, missing_U, counts, window):
    """-> (missing_M, free_M): the labels that chance did not draw, group by group, and for each a
    place in its group where no label stands, among the last `window` places of the group."""
    at_GU = places_U - (counts[:, None] - window)
    taken_T2 = tf.where(tf.logical_and(inside_GU, drawn_U & (at_GU >= 0)))
    spots_T2 = tf.stack([taken_T2[:, 0], tf.gather_nd(at_GU, taken_T2)], axis=1)
    taken_GW = tf.scatter_nd(
        spots_T2, tf.ones_like(spots_T2[:, 0]), tf.stack([np.int64(len(counts)), window])
    )
    missing_M2 = tf.where(tf.logical_and(inside_GU, missing_U))
    free_F2 = tf.where(tf.equal(taken_GW, 0))
    many_G = tf.reduce_sum(tf.cast(tf.logical_and(inside_GU, missing_U), tf.int64), axis=1)
    free_G = window - tf.reduce_sum(taken_GW, axis=1)
    skipped_G = tf.cumsum(free_G, exclusive=True) - tf.cumsum(many_G, exclusive=True)
    group_M = missing_M2[:, 0]
    chosen_M = tf.range(tf.size(group_M, out_type=tf.int64)) + tf.gather(skipped_G, group_M)
    free_M = tf.gather(free_F2[:, 1], chosen_M) + tf.gather(counts, group_M) - window
    return missing_M2[:, 1], free_M


def _keys(seed, step, numbers):
    """The keys of the permutation of each group in each round: [int64 [G]]."""
    step, numbers = tf.cast(step, tf.int64), numbers * APART
    return [
        _mix(step + _mix(tf.constant((seed * ROUNDS + turn + numbers) % 2**31)))
        for turn in range(ROUNDS)
    ]


class _Permutation:
    """A permutation of [0, size) for each group and its keys, computed where it is looked at.
    A Feistel network over side * side >= size values, walked until it ends inside [0, size).
    group_X: the group of each value; without it values are [G, X] or [1, X], a row a group."""

    def __init__(
        self,
        sizes: np.ndarray,
        keys: List[tf.Tensor],
        group_X: Optional[tf.Tensor] = None,
    ) -> None:
        self.side = int(math.ceil(math.sqrt(sizes.max())))
        self.exact = (sizes == self.side**2).all()
        if group_X is None:
            self.size, self.keys = sizes[:, None], [key_G[:, None] for key_G in keys]
        else:
            self.size = tf.gather(sizes, group_X)
            self.keys = [tf.gather(key_G, group_X) for key_G in keys]

    def forward(self, value_X: tf.Tensor) -> tf.Tensor:
        """int64 in [0, size) -> where the permutation takes each."""
        return self._walk(self._there, value_X)

    def backward(self, value_X: tf.Tensor) -> tf.Tensor:
        """int64 in [0, size) -> what the permutation takes there."""
        return self._walk(self._back, value_X)

    def _walk(self, network, value_X):
        def again(value_X):
            return tf.where(value_X >= self.size, network(value_X), value_X)

        value_X = network(value_X)
        if self.exact:
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


def _mix(value_X: tf.Tensor) -> tf.Tensor:
    """int64 -> int64 in [0, 2^31), every bit of which depends on every bit of the lower 31."""
    for _ in range(2):
        value_X = tf.bitwise.bitwise_and(value_X, 2**31 - 1)
        value_X = tf.bitwise.bitwise_xor(value_X, tf.bitwise.right_shift(value_X, 16))
        value_X = value_X * 0x45D9F3B  # 27 bits: the product stays below 2^63
    value_X = tf.bitwise.bitwise_and(value_X, 2**62 - 1)
    return tf.bitwise.bitwise_and(
        tf.bitwise.bitwise_xor(value_X, tf.bitwise.right_shift(value_X, 16)), 2**31 - 1
    )
