"""Gradients -> variables: momentum and L2 decay, in place, and on the rows that were read alone."""

from losses.centre_cosines import RowGradient, for_blocks, in_blocks
from runtime.tf1 import tf
from runtime.variables import decayed_variables

OPTIMIZERS = ("momentum", "nesterov")
SUM_BLOCK = 1 << 14  # rows of a variable that decay_loss squares at a time


def apply_gradients(pairs, learning_rate, kind="momentum", momentum=0.9, weight_decay=0.0):
    """One op that moves every variable of [(gradient, variable)]; a gradient of None is left out.
    momentum: m <- momentum * m + g + weight_decay * w; w <- w - learning_rate * m, as PyTorch's
    SGD; nesterov: w <- w - learning_rate * (momentum * m + g + weight_decay * w). Only the
    variables in runtime.variables.decayed_variables() decay. Slots are named <variable>/Momentum.

    IndexedSlices must not name a row twice: its rows are read, decayed and written alone, a block
    at a time. The rows that it does not name stay where they are and keep their momentum."""
    if kind not in OPTIMIZERS:
        raise ValueError(f"--optimizer {kind} is not known; choose one of {', '.join(OPTIMIZERS)}.")
    rate = tf.cast(learning_rate, tf.float32)
    decays = {id(variable) for variable in decayed_variables()}
    moved = []
    for gradient, variable in pairs:
        if gradient is None:
            continue
        move = _move_rows if isinstance(gradient, tf.IndexedSlices) else _move_all
        decay = weight_decay if id(variable) in decays else 0.0
        moved.append(move(variable, gradient, rate, momentum, decay, kind == "nesterov"))
    return tf.group(*moved)


def decay_loss(variables, weight_decay):
    """weight_decay * sum(w^2) / 2 over variables: what the decay adds to the loss, for showing.
    Of a variable that is updated by rows a plain read would be a copy; it is read in blocks."""
    return weight_decay * tf.add_n([_half_square(v) for v in variables] or [tf.zeros([])])


def _half_square(variable):
    count = variable.shape.as_list()[0] if variable.shape.ndims else 0
    if count <= SUM_BLOCK:
        return tf.nn.l2_loss(variable)

    def body(start, stop, _, total):
        return (total + tf.nn.l2_loss(tf.gather(variable, tf.range(start, stop))),)

    return in_blocks(body, count, (tf.zeros([]),), block=SUM_BLOCK)[0]


def _move_all(variable, gradient, rate, momentum, decay, nesterov):
    if decay:
        gradient += decay * variable
    return tf.raw_ops.ResourceApplyMomentum(
        var=variable.handle,
        accum=momentum_of(variable).handle,
        lr=rate,
        grad=gradient,
        momentum=momentum,
        use_nesterov=nesterov,
    )


def _move_rows(variable, gradient, rate, momentum, decay, nesterov):
    """By gather and scatter: ResourceSparseApplyMomentum does it in one thread, and on no GPU."""
    slot, rows_R = momentum_of(variable), gradient.indices
    in_place = isinstance(gradient, RowGradient)

    def body(start, stop, index):
        rows_B = rows_R[start:stop]
        weights_BD, speeds_BD = tf.gather(variable, rows_B), tf.gather(slot, rows_B)
        pull_BD = gradient.block(start, weights_BD) if in_place else gradient.values[start:stop]
        pull_BD += decay * weights_BD
        speeds_BD = momentum * speeds_BD + pull_BD
        step_BD = pull_BD + momentum * speeds_BD if nesterov else speeds_BD
        return [
            _write(slot, rows_B, speeds_BD),
            _write(variable, rows_B, weights_BD - rate * step_BD),
        ]

    with tf.control_dependencies([gradient.ready] if in_place else [gradient.values]):
        return for_blocks(body, rows_R.shape.as_list()[0])


def _write(variable, rows_B, values_BD):
    return tf.raw_ops.ResourceScatterUpdate(
        resource=variable.handle, indices=rows_B, updates=values_BD
    )


def momentum_of(variable):
    """The variable of zeros beside `variable`, named <variable>/Momentum wherever it is made."""

    def zeros():
        # A folded constant would share its memory with the slot, and the first write to a row
        # would copy the whole of it.
        return tf.fill(variable.shape, tf.placeholder_with_default(0.0, []))

    with tf.variable_scope(
        tf.VariableScope(reuse=tf.AUTO_REUSE), auxiliary_name_scope=False
    ), tf.name_scope(None):
        return tf.get_variable(
            f"{variable.op.name}/Momentum", initializer=zeros, trainable=False, dtype=tf.float32
        )
