"""The loss scale of npu_bridge.estimator.npu: an update that the float status has to let pass."""

import numpy as np
import tensorflow as tf
from npu_bridge import npu_plugin
from npu_bridge.hccl import hccl_ops
from npu_bridge.standing import python_op, standing_for
from npu_bridge.world import Mistake, current, old, world


def float_status(gradients):
    """What the device says of all since it was last asked: 0 where nothing overflowed."""
    rank = current()
    dtype, count = (tf.float32, 1) if old() else (tf.int32, 8)
    kind = "NpuGetFloatStatus" if old() else "NpuGetFloatStatusV2"

    def read(whole):
        rank.statuses += 1
        over = not whole or (rank.number, rank.statuses) in world().overflows
        return np.full([count], over, dtype.as_numpy_dtype)

    with standing_for(kind):
        whole = [tf.reduce_all(tf.is_finite(_values(one))) for one in gradients]
        whole = tf.reduce_all(tf.stack(whole))
    return python_op(kind, read, [whole], [dtype], [[count]])[0]


def clear_status():
    """The op that clears the float status; it has no output, as the adapter's has none."""
    return python_op(
        "NpuClearFloatStatus" if old() else "NpuClearFloatStatusV2", _nothing, [], [], []
    )


def _nothing():
    return None


def _values(gradient):
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


class FixedLossScaleManager:
    def __init__(self, loss_scale, enable_overflow_check=True):
        if loss_scale < 1:
            raise ValueError("loss scale must be at least 1.")
        self._loss_scale, self._enable = tf.constant(loss_scale, tf.float32), enable_overflow_check

    def get_loss_scale(self):
        return self._loss_scale

    def get_enable_overflow_check(self):
        return self._enable

    def update_loss_scale(self, finite_grads):
        return tf.no_op()


class NPULossScaleOptimizer(tf.train.Optimizer):
    """Makes the update of the optimizer inside, where no gradient has overflowed on any rank."""

    def __init__(self, opt, loss_scale_manager, is_distributed=False):
        if not isinstance(opt, tf.train.Optimizer):
            raise ValueError(f'"opt" must be an Optimizer, but got: {opt}')
        if is_distributed != (world().size > 1):
            raise Mistake(f"is_distributed is {is_distributed} in a world of {world().size}")
        super(NPULossScaleOptimizer, self).__init__(False, "NPULossScaleOptimizer")
        self._opt, self._manager, self._is_distributed = opt, loss_scale_manager, is_distributed

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        grads_and_vars = list(grads_and_vars)
        gradients = [gradient for gradient, _ in grads_and_vars if gradient is not None]
        if getattr(npu_plugin, "is_inf_nan_enabled", lambda: False)():
            finite = self._is_finite_here(gradients)
        else:
            finite = self._is_finite_everywhere(gradients)
        moved = tf.cond(
            finite,
            lambda: self._opt.apply_gradients(grads_and_vars, global_step, name),
            tf.no_op,
        )
        return tf.group(moved, self._manager.update_loss_scale(finite))

    def _is_finite_everywhere(self, gradients):
        """In saturation mode: by the float status of all ranks, which is then cleared."""
        with tf.control_dependencies(gradients):
            status = float_status(gradients)
        with tf.control_dependencies([status]):
            cleared = clear_status()
        if self._is_distributed:
            status = hccl_ops.allreduce([status], "sum", fusion=0)
        with tf.control_dependencies([cleared]):
            return tf.reduce_all(tf.equal(status, tf.zeros([], status.dtype)))

    def _is_finite_here(self, gradients):
        """In INF/NaN mode: the base class, which knows this rank's gradients alone."""
        if self._is_distributed:
            raise Mistake("in INF/NaN mode a rank's overflow would stop that rank alone")
        return tf.reduce_all(tf.stack([tf.reduce_all(tf.is_finite(_values(g))) for g in gradients]))
