"""Gradients of backbone and head: scaling, clipping, and the norm over ranks."""

import numpy as np
import pytest

from runtime.tf1 import tf
from training.graph.gradients import clip_gradients, compute_gradients

BACKBONE, HEAD = [3.0, 4.0], [0.0, 12.0]  # norms 5 and 12; of both together 13


def clipped(total=tf.identity, sparse=False, **options):
    """(backbone gradient, head gradient, norm) after clipping."""
    with tf.Graph().as_default(), tf.Session() as session:
        head = tf.constant([HEAD])
        if sparse:
            head = tf.IndexedSlices(head, tf.constant([1]), tf.constant([4, 2]))
        found = clip_gradients(
            [(tf.constant(BACKBONE), None)], [(head, None)], total=total, **options
        )
        gradients = [getattr(gradient, "values", gradient) for gradient, _ in found.pairs]
        return session.run(gradients + [found.norm])


@pytest.mark.parametrize("sparse", [False, True])
def test_clipping_scales_backbone_and_head_to_the_bound(sparse):
    backbone, head, norm = clipped(clip_norm=6.5, sparse=sparse)
    assert norm == pytest.approx(13.0)
    np.testing.assert_allclose(backbone, np.array(BACKBONE) / 2, rtol=1e-6)
    np.testing.assert_allclose(head[0], np.array(HEAD) / 2, rtol=1e-6)


@pytest.mark.parametrize("clip", ["all", "backbone"])
def test_gradients_below_the_bound_are_not_changed(clip):
    backbone, head, _ = clipped(clip_norm=100.0, clip=clip)
    np.testing.assert_array_equal(backbone, BACKBONE)
    np.testing.assert_array_equal(head[0], HEAD)


def test_clipping_the_backbone_ignores_the_head():
    backbone, head, norm = clipped(clip_norm=2.5, clip="backbone")
    assert norm == pytest.approx(5.0)
    np.testing.assert_allclose(backbone, np.array(BACKBONE) / 2, rtol=1e-6)
    np.testing.assert_array_equal(head[0], HEAD)


def test_the_norm_sums_the_heads_slices_over_ranks_and_not_the_backbone():
    """Two ranks with equal slices: the head's squares count twice, the backbone's once."""
    norm = clipped(total=lambda square: 2.0 * square, clip_norm=1.0)[2]
    assert norm == pytest.approx(np.sqrt(25.0 + 2.0 * 144.0))


def slopes(loss_scale=None):
    """(backbone gradients, head gradients) of a product of two weights."""
    with tf.Graph().as_default(), tf.Session() as session:
        weight = tf.get_variable("weight", [2], initializer=tf.constant_initializer([2.0, -1.0]))
        centres = tf.get_variable("centres", [2], initializer=tf.constant_initializer([3.0, 5.0]))
        embedded_ND = tf.constant([[1.0, 2.0]]) * weight
        loss = tf.reduce_sum(embedded_ND * centres)
        scale = None if loss_scale is None else tf.constant(loss_scale)
        found = compute_gradients(loss, embedded_ND, [weight, centres], scale)
        session.run(tf.global_variables_initializer())
        return [session.run([gradient for gradient, _ in pairs]) for pairs in found]


@pytest.mark.parametrize("loss_scale", [None, 1024.0])
def test_scaled_gradients_are_scaled_back(loss_scale):
    backbone, head = slopes(loss_scale)
    np.testing.assert_allclose(backbone[0], [3.0, 10.0], rtol=1e-6)
    np.testing.assert_allclose(head[0], [2.0, -2.0], rtol=1e-6)


def test_the_scale_is_applied_on_the_way_through_the_backbone():
    """A gradient that fp16 alone would round to zero arrives."""
    with tf.Graph().as_default(), tf.Session() as session:
        weight = tf.get_variable("weight", [1], initializer=tf.ones_initializer())
        embedded_ND = tf.cast(
            tf.cast(weight, tf.float16)[None] * tf.constant(1, tf.float16), tf.float32
        )
        loss = 1e-9 * tf.reduce_sum(embedded_ND)
        session.run(tf.global_variables_initializer())
        for scale, expected in ((None, 0.0), (2.0**20, 1e-9)):
            loss_scale = None if scale is None else tf.constant(scale)
            pairs, _ = compute_gradients(loss, embedded_ND, [weight], loss_scale)
            np.testing.assert_allclose(session.run(pairs[0][0]), [expected], rtol=1e-2)
