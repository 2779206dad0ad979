"""Peak memory against hand-made graphs, and against TensorFlow's own trace of a step."""

import pytest

from benchmarks.estimate import config_of, traced_peaks
from runtime.distributed.ranks import SINGLE
from runtime.tf1 import tf
from training.cost.estimate import one_rank, step_peak
from training.cost.peak_memory import live_tensors, needed

ROWS, COLUMNS = 3, 256
ONE_TENSOR = ROWS * COLUMNS * 4


@pytest.fixture
def fed():
    with tf.Graph().as_default():
        yield tf.placeholder(tf.float32, [ROWS, COLUMNS])


def test_an_elementwise_chain_stays_in_one_buffer(fed):
    assert live_tensors([tf.exp(fed * 2.0) + 1.0]).peak == ONE_TENSOR


def test_a_tensor_that_is_read_again_is_held_until_then(fed):
    first = fed * 2.0
    last = tf.matmul(tf.exp(tf.exp(first)), first, transpose_b=True)
    assert live_tensors([last]).peak == 2 * ONE_TENSOR + ROWS * ROWS * 4


def test_a_reshaped_tensor_is_not_another_one(fed):
    first = fed * 2.0
    last = tf.reduce_sum(tf.reshape(first, [-1])) + tf.reduce_sum(tf.identity(first))
    assert live_tensors([last]).peak == pytest.approx(ONE_TENSOR, abs=8)


def test_what_a_loop_holds_inside_counts_once(fed):
    def turn(index, total):
        return index + 1, total + tf.reduce_sum(tf.tile(fed, [4, 1]))

    loop = tf.while_loop(lambda index, _: index < 5, turn, (tf.constant(0), tf.constant(0.0)))
    assert live_tensors([loop[1]]).peak == pytest.approx(4 * ONE_TENSOR, rel=0.01)


def test_what_is_not_asked_for_is_not_held(fed):
    asked, _ = fed * 2.0, tf.tile(fed, [100, 1])
    assert live_tensors([asked]).peak == ONE_TENSOR
    assert [op.type for op in needed([asked])] == ["Placeholder", "Const", "Mul"]


def test_values_that_are_read_after_an_update_are_a_copy(fed):
    variable = tf.get_variable("weights", [ROWS, COLUMNS])
    before = variable.read_value()
    with tf.control_dependencies([before]):
        moved = tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=0.1, delta=fed)
    with tf.control_dependencies([moved]):
        after = tf.reduce_sum(before)
    assert live_tensors([after]).peak == pytest.approx(ONE_TENSOR, abs=8)
    assert live_tensors([moved]).peak == 0


def test_a_plain_reading_is_a_copy_where_rows_are_read(fed):
    variable = tf.get_variable("weights", [ROWS, COLUMNS])
    whole = tf.reduce_sum(variable.read_value())
    assert live_tensors([whole]).peak == pytest.approx(0, abs=8)
    tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=[1], updates=fed[:1])
    assert live_tensors([whole]).peak == pytest.approx(ONE_TENSOR, abs=8)


def test_a_steps_peak_is_within_a_tenth_of_tensorflows_trace():
    config = config_of(dict(net_depth=18, batch_size=6, num_output=9000))
    with tf.Graph().as_default():
        step = one_rank(config, config.num_output)
        predicted = step_peak(step.towers[0], step)
    assert predicted == pytest.approx(max(traced_peaks(config, SINGLE)), rel=0.1)
