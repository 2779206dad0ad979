"""Optimizers: gradients -> variables, updated in place, and only at the rows that were read.

R rows of a variable that a gradient names, B of them in a block, D numbers in a row.
"""

from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

from losses.centre_cosines import RowGradient, for_blocks, in_blocks
from runtime.device import current
from runtime.tf1 import tf
from runtime.variables import decayed_variables, is_sliced, sliced_like
from training.choices import OPTIMIZERS

SUM_BLOCK = 1 << 14  # rows of a variable that decay_loss squares per iteration
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of AdamW, arXiv:1711.05101, as PyTorch
TRUST = 0.001  # of LARS, arXiv:1708.03888

Total = Callable[[tf.Tensor], tf.Tensor]  # the sum over ranks of a value of each rank's slice


class Rates(NamedTuple):
    """The numbers of a variable's update."""

    rate: tf.Tensor  # learning rate of this step and variable
    momentum: float
    corrections: Optional[List[tf.Tensor]]  # 1 - BETA1^t, 1 - BETA2^t at AdamW's step t


class Rule(NamedTuple):
    """One optimizer."""

    slots: Tuple[str, ...]  # names of a variable's optimizer state
    # (weights, gradient, slots, Rates, decay) -> (weights, slots) of the same shape
    update: Callable[..., Tuple[tf.Tensor, List[tf.Tensor]]]


def _momentum(weights, gradient, slots, rates, decay):
    velocity = rates.momentum * slots[0] + gradient + decay * weights
    return weights - rates.rate * velocity, [velocity]


def _nesterov(weights, gradient, slots, rates, decay):
    decayed = gradient + decay * weights
    velocity = rates.momentum * slots[0] + decayed
    return weights - rates.rate * (decayed + rates.momentum * velocity), [velocity]


def _adamw(weights, gradient, slots, rates, decay):
    mean = BETA1 * slots[0] + (1.0 - BETA1) * gradient
    square = BETA2 * slots[1] + (1.0 - BETA2) * tf.square(gradient)
    size = tf.sqrt(square / rates.corrections[1]) + EPSILON
    step = mean / rates.corrections[0] / size
    return weights - rates.rate * (step + decay * weights), [mean, square]


RULES = {
    "momentum": Rule(("Momentum",), _momentum),
    "nesterov": Rule(("Momentum",), _nesterov),
    "adamw": Rule(("Adam", "Adam_1"), _adamw),
    "lars": Rule(("Momentum",), _momentum),
}
assert tuple(RULES) == OPTIMIZERS


class Reach(NamedTuple):
    """What an update is of: each variable's share of the rate, and the ranks that hold slices."""

    rate_factor: Optional[Callable[[tf.Variable], float]] = None  # of its rate; None: 1 for all
    total: Total = tf.identity  # the sum over ranks, for the length of a sliced variable


UNIFORM = Reach()


def apply_gradients(
    pairs: Sequence[Tuple[Any, tf.Variable]],
    learning_rate: Any,
    kind: str = "momentum",
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    reach: Reach = UNIFORM,
) -> tf.Operation:
    """One op that updates every variable of [(gradient, variable)]; a gradient of None is omitted.

    momentum: m <- momentum * m + g + weight_decay * w; w <- w - learning_rate * m, as PyTorch's
    SGD; nesterov: w <- w - learning_rate * (momentum * m + g + weight_decay * w). adamw: its
    decay is w <- w - learning_rate * weight_decay * w, apart from the gradient. lars: momentum at
    TRUST * |w| / (|g| + weight_decay * |w|) of the rate, for the variables that decay.
    Only the variables in runtime.variables.decayed_variables() decay. State is named
    <variable>/Momentum, as in the original's checkpoints (AdamW's: Adam, Adam_1, Adam_steps).

    IndexedSlices must not name a row twice: its rows are read, decayed and written in blocks.
    The rows that it does not name are not changed, nor is their state."""
    pairs = [(gradient, variable) for gradient, variable in pairs if gradient is not None]
    make_slots([variable for _, variable in pairs], kind)
    decays = {id(variable) for variable in decayed_variables()}
    updates = []
    for gradient, variable in pairs:
        decay = weight_decay if id(variable) in decays else 0.0
        rate = _rate_of(tf.cast(learning_rate, tf.float32), gradient, variable, kind, decay, reach)
        rates = Rates(rate, momentum, _corrections(variable) if kind == "adamw" else None)
        update = _update_rows if isinstance(gradient, tf.IndexedSlices) else _update_all
        updates.append(update(variable, gradient, kind, rates, decay))
    return tf.group(*updates)


def _rate_of(rate, gradient, variable, kind, decay, reach):
    """A variable's own learning rate."""
    if reach.rate_factor is not None:
        rate = rate * reach.rate_factor(variable)
    if kind == "lars" and decay:
        rate = rate * _trust(variable, gradient, decay, reach.total)
    return rate


def _corrections(variable):
    """AdamW's bias corrections at this variable's next step."""
    return current().bias_corrections(tf.assign_add(_steps(variable), 1), (BETA1, BETA2))


