"""npu_bridge.estimator.npu_ops: the start and end of HCCL, and dropout by the device's masks."""

import tensorflow as tf
from npu_bridge.standing import python_op, standing_for
from npu_bridge.world import Mistake, current


def initialize_system(name=None):
    """The op NPUInit."""
    rank = current()

    def start():
        if rank.started:
            raise Mistake(f"rank {rank.number} starts HCCL a second time")
        rank.started = True

    return python_op("NPUInit", start, [], [], [], name)


def shutdown_system(name=None):
    """The op NPUShutdown."""
    rank = current()

    def end():
        if not rank.started or rank.ended:
            raise Mistake(f"rank {rank.number} ends HCCL, which is not running")
        rank.ended = True

    return python_op("NPUShutdown", end, [], [], [], name)


def dropout(x, keep_prob, noise_shape=None, seed=None, name=None):
    """x with 1 - keep_prob of its values dropped, the others larger."""
    if not isinstance(keep_prob, float) or not 0.0 < keep_prob <= 1.0:
        raise Mistake(f"keep_prob is {keep_prob}")
    if x.dtype not in (tf.float16, tf.float32):
        raise Mistake(f"dropout of {x.dtype.name}")
    if keep_prob == 1.0:
        return x
    with standing_for("DropOutDoMask"):
        return tf.nn.dropout(x, rate=1.0 - keep_prob, noise_shape=noise_shape, seed=seed, name=name)
