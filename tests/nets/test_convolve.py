"""Convolutions whose gradients are not left to TensorFlow: it is wrong in one, slow in another."""

import numpy as np
import pytest

from nets.layers import convolve
from runtime.tf1 import tf


def test_a_strided_1x1_subsamples_first_and_its_filter_gradient_is_right():
    noise = np.random.RandomState(0)
    x, k = noise.randn(2, 6, 6, 3).astype("f"), noise.randn(1, 1, 3, 5).astype("f")
    with tf.Graph().as_default() as graph, tf.Session() as session:
        kernel = tf.constant(k)
        y = convolve(tf.constant(x), kernel, stride=2, pad=0)
        slope = tf.gradients(y * y, kernel)[0]
        found, gradient = session.run([y, slope])
        strided = [
            op.name
            for op in graph.get_operations()
            if op.type.startswith("Conv2D") and list(op.get_attr("strides")) != [1, 1, 1, 1]
        ]
    assert strided == []
    expected = np.einsum("nhwc,cf->nhwf", x[:, ::2, ::2], k[0, 0])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        gradient[0, 0],
        np.einsum("nhwc,nhwf->cf", x[:, ::2, ::2], 2 * expected),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("size, channels", [(1, 5), (3, 4)])
def test_gradients_of_a_same_convolution_are_tensorflows_own(size, channels):
    """Where the input's is computed by a convolution, too."""
    noise = np.random.RandomState(0)
    x, k = noise.randn(2, 6, 7, channels), noise.randn(size, size, channels, 3)
    with tf.Graph().as_default(), tf.Session() as session:
        x, kernel = tf.constant(x, tf.float32), tf.constant(k, tf.float32)
        plain = tf.nn.conv2d(x, kernel, [1, 1, 1, 1], padding="SAME")
        ours = convolve(x, kernel, stride=1, pad=(size - 1) // 2, training=True)
        expected, found = session.run([tf.gradients(y * y, [x, kernel]) for y in (plain, ours)])
    for own, other in zip(found, expected):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-4)
