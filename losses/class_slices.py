"""Which identities each rank holds the centres of, and what the centres are before the first step.

K identities, D embedding. A part is the slice of one rank; a row is one centre.
"""

from typing import Callable, Tuple

from runtime.tf1 import tf

FIRST_ROWS = 1024  # rows drawn together, always the same ones; x 512 x 4 bytes = 2 MiB
CENTRE_STDDEV = 0.01  # of the first centres; as arcface_torch, their direction alone matters


def slice_of(identities: int, index: int, count: int) -> Tuple[int, int]:
    """(first, how many): the identities of part `index` of `count`; parts differ by one at most."""
    first = index * identities // count
    return first, (index + 1) * identities // count - first


def local_labels(labels_N: tf.Tensor, first: int, count: int) -> tf.Tensor:
    """Labels among all identities -> among a slice's, -1 for those of other slices and for -1."""
    inside_N = tf.logical_and(labels_N >= first, labels_N < first + count)
    return tf.where(inside_N, labels_N - first, -tf.ones_like(labels_N))


def first_rows(seed: int, first: int = 0) -> Callable[..., tf.Tensor]:
    """The initializer of rows [first, first + R) of a matrix of normal numbers: each is a function
    of the seed and its own number alone, on every rank and on both TensorFlows. It holds the rows
    and one block of FIRST_ROWS."""

    def initializer(shape, dtype=tf.float32, partition_info=None):
        del partition_info
        rows, size = shape
        start, stop = first // FIRST_ROWS, -(-(first + rows) // FIRST_ROWS)

        def turn(block, rows_RD):  # -1 - block: negative, as no (seed, step) of other draws is
            block_BD = tf.raw_ops.StatelessRandomNormal(
                shape=[FIRST_ROWS, size], seed=tf.stack([tf.constant(seed % 2**31), -1 - block])
            )
            here = block * FIRST_ROWS - first  # where the block's first row stands among ours
            skipped = tf.maximum(-here, 0)
            last = tf.minimum(rows - here, FIRST_ROWS)
            return block + 1, tf.raw_ops.InplaceUpdate(
                x=rows_RD,
                i=tf.range(here + skipped, here + last),
                v=CENTRE_STDDEV * block_BD[skipped:last],
            )

        empty_RD = tf.raw_ops.Empty(shape=[rows, size], dtype=dtype)
        filled_RD = tf.while_loop(
            lambda block, _: block < stop,
            turn,
            (tf.constant(start), empty_RD),
            parallel_iterations=1,
            back_prop=False,
        )[1]
        return tf.identity(filled_RD)

    return initializer
