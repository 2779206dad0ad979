"""Margin losses as pure functions: cosines and labels -> logits. N images, K identities.

cosine_NK is float32 in [-1, 1], up to rounding; labels_N is any integer type in [0, K), where -1
says that a row has no true identity here: its logits are the scaled cosines. Every function
returns float32 [N, K].
"""

import collections
import math

from runtime.tf1 import tf

SINE_FLOOR = 1e-4  # the smallest sine above 0 of a float32 cosine is 3.5e-4


def arcface(cosine_NK, labels_N, margin=0.5, scale=64.0):
    """scale * cos(theta + margin) for the true identity. arXiv:1801.07698.
    Beyond theta + margin = pi the cosine would rise again; there it is cos(theta) - margin * sin(margin)."""

    def bent(cosine_N):
        sine_N = _sine(cosine_N)
        turned_N = cosine_N * math.cos(margin) - sine_N * math.sin(margin)
        line_N = cosine_N - margin * math.sin(margin)
        return tf.where(cosine_N > math.cos(math.pi - margin), turned_N, line_N)

    return scale * _with_true(cosine_NK, labels_N, bent)


def cosface(cosine_NK, labels_N, margin=0.35, scale=64.0):
    """scale * (cos(theta) - margin) for the true identity. arXiv:1801.09414."""
    return scale * _with_true(cosine_NK, labels_N, lambda cosine_N: cosine_N - margin)


Loss = collections.namedtuple("Loss", "function margin scale")

LOSSES = {
    "arcface": Loss(arcface, 0.5, 64.0),
    "cosface": Loss(cosface, 0.35, 64.0),
}


def _sine(cosine_N):
    """sin(theta) of [0, pi], with a finite slope at both ends; (1-c)(1+c) keeps small angles exact."""
    cosine_N = tf.clip_by_value(cosine_N, -1.0, 1.0)
    return tf.sqrt(tf.maximum((1.0 - cosine_N) * (1.0 + cosine_N), SINE_FLOOR**2))


def _with_true(cosine_NK, labels_N, margin_of):
    """cosine_NK with margin_of(cosine_N) in the place of each row's true identity."""
    labels_N = tf.cast(labels_N, tf.int64)
    has_true_N = labels_N >= 0
    at_N2 = tf.stack(
        [tf.range(tf.size(labels_N, out_type=tf.int64)), tf.maximum(labels_N, 0)], axis=1
    )
    cosine_N = tf.gather_nd(cosine_NK, at_N2)
    target_N = tf.where(has_true_N, margin_of(cosine_N), cosine_N)
    return tf.tensor_scatter_nd_update(cosine_NK, at_N2, target_N)
