"""Loss -> gradients of backbone and head: scaled for half precision, clipped, checked for NaN.

N images, D embedding. The head is float32 always, so that only what lies behind the embeddings is
scaled: an overflow cannot begin in the softmax.
"""

import collections

from runtime.tf1 import tf

FIRST_SCALE = 2.0**15  # of fp16's gradients; halved at each overflow
GROWTH_STEPS = 2000  # steps without one before it is doubled

# pairs: [(gradient, variable)]; finite: bool scalar; norm: of all gradients, before clipping.
Gradients = collections.namedtuple("Gradients", "pairs finite norm")


def make_gradients(loss, embeddings_ND, variables, loss_scale=None, clip_norm=None, clip="all"):
    """Gradients of `loss` at `variables`; those without one are left out.
    loss_scale: float32 scalar, by which gradients are larger on their way through the backbone.
    clip: whether clip_norm bounds the norm of `all` gradients, or of the `backbone`'s alone."""
    slope_ND = tf.gradients(loss, embeddings_ND)[0]
    up, down = (loss_scale, 1.0 / loss_scale) if loss_scale is not None else (None, None)
    passed_ND = slope_ND if up is None else slope_ND * up
    backbone = tf.gradients(embeddings_ND, variables, grad_ys=passed_ND)
    backbone = [(g, v) for g, v in zip(backbone, variables) if g is not None]
    if down is not None:
        backbone = [(g * down, v) for g, v in backbone]
    behind = {id(v) for _, v in backbone}
    others = [v for v in variables if id(v) not in behind]
    head = [(g, v) for g, v in zip(tf.gradients(loss, others), others) if g is not None]
    squares = [tf.nn.l2_loss(g) for g, _ in backbone]
    finite = tf.is_finite(tf.add_n(squares))
    if clip == "all" and clip_norm:
        head = [(_materialised(g), v) for g, v in head]
        squares += [tf.nn.l2_loss(_values(g)) for g, _ in head]
    norm = tf.sqrt(2.0 * tf.add_n(squares))
    if clip_norm:
        factor = clip_norm / tf.maximum(norm, clip_norm)
        backbone = [(g * factor, v) for g, v in backbone]
        if clip == "all":
            head = [(_times(g, factor), v) for g, v in head]
    return Gradients(backbone + head, finite, norm)


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
    updates of moving statistics that the second making adds are dropped: one a step is enough."""
    made = []

    def body(x_NHWC):
        updates = tf.get_collection_ref(tf.GraphKeys.UPDATE_OPS)
        before = len(updates)
        y_NHWC = unit(x_NHWC)
        if made:
            del updates[before:]
        made.append(True)
        return y_NHWC

    return tf.recompute_grad(body)
