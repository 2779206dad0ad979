"""npu_bridge.estimator.npu.util: several steps of a training op in one run."""

import tensorflow as tf
from npu_bridge import sessions
from npu_bridge.world import Mistake


def set_iteration_per_loop(sess, train_op, iterations_per_loop=1):
    """An op of which one run is that many of train_op's."""
    if not isinstance(train_op, tf.Operation):
        raise Mistake("set_iteration_per_loop takes an operation")
    if iterations_per_loop == 1:
        return train_op
    if sess.npu_values["iterations_per_loop"] != iterations_per_loop:
        raise Mistake("NpuOptimizer's iterations_per_loop says another number")
    if any(op.type == "OneShotIterator" for op in sess.graph.get_operations()):
        raise Mistake("iterations_per_loop needs an initializable iterator")
    if sess.graph.finalized:
        raise Mistake("set_iteration_per_loop in a graph that is finalized")
    with sess.graph.as_default():
        sess.graph.npu_iterations = iterations_per_loop
        _load_loop_variables(sess, iterations_per_loop)
        return tf.group(train_op, name="IterationOp")


def _load_loop_variables(sess, iterations_per_loop):
    """The four counters of the device's loop: resource variables whatever the graph's others are,
    loaded by runs of their own, which are no step."""
    values = {"iterations_per_loop": iterations_per_loop - 1, "loop_cond": 0, "zero": 0, "one": 1}
    for name, value in values.items():
        counter = tf.get_variable(
            f"npu_runconfig/{name}",
            [],
            tf.int64,
            tf.zeros_initializer(),
            trainable=False,
            collections=[tf.GraphKeys.LOCAL_VARIABLES],
            use_resource=True,
        )
        initial = counter.initializer.inputs[1]
        sessions.run_on_host(sess, counter.initializer, {initial: value})
