"""The cosines of embeddings and chosen rows of the class centres, and their gradient, in blocks.

The rows are read from the variable block by block, forwards and backwards, so that nothing of the
size of the rows chosen is ever held: a block stays in the processor's cache from its reading
to its last use. N images, R rows chosen, B rows of a block, D embedding, K rows of the variable.
"""

from typing import Any, Callable, List, Optional, Tuple

from runtime.device import current
from runtime.tf1 import tf

BLOCK_ROWS = 4096  # x 512 x 4 bytes = 8 MiB; from 2048 to 8192 the step takes the same time
NORM_FLOOR = 1e-12  # of a squared length: a centre or an embedding of zeros has cosine 0


def unit_rows(embeddings_ND: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
    """float32 [N, D] -> (rows of length 1 [N, D], lengths [N]). A row of zeros stays one, and no
    gradient flows into it: it has no direction to turn."""
    square_N1 = tf.reduce_sum(tf.square(embeddings_ND), axis=1, keepdims=True)
    any_N1 = square_N1 > NORM_FLOOR
    safe_N1 = tf.sqrt(tf.where(any_N1, square_N1, tf.ones_like(square_N1)))
    units_ND = embeddings_ND * tf.cast(any_N1, tf.float32) / safe_N1
    lengths_N = tf.reshape(tf.where(any_N1, safe_N1, tf.zeros_like(safe_N1)), [-1])
    return units_ND, lengths_N


def centre_cosines(
    units_ND: tf.Tensor, centres: tf.Variable, rows_R: Optional[tf.Tensor] = None
) -> tf.Tensor:
    """units_ND: float32 [N, D] of length 1; centres: a resource variable [K, D]; rows_R: integers
    in [0, K), none twice, or None for all -> cosines float32 [N, R].
    The gradient with respect to `centres` is a RowGradient, so an IndexedSlices of unique rows.
    Compute it and that of the embeddings in one tf.gradients call: two do everything twice."""
    dense_NR = current().cosines(units_ND, centres, rows_R, NORM_FLOOR)
    if dense_NR is not None:
        return dense_NR
    if rows_R is None:
        rows_R = tf.range(centres.shape.as_list()[0])
    readers: List[tf.Tensor] = []

    @tf.custom_gradient
    def cosines(units_ND, handle):
        cosine_RN, inverse_R = _forwards(units_ND, handle, rows_R)
        cosine_NR = tf.transpose(cosine_RN)

        def gradient(slope_NR):
            slope_RN = tf.transpose(slope_NR) * inverse_R[:, None]
            toward_ND = _backwards(slope_RN, handle, rows_R, units_ND)
            readers.append(toward_ND)
            with tf.control_dependencies(readers):  # an update writes by these rows: after them
                written_R = tf.identity(rows_R)
            pull_R = tf.reduce_sum(slope_NR * cosine_NR, axis=0) * tf.square(inverse_R)
            return toward_ND, RowGradient(centres, written_R, slope_RN, units_ND, pull_R)

        return cosine_NR, gradient

    return cosines(units_ND, centres.handle)


class RowGradient(tf.IndexedSlices):
    """The gradient of `centres` on rows_R alone: any user of IndexedSlices can take it as one,
    [R, D] and all; one who knows it reads it with `block`, and no [R, D] is ever made."""

    def __init__(
        self,
        centres: tf.Variable,
        rows_R: tf.Tensor,
        slope_RN: tf.Tensor,
        units_ND: tf.Tensor,
        pull_R: tf.Tensor,
    ) -> None:
        self._factors = slope_RN, units_ND, pull_R
        values_RD = self._of(slope_RN, pull_R, _read(centres.handle, rows_R))
        super().__init__(values_RD, rows_R, tf.constant(centres.shape.as_list()))

    def block(self, start: tf.Tensor, weights_BD: tf.Tensor) -> tf.Tensor:
        """The gradient's rows from `start` on, given the rows of `centres` that they are for."""
        slope_RN, _, pull_R = self._factors
        stop = start + tf.shape(weights_BD)[0]
        return self._of(slope_RN[start:stop], pull_R[start:stop], weights_BD)

    def _of(self, slope_BN, pull_B, weights_BD):
        return tf.matmul(slope_BN, self._factors[1]) - weights_BD * pull_B[:, None]


def in_blocks(
    body: Callable[..., Any], count: int, state: Tuple[Any, ...], block: Optional[int] = None
) -> Tuple[Any, ...]:
    """state = body(start, stop, index, *state) over [start, stop) of [0, count), in order. state: a
    tuple of tensors or TensorArrays; the last is returned."""
    block = block or BLOCK_ROWS
    if count <= block:
        return body(0, count, 0, *state)
    blocks = -(-count // block)

    def turn(index, *state):
        start = index * block
        return (index + 1,) + tuple(body(start, tf.minimum(start + block, count), index, *state))

    return tf.while_loop(
        lambda index, *_: index < blocks,
        turn,
        (tf.constant(0),) + tuple(state),
        parallel_iterations=1,  # more of them only fight over the two caches
        back_prop=False,
    )[1:]


def for_blocks(
    body: Callable[..., List[tf.Operation]], count: int, block: Optional[int] = None
) -> tf.Operation:
    """One op that runs the operations body(start, stop, index) over [0, count), in order."""

    def turn(start, stop, index, done):
        with tf.control_dependencies(body(start, stop, index)):
            return (tf.identity(done),)

    return in_blocks(turn, count, (tf.constant(0),), block)[0].op


def _forwards(units_ND, handle, rows_R):
    """-> cosines [R, N] and 1 / length [R] of each row."""
    images, count = units_ND.shape.as_list()[0], rows_R.shape.as_list()[0]
    blocks = -(-count // BLOCK_ROWS)

    def body(start, stop, index, cosines, inverses):
        rows_BD = _read(handle, rows_R[start:stop])
        square_B = tf.reduce_sum(tf.square(rows_BD), axis=1)
        inverse_B = tf.rsqrt(tf.maximum(square_B, NORM_FLOOR))
        cosine_BN = tf.matmul(rows_BD, units_ND, transpose_b=True) * inverse_B[:, None]
        return cosines.write(index, cosine_BN), inverses.write(index, inverse_B)

    cosines, inverses = in_blocks(
        body,
        count,
        (
            tf.TensorArray(tf.float32, blocks, infer_shape=False, element_shape=[None, images]),
            tf.TensorArray(tf.float32, blocks, infer_shape=False, element_shape=[None]),
        ),
    )
    cosine_RN, inverse_R = cosines.concat(), inverses.concat()
    cosine_RN.set_shape([count, images])
    inverse_R.set_shape([count])
    return cosine_RN, inverse_R


def _backwards(slope_RN, handle, rows_R, units_ND):
    """Sum over the rows of slope x row: [N, D]."""

    def body(start, stop, _, sum_ND):
        rows_BD = _read(handle, rows_R[start:stop])
        return (sum_ND + tf.matmul(slope_RN[start:stop], rows_BD, transpose_a=True),)

    return in_blocks(body, rows_R.shape.as_list()[0], (tf.zeros_like(units_ND),))[0]


def _read(handle, rows_B):
    return tf.raw_ops.ResourceGather(resource=handle, indices=rows_B, dtype=tf.float32)
