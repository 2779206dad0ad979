"""Loss -> gradients of backbone and head: scaled for half precision, clipped, checked for NaN.

N images, D embedding. The head is float32 always, so that only what lies behind the embeddings is
scaled: an overflow cannot begin in the softmax.
"""

import collections

from runtime.tf1 import tf
from runtime.variables import plain_name

FIRST_SCALE = 2.0**15  # of fp16's gradients; halved at each overflow
GROWTH_STEPS = 2000  # steps without one before it is doubled

# pairs: [(gradient, variable)]; finite: bool scalar; norm: of those that clipping measures;
# squares: [(half the sum of squares, variable)] of the backbone's.
Gradients = collections.namedtuple("Gradients", "pairs finite norm squares")


def compute_gradients(loss, embeddings_ND, variables, loss_scale=None):
    """Gradients of `loss`: [(gradient, variable)] behind the embeddings, and of the rest.
    loss_scale: float32 scalar, by which gradients are larger on their way through the backbone."""
    whole = [embeddings_ND] + list(variables)  # in one call, so that the head goes back once
    slope_ND, *slopes = tf.gradients(loss, whole, stop_gradients=[embeddings_ND])
    head = [(slope, variable) for slope, variable in zip(slopes, variables) if slope is not None]
    in_head = {id(variable) for _, variable in head}
    behind = [variable for variable in variables if id(variable) not in in_head]
    passed_ND = slope_ND if loss_scale is None else slope_ND * loss_scale
    slopes = tf.gradients(embeddings_ND, behind, grad_ys=passed_ND)
    backbone = [(slope, variable) for slope, variable in zip(slopes, behind) if slope is not None]
    if loss_scale is not None:
        backbone = [(slope / loss_scale, variable) for slope, variable in backbone]
    return backbone, head


def clip_gradients(backbone, head, clip_norm=None, clip="all", total=tf.identity):
    """Gradients whose norm is at most clip_norm: of `all`, or of the `backbone` alone. total: the
    sum over ranks, each of which has a slice of the head."""
    squares = [tf.nn.l2_loss(gradient) for gradient, _ in backbone]
    named = [(square, variable) for square, (_, variable) in zip(squares, backbone)]
    finite = tf.is_finite(tf.add_n(squares))
    if clip_norm and clip == "all":
        head = [(_materialised(gradient), variable) for gradient, variable in head]
        squares += [total(tf.nn.l2_loss(_values(gradient))) for gradient, _ in head]
    norm = tf.sqrt(2.0 * tf.add_n(squares))
    if clip_norm:
        factor = clip_norm / tf.maximum(norm, clip_norm)
        backbone = [(gradient * factor, variable) for gradient, variable in backbone]
        if clip == "all":
            head = [(_times(gradient, factor), variable) for gradient, variable in head]
    return Gradients(backbone + head, finite, norm, named)


def nonfinite_names(loss, embeddings_ND, gradients):
    """string scalar: the names of what is not finite in a step, one a line; empty as a rule."""
    names = ["the loss", "the embeddings"]
    names += [f"the gradient of {plain_name(v.op.name)}" for _, v in gradients.squares]
    finite = tf.is_finite(tf.stack([loss] + [square for square, _ in gradients.squares]))
    embedded = tf.reduce_all(tf.is_finite(embeddings_ND))
    finite = tf.concat([finite[:1], embedded[None], finite[1:]], axis=0)
    found = tf.boolean_mask(tf.constant(names), tf.logical_not(finite))
    return tf.strings.reduce_join(found, axis=0, separator="\n")


def _materialised(gradient):
    """Rows as plain IndexedSlices, which can be scaled."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values, gradient.indices, gradient.dense_shape)
    return gradient


def _values(gradient):
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def _times(gradient, factor):
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values * factor, gradient.indices, gradient.dense_shape)
    return gradient * factor


class LossScale:
    """The scale of fp16's gradients: halved by an overflow, whose step is skipped and counted;
    doubled after GROWTH_STEPS good ones. Its variables are saved, so a resumed run goes on."""

    def __init__(self):
        self.value = _state("loss_scale/value", tf.float32, FIRST_SCALE)
        self.good = _state("loss_scale/good_steps", tf.int64, 0)
        self.skipped = _state("loss_scale/skipped_steps", tf.int64, 0)

    def update(self, finite):
        """The op that follows a step whose gradients were finite, or not."""
        good = tf.where(finite, self.good + 1, tf.zeros_like(self.good))
        grown = tf.logical_and(finite, good >= GROWTH_STEPS)
        factor = tf.where(finite, tf.where(grown, 2.0, 1.0), 0.5)
        values = [tf.clip_by_value(self.value * factor, 1.0, 2.0**24)]
        values += [tf.where(grown, tf.zeros_like(good), good)]
        values += [self.skipped + tf.cast(tf.logical_not(finite), tf.int64)]
        with tf.control_dependencies(values):
            states = (self.value, self.good, self.skipped)
            return tf.group(*[tf.assign(state, value) for state, value in zip(states, values)])


def _state(name, dtype, start):
    first = tf.constant_initializer(start)
    return tf.get_variable(name, [], dtype, initializer=first, trainable=False)


def recomputed(unit):
    """A unit whose activations are not kept, but made again for its gradient (--recompute). The
    updates of moving statistics that the second making adds are dropped: one a step is enough.
    tf.recompute_grad would do, but TensorFlow 2.21's in a graph keeps every activation."""
    scope = tf.get_variable_scope()  # a gradient is built in the outermost one

    def make(x_NHWC):
        with tf.variable_scope(scope, reuse=tf.AUTO_REUSE, auxiliary_name_scope=False):
            return unit(x_NHWC)

    @tf.custom_gradient
    def body(x_NHWC):
        def gradient(slope_NHWC, variables=()):
            updates = tf.get_collection_ref(tf.GraphKeys.UPDATE_OPS)
            before = len(updates)
            with tf.control_dependencies([slope_NHWC]):  # not before it is time
                again_NHWC = tf.identity(x_NHWC)
            y_NHWC = make(again_NHWC)
            del updates[before:]
            slopes = tf.gradients(y_NHWC, [again_NHWC] + list(variables), slope_NHWC)
            return slopes[0], slopes[1:]

        return make(x_NHWC), gradient

    return body
