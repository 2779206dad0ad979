"""Floating-point operations of a step against counts by hand."""

import collections

import pytest

from losses.centre_cosines import in_blocks
from runtime.tf1 import tf
from training.cost.flops import peak_of, step_flops

Ops = collections.namedtuple("Ops", "train accumulate")
HALF, FULL = 378e12, 989.4e12


def counted(tensors, rows=1, accumulate=()):
    return step_flops(Ops(tf.group(*tensors), accumulate), rows)


def test_a_convolution_and_both_its_gradients_count_alike():
    forward = 2 * (2 * 5 * 7 * 4) * (3 * 3 * 3)  # each output: 27 multiplications and additions
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [2, 5, 7, 3])
        kernel = tf.placeholder(tf.float32, [3, 3, 3, 4])
        y = tf.nn.conv2d(x, kernel, [1, 1, 1, 1], padding="SAME")
        assert counted([y]) == forward
        assert counted([y] + tf.gradients(y, [x, kernel])) == 3 * forward


def test_a_depthwise_convolution_counts_one_channel_per_output():
    with tf.Graph().as_default():
        x, kernel = (tf.placeholder(tf.float32, shape) for shape in ([2, 5, 7, 3], [3, 3, 3, 1]))
        y = tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], padding="SAME")
        assert counted([y]) == 2 * (2 * 5 * 7 * 3) * (3 * 3)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_counts_its_three_sizes(transposed):
    with tf.Graph().as_default():
        a = tf.placeholder(tf.float32, [5, 2] if transposed else [2, 5])
        b = tf.placeholder(tf.float32, [3, 5] if transposed else [5, 3])
        assert counted([tf.matmul(a, b, transposed, transposed)]) == 2 * 2 * 5 * 3


def test_a_product_in_blocks_of_rows_counts_all_rows():
    with tf.Graph().as_default():
        units, centres = tf.placeholder(tf.float32, [4, 8]), tf.placeholder(tf.float32, [50, 8])

        def body(start, stop, _, total):
            rows = tf.reshape(centres[start:stop], [-1, 8])
            return (total + tf.reduce_sum(tf.matmul(rows, units, transpose_b=True)),)

        total = in_blocks(body, 50, (tf.zeros([]),), block=20)
        assert counted(total, rows=50) == 2 * 50 * 8 * 4


def test_the_parts_of_a_batch_all_count():
    with tf.Graph().as_default():
        y = tf.matmul(tf.ones([2, 5]), tf.ones([5, 3]))
        assert counted([y], accumulate=[y.op, y.op]) == 3 * 60


def test_the_peak_is_of_the_slowest_device_and_of_the_precision():
    assert peak_of(["NVIDIA H100 PCIe", "NVIDIA H100 80GB HBM3"], "fp32") == HALF
    assert peak_of(["NVIDIA H100 80GB HBM3"], "bf16") == FULL


@pytest.mark.parametrize("names", [[], ["Some Card"], ["NVIDIA H100 PCIe", "Some Card"]])
def test_a_peak_that_is_not_known_for_all_devices_is_none(names):
    assert peak_of(names, "fp32") is None
