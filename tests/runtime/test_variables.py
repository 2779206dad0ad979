import numpy as np

from runtime.tf1 import tf
from runtime.variables import decayed_variables, weight


def test_a_weight_is_marked_once_however_often_it_is_used():
    with tf.Graph().as_default():
        for _ in range(2):
            with tf.variable_scope("tower", reuse=tf.AUTO_REUSE):
                decays = weight("w", [2, 3], tf.zeros_initializer(), decay=True)
                weight("b", [3], tf.zeros_initializer())
        marked = decayed_variables()
        assert len(marked) == 1 and marked[0] is decays


def test_variables_are_resources_on_both_tensorflows():
    with tf.Graph().as_default():
        variable = weight("w", [2, 3], tf.zeros_initializer())
        assert variable.handle.dtype == tf.resource


def first_values(others):
    """A weight's first values in a graph where `others` operations came before it."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(3)
        for _ in range(others):
            tf.constant(0)
        start = tf.random_normal_initializer()
        with tf.variable_scope("net"):
            pair = [weight(name, [2, 3], start) for name in ("a", "b")]
        session.run(tf.global_variables_initializer())
        return session.run(pair)


def test_first_weights_do_not_depend_on_what_else_is_in_the_graph():
    np.testing.assert_array_equal(first_values(others=0), first_values(others=5))


def test_two_weights_of_one_initializer_start_differently():
    a, b = first_values(others=0)
    assert not np.array_equal(a, b)
