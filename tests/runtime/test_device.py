"""The operations that differ between devices, of the CPU and GPU strategy, against NumPy."""

import numpy as np
import pytest

from runtime import device
from runtime.flags import DEVICES
from runtime.tf1 import tf

LABELS_N = np.array([3, 0, -1])
SCORE_NR = np.arange(12, dtype=np.float32).reshape(3, 4) + 1.0
VALUE_N = np.array([50.0, 60.0, 70.0], np.float32)
TRUE_N = np.maximum(LABELS_N, 0)  # the label -1 selects identity 0
HOST = device.strategy("cpu")


def run(make):
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(make())


def test_each_device_has_a_strategy_and_the_cpu_shares_that_of_the_gpu():
    assert [isinstance(device.strategy(name), device.Npu) for name in DEVICES] == [
        name == "npu" for name in DEVICES
    ]
    assert device.strategy("gpu") is HOST


def test_current_is_the_strategy_that_built_the_graph():
    with tf.Graph().as_default():
        assert device.current() is HOST
        device.strategy("npu").build_graph()
        assert device.current() is device.strategy("npu")
    with tf.Graph().as_default():
        HOST.build_graph()
        assert device.current() is HOST


def test_take_selects_the_true_identitys_score():
    found = run(lambda: HOST.take(tf.constant(SCORE_NR), tf.constant(LABELS_N)))
    np.testing.assert_array_equal(found, SCORE_NR[range(3), TRUE_N])


@pytest.mark.parametrize("name", ["cpu", "npu"])
def test_put_and_subtract_change_the_true_identitys_score_alone(name):
    chosen = device.strategy(name)
    replaced, lowered = SCORE_NR.copy(), SCORE_NR.copy()
    replaced[range(3), TRUE_N] = VALUE_N
    lowered[range(3), TRUE_N] -= VALUE_N

    def make():
        score_NR, labels_N = tf.constant(SCORE_NR), tf.constant(LABELS_N)
        return (
            chosen.put(score_NR, labels_N, tf.constant(VALUE_N)),
            chosen.subtract(score_NR, labels_N, tf.constant(VALUE_N)),
        )

    found = run(make)
    np.testing.assert_array_equal(found[0], replaced)
    np.testing.assert_array_equal(found[1], lowered)


@pytest.mark.parametrize("name", ["cpu", "npu"])
def test_the_gradients_of_take_and_keep_are_added(name):
    expected = np.full_like(SCORE_NR, 2.0)
    expected[range(3), TRUE_N] += VALUE_N

    def make():
        score_NR = tf.constant(SCORE_NR)
        kept_NR, true_N = device.strategy(name).take_and_keep(score_NR, tf.constant(LABELS_N))
        return tf.gradients([2.0 * kept_NR, VALUE_N * true_N], score_NR)[0]

    np.testing.assert_array_equal(run(make), expected)


def test_dropout_with_a_seed_repeats_its_mask_and_keeps_the_mean():
    def make():
        ones = tf.ones([4000])
        seeds = [tf.constant(seed, tf.int32) for seed in ([1, 2], [1, 2], [1, 3])]
        return [HOST.dropout(ones, 0.25, seed) for seed in seeds]

    first, again, other = run(make)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_allclose(np.unique(first), [0.0, 1.0 / 0.75], rtol=1e-6)
    assert abs((first == 0).mean() - 0.25) < 0.04  # six standard deviations


@pytest.mark.parametrize("finite", [True, False])
def test_an_update_is_applied_only_if_the_gradients_are_finite(finite):
    with tf.Graph().as_default(), tf.Session() as session:
        value = tf.get_variable("value", [], initializer=tf.zeros_initializer())
        applied, _ = HOST.apply_if_finite(
            lambda: tf.assign_add(value, 1.0).op, [], tf.constant(finite), None, 1
        )
        session.run(value.initializer)
        session.run(applied)
        assert session.run(value) == (1.0 if finite else 0.0)


def test_the_loss_scale_changes_after_the_update():
    class Scale:
        """Doubles the scale that the update reads."""

        def update(self, finite):
            return tf.assign(scale, 2.0 * scale).op

    with tf.Graph().as_default(), tf.Session() as session:
        scale = tf.get_variable("scale", [], initializer=tf.constant_initializer(8.0))
        value = tf.get_variable("value", [], initializer=tf.zeros_initializer())
        applied, _ = HOST.apply_if_finite(
            lambda: tf.assign(value, scale.read_value()).op, [], tf.constant(True), Scale(), 1
        )
        session.run(tf.global_variables_initializer())
        session.run(applied)
        assert session.run([value, scale]) == [8.0, 16.0]


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_momentum_is_that_of_the_decayed_gradient(nesterov, decay):
    weight, slot, gradient, lr, momentum = 2.0, 0.5, 0.25, 0.5, 0.75
    decayed = gradient + decay * weight
    accumulator = momentum * slot + decayed
    moved = decayed + momentum * accumulator if nesterov else accumulator
    with tf.Graph().as_default(), tf.Session() as session:
        HOST.build_graph()
        w = tf.get_variable("w", [1], initializer=tf.constant_initializer(weight))
        s = tf.get_variable("s", [1], initializer=tf.constant_initializer(slot))
        settings = dict(lr=lr, momentum=momentum, use_nesterov=nesterov)
        applied = HOST.apply_momentum(w, s, tf.constant([gradient]), decay, **settings)
        session.run(tf.global_variables_initializer())
        session.run(applied)
        found = session.run([w, s])
    np.testing.assert_allclose(np.ravel(found), [weight - lr * moved, accumulator], rtol=1e-6)


@pytest.mark.parametrize("name", ["cpu", "npu"])
def test_bias_corrections_keep_their_digits_at_the_first_step(name):
    found = run(lambda: device.strategy(name).bias_corrections(tf.constant(1), [0.9, 0.9999]))
    np.testing.assert_allclose(found, [0.1, 1e-4], rtol=1e-6)


def test_write_rows_replaces_the_named_rows():
    with tf.Graph().as_default(), tf.Session() as session:
        table = tf.get_variable("table", [3, 2], initializer=tf.zeros_initializer())
        written = HOST.write_rows(table, tf.constant([2, 0]), tf.constant([[1.0, 2.0], [3.0, 4.0]]))
        session.run(table.initializer)
        session.run(written)
        np.testing.assert_array_equal(session.run(table), [[3, 4], [0, 0], [1, 2]])


def test_a_check_that_fails_ends_the_step_with_its_data():
    def make():
        x = tf.constant([1.0])
        return HOST.check(x, lambda: tf.constant(False), lambda: ["label", 7])

    with pytest.raises(tf.errors.InvalidArgumentError, match="(?s)label.*7"):
        run(make)


def test_the_time_of_a_batch_is_not_negative():
    with tf.Graph().as_default(), tf.Session() as session:
        batches = tf.data.make_initializable_iterator(tf.data.Dataset.range(3))
        element, waited = HOST.next_batch(batches)
        session.run(batches.initializer)
        found = [session.run([element, waited]) for _ in range(3)]
    assert [value for value, _ in found] == [0, 1, 2]
    assert all(seconds >= 0.0 for _, seconds in found)


def test_several_steps_per_call_need_an_npu():
    with pytest.raises(AssertionError, match="several steps per call need an NPU"):
        HOST.repeat_step(None, None, 2)


def test_true_indices_are_row_and_label():
    found = run(lambda: device.true_indices(tf.constant(LABELS_N, tf.int32)))
    np.testing.assert_array_equal(found, [[0, 3], [1, 0], [2, 0]])
