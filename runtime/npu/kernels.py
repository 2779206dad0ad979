"""Operations of the loss head for an Ascend NPU: selections in whole matrices instead of scatters.

The NPU's adapter advises against TensorScatterUpdate and is not known to gather from a resource
variable (docs/ascend.md). N images, D embedding, R identities of a matrix's columns.
"""

from typing import Optional

from runtime.tf1 import tf


def take(score_NR: tf.Tensor, labels_N: tf.Tensor) -> tf.Tensor:
    """Each row's score of its true identity, float32 [N]; of identity 0 where the label is -1."""
    true_NR = _true(score_NR, labels_N)
    return tf.reduce_sum(tf.where(true_NR, score_NR, tf.zeros_like(score_NR)), axis=1)


def put(
    score_NR: tf.Tensor, labels_N: tf.Tensor, value_N: tf.Tensor, add: bool = False
) -> tf.Tensor:
    """score_NR with value_N (add: plus value_N) at each row's true identity."""
    spread_NR = tf.zeros_like(score_NR) + value_N[:, None]
    spread_NR = score_NR + spread_NR if add else spread_NR
    return tf.where(_true(score_NR, labels_N), spread_NR, score_NR)


def cosines(
    units_ND: tf.Tensor, centres: tf.Tensor, rows_R: Optional[tf.Tensor], floor: float
) -> tf.Tensor:
    """Cosines of unit rows to the centres rows_R, or to all if None: float32 [N, R]. The gradient
    of the centres is IndexedSlices of rows_R, or dense. floor: of a centre's squared length."""
    rows_RD = centres if rows_R is None else tf.gather(centres, tf.cast(rows_R, tf.int32))
    square_R = tf.reduce_sum(tf.square(rows_RD), axis=1)
    inverse_R = tf.rsqrt(tf.maximum(square_R, floor))
    return tf.matmul(units_ND, rows_RD, transpose_b=True) * inverse_R[None]


def _true(score_NR, labels_N):
    """bool [N, R]: where each row's true identity stands; identity 0 for the label -1."""
    places_R = tf.range(score_NR.shape.as_list()[1])
    labels_N = tf.maximum(tf.cast(labels_N, tf.int32), 0)
    return tf.equal(labels_N[:, None], places_R[None])
