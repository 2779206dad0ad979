"""Sums over the parts of a batch: their mean, and that they are empty between steps."""

import pytest

from runtime.tf1 import tf
from training.graph.gradient_accumulation import Accumulator


def means_of(parts, steps=1):
    """The mean that each step sees of one value per part."""
    count = len(parts)
    with tf.Graph().as_default(), tf.Session() as session:
        global_step = tf.train.get_or_create_global_step()
        value = tf.placeholder(tf.float32, [])
        accumulator = Accumulator(count, global_step)
        (mean,) = accumulator.mean([value])
        partial = accumulator.partial_ops([])
        with tf.control_dependencies([mean]):
            reset = accumulator.reset_op()
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        found = []
        for _ in range(steps):
            for op, part in zip(partial, parts):
                session.run(op, {value: part})
            found.append(session.run([mean, reset], {value: parts[-1]})[0])
        return found


@pytest.mark.parametrize("parts", [[3.0], [1.0, 5.0], [1.0, 2.0, 6.0]])
def test_the_last_part_sees_the_mean_of_all(parts):
    assert means_of(parts) == [sum(parts) / len(parts)]


def test_the_sums_are_empty_again_after_a_step():
    assert means_of([1.0, 2.0, 6.0], steps=3) == [3.0, 3.0, 3.0]


def test_each_part_of_each_step_has_a_turn_of_its_own():
    with tf.Graph().as_default(), tf.Session() as session:
        global_step = tf.train.get_or_create_global_step()
        accumulator = Accumulator(2, global_step)
        (partial,), found = accumulator.partial_ops([]), []
        with tf.control_dependencies([accumulator.reset_op()]):
            step = tf.assign_add(global_step, 1).op
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        for _ in range(3):
            found.append(session.run(accumulator.turn))
            session.run(partial)
            found.append(session.run(accumulator.turn))
            session.run(step)
        assert found == [0, 1, 2, 3, 4, 5]


def test_one_part_makes_no_variable():
    with tf.Graph().as_default():
        accumulator = Accumulator(1, tf.train.get_or_create_global_step())
        value = tf.constant(2.0)
        assert accumulator.mean([value]) == [value] and accumulator.partial_ops([]) == ()
        assert tf.local_variables() == []
