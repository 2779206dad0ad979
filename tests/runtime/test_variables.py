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
