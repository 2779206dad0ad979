"""Gradients -> variables: momentum with L2 decay, in place, and on the rows that were read alone."""

from runtime.tf1 import tf
from runtime.variables import decayed_variables


def apply_gradients(pairs, learning_rate, kind="momentum", momentum=0.9, weight_decay=0.0):
    """One op that moves every variable of [(gradient, variable)]; a gradient of None is left out.
    momentum: m <- momentum * m + g + weight_decay * w; w <- w - learning_rate * m, where only the
    variables in runtime.variables.decayed_variables() decay. Slots are named <variable>/Momentum.
    IndexedSlices must not name a row twice: such a gradient reads and writes its own rows alone,
    so the rows that were not read neither decay nor move on by their momentum."""
    if kind != "momentum":
        raise ValueError(f"the optimizer {kind} is not known; choose one of momentum.")
    rate = tf.cast(learning_rate, tf.float32)
    decays = {id(variable) for variable in decayed_variables()}
    return tf.group(
        *[
            _move(variable, gradient, rate, momentum, weight_decay if id(variable) in decays else 0)
            for gradient, variable in pairs
            if gradient is not None
        ]
    )


def decay_loss(variables, weight_decay):
    """weight_decay * sum(w^2) / 2 over variables: what the decay adds to the loss, for showing."""
    return weight_decay * tf.add_n([tf.nn.l2_loss(v) for v in variables] or [tf.zeros([])])


def _move(variable, gradient, rate, momentum, decay):
    slot = _slot(variable, "Momentum")
    if isinstance(gradient, tf.IndexedSlices):
        values_RD = gradient.values
        if decay:
            values_RD += decay * tf.gather(variable, gradient.indices)
        return tf.raw_ops.ResourceSparseApplyMomentum(
            var=variable.handle,
            accum=slot.handle,
            lr=rate,
            grad=values_RD,
            indices=gradient.indices,
            momentum=momentum,
        )
    if decay:
        gradient += decay * variable
    return tf.raw_ops.ResourceApplyMomentum(
        var=variable.handle, accum=slot.handle, lr=rate, grad=gradient, momentum=momentum
    )


def _slot(variable, name):
    """A variable of zeros beside `variable`, named <variable>/<name> wherever it is made."""
    with tf.variable_scope(
        tf.VariableScope(reuse=tf.AUTO_REUSE), auxiliary_name_scope=False
    ), tf.name_scope(None):
        return tf.get_variable(
            f"{variable.op.name}/{name}",
            variable.shape,
            variable.dtype.base_dtype,
            initializer=tf.zeros_initializer(),
            trainable=False,
        )
