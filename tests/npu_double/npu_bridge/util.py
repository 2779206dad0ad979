"""npu_bridge.estimator.npu.util: several steps of a training op in one run."""

import tensorflow as tf
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
        return tf.group(train_op, name="IterationOp")