def make_slots(variables: Sequence[tf.Variable], kind: str = "momentum") -> List[tf.Variable]:
    """Makes the state that apply_gradients will use. Where that is called in a branch of tf.cond,
    its state must be made before, outside."""
    if kind not in RULES:
        raise ValueError(f"--optimizer {kind} is not known; choose one of {', '.join(OPTIMIZERS)}.")
    slots = [slot(variable, name) for variable in variables for name in RULES[kind].slots]
    return slots + [_steps(variable) for variable in variables if kind == "adamw"]


def slot(variable: tf.Variable, name: str = "Momentum") -> tf.Variable:
    """The variable of zeros next to `variable`, named <variable>/<name> wherever it is made."""
    start, shape = current().zeros_slot(variable.shape)
    return sliced_like(_rooted(f"{variable.op.name}/{name}", start, shape=shape), variable)


def decay_loss(
    variables: Sequence[tf.Variable], weight_decay: float, total: Total = tf.identity
) -> tf.Tensor:
    """weight_decay * sum(w^2) / 2 over variables: what the decay adds to the loss, for logs.
    total: the sum over ranks, for the variables of which each has a slice.
    Of a variable that is updated by rows a plain read would be a copy; it is read in blocks."""
    squares = [total(_half_square(v)) if is_sliced(v) else _half_square(v) for v in variables]
    return weight_decay * tf.add_n(squares or [tf.zeros([])])


def _half_square(variable):
    count = variable.shape.as_list()[0] if variable.shape.ndims else 0
    if count <= current().rows_per_block(count, SUM_BLOCK):
        return tf.nn.l2_loss(variable.read_value())

    def body(start, stop, _, total):
        return (total + tf.nn.l2_loss(tf.gather(variable, tf.range(start, stop))),)

    return in_blocks(body, count, (tf.zeros([]),), block=SUM_BLOCK)[0]


def _update_all(variable, gradient, kind, rates, decay):
    if kind == "adamw":
        slots = [slot(variable, name) for name in RULES[kind].slots]
        weights, states = _adamw(variable.value(), gradient, slots, rates, decay)
        with tf.control_dependencies([weights] + states):
            pairs = zip([variable] + slots, [weights] + states)
            return tf.group(*[tf.assign(target, value) for target, value in pairs])
    arguments = dict(lr=rates.rate, momentum=rates.momentum, use_nesterov=kind == "nesterov")
    return current().apply_momentum(variable, slot(variable), gradient, decay, **arguments)


def _update_rows(variable, gradient, kind, rates, decay):
    """By gather and scatter: ResourceSparseApplyMomentum does it in one thread, and on no GPU."""
    slots, rows_R = [slot(variable, name) for name in RULES[kind].slots], gradient.indices

    def body(start, stop, _):
        rows_B = rows_R[start:stop]
        weights_BD = tf.gather(variable, rows_B)
        gradient_BD = _gradient_rows(gradient, start, stop, weights_BD)
        states = [tf.gather(state, rows_B) for state in slots]
        weights_BD, states = RULES[kind].update(weights_BD, gradient_BD, states, rates, decay)
        written = zip([variable] + slots, [weights_BD] + states)
        return [current().write_rows(target, rows_B, value) for target, value in written]

    count = rows_R.shape.as_list()[0]
    return for_blocks(body, count, current().rows_per_block(count))


def _gradient_rows(gradient, start, stop, weights_BD):
    """The rows [start, stop) of an IndexedSlices; a RowGradient makes them where they are used."""
    if isinstance(gradient, RowGradient):
        return gradient.block(start, weights_BD)
    return gradient.values[start:stop]


def _trust(variable, gradient, decay, total):
    """The multiplier of the rate that LARS gives to a variable, or to its rows that are read."""
    if not isinstance(gradient, tf.IndexedSlices):
        weight, slope = tf.nn.l2_loss(variable), tf.nn.l2_loss(gradient)
    else:

        def body(start, stop, _, weight, slope):
            weights_BD = tf.gather(variable, gradient.indices[start:stop])
            gradient_BD = _gradient_rows(gradient, start, stop, weights_BD)
            return weight + tf.nn.l2_loss(weights_BD), slope + tf.nn.l2_loss(gradient_BD)

        count = gradient.indices.shape.as_list()[0]
        weight, slope = in_blocks(body, count, (tf.zeros([]), tf.zeros([])))
    if is_sliced(variable):
        weight, slope = total(weight), total(slope)
    weight, slope = tf.sqrt(2.0 * weight), tf.sqrt(2.0 * slope)
    ratio = TRUST * weight / (slope + decay * weight + EPSILON)
    return tf.where(tf.logical_and(weight > 0.0, slope > 0.0), ratio, tf.ones_like(ratio))


def _steps(variable):
    """The number of AdamW's updates of `variable`, which may have been frozen for some steps."""
    return _rooted(f"{variable.op.name}/Adam_steps", lambda: tf.zeros([], tf.int64), tf.int64)


def _rooted(name, initializer, dtype=tf.float32, shape=None):
    """The variable of that whole name, in whatever scope this is called."""
    root = tf.VariableScope(reuse=tf.AUTO_REUSE, use_resource=current().uses_resource_variables)
    with tf.variable_scope(root, auxiliary_name_scope=False), tf.name_scope(None):
        return tf.get_variable(name, shape, dtype, initializer=initializer, trainable=False)
