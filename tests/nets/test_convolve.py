"""A strided 1 x 1 convolution, whose filter gradient TensorFlow 2.21 computes past its buffer."""

import numpy as np

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
