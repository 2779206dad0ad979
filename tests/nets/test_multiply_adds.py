"""Multiplications and additions of single operations against counts by hand."""

from nets.multiply_adds import multiply_adds
from runtime.tf1 import tf


def test_kernels_are_counted_for_every_output():
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [2, 5, 7, 3])
        kernels = [
            tf.placeholder(tf.float32, [3, 3, 3, 4]),
            tf.placeholder(tf.float32, [3, 3, 3, 1]),
        ]
        plain = tf.nn.conv2d(x, kernels[0], [1, 1, 1, 1], padding="SAME")
        depthwise = tf.nn.depthwise_conv2d(x, kernels[1], [1, 1, 1, 1], padding="SAME")
        assert multiply_adds(plain.op) == (2 * 5 * 7 * 4) * (3 * 3 * 3)
        assert multiply_adds(depthwise.op) == (2 * 5 * 7 * 3) * (3 * 3)


def test_rows_stand_for_the_size_that_is_not_static():
    with tf.Graph().as_default():
        a, b = tf.placeholder(tf.float32, [None, 5]), tf.placeholder(tf.float32, [5, 3])
        product = tf.matmul(a, b).op
        assert multiply_adds(product, rows=7) == 7 * 5 * 3
        assert multiply_adds(product) == 5 * 3


def test_other_operations_count_nothing():
    with tf.Graph().as_default():
        assert multiply_adds(tf.nn.relu(tf.ones([4, 4])).op) == 0
