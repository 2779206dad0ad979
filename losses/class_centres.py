"""Embeddings -> loss: the class centres, their cosines, and the softmax over them.

N images, D embedding, K identities.
"""

import collections
import difflib

from losses.face_losses import LOSSES
from runtime.tf1 import tf
from runtime.variables import weight

HeadOutputs = collections.namedtuple("HeadOutputs", "loss accuracy accuracy_margin centres")


def class_centres_loss(
    embeddings_ND, labels_N, identities, loss="arcface", margin=None, scale=None, seed=0
):
    """embeddings_ND float, labels_N integer in [0, identities) or -1 -> HeadOutputs of scalars.
    A row labelled -1 has no loss; the loss and both accuracies are means over the other rows."""
    if loss not in LOSSES:
        near = difflib.get_close_matches(loss, LOSSES, 1, cutoff=0.0)
        raise ValueError(f"the loss {loss} is not known; did you mean {near[0]}?")
    chosen = LOSSES[loss]
    embeddings_ND = tf.cast(embeddings_ND, tf.float32)
    centres_KD = weight(
        "class_centres",
        [identities, embeddings_ND.shape.as_list()[1]],
        tf.random_normal_initializer(stddev=0.01, seed=seed),
        decay=True,
    )
    cosine_NK = tf.matmul(
        tf.nn.l2_normalize(embeddings_ND, 1, epsilon=1e-12),
        tf.nn.l2_normalize(centres_KD, 1, epsilon=1e-12),
        transpose_b=True,
    )
    logits_NK = chosen.function(
        cosine_NK,
        labels_N,
        margin=chosen.margin if margin is None else margin,
        scale=chosen.scale if scale is None else scale,
    )
    each_N = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.maximum(labels_N, 0), logits=logits_NK
    )
    counted_N = tf.cast(labels_N >= 0, tf.float32)
    return HeadOutputs(
        _mean(each_N, counted_N),
        _accuracy(cosine_NK, labels_N, counted_N),
        _accuracy(logits_NK, labels_N, counted_N),
        centres_KD,
    )


def _mean(each_N, counted_N):
    return tf.reduce_sum(each_N * counted_N) / tf.maximum(tf.reduce_sum(counted_N), 1.0)


def _accuracy(score_NK, labels_N, counted_N):
    """Share of the counted rows whose highest score is the true identity's."""
    best_N = tf.argmax(score_NK, axis=1, output_type=tf.int64)
    return _mean(tf.cast(tf.equal(best_N, tf.cast(labels_N, tf.int64)), tf.float32), counted_N)
