"""Loss -> gradients of backbone and head: scaled for half precision, clipped, checked.

N images, D embedding dimension. The head is float32 always, so that only the backbone's gradients
are scaled: an overflow cannot begin in the softmax.
"""

from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

from runtime.tf1 import tf
from runtime.variables import OPTIONAL, plain_name

FIRST_SCALE = 2.0**15  # of fp16's gradients, as in PyTorch's and NVIDIA's loss scalers
GROWTH_STEPS = 2000  # steps without an overflow before it is doubled, as in PyTorch's GradScaler
HIGHEST_SCALE = 2.0**24  # above it float32 itself would overflow in the sum of squares

Pairs = List[Tuple[Any, tf.Variable]]  # (gradient: Tensor or IndexedSlices, variable)


class Gradients(NamedTuple):
    """Gradients that are ready for the optimizer."""

    pairs: Pairs  # of the backbone, then of the head
    finite: tf.Tensor  # bool scalar
    norm: tf.Tensor  # float32 scalar: of those that clipping measures
    squares: Pairs  # (half the sum of squares, variable) of the backbone's


def compute_gradients(
    loss: tf.Tensor,
    embeddings_ND: tf.Tensor,
    variables: Sequence[tf.Variable],
    loss_scale: Optional[tf.Tensor] = None,
) -> Tuple[Pairs, Pairs]:
    """(gradients of the backbone, gradients of the head). loss_scale: float32 scalar, by which
    gradients are larger on their way through the backbone; the result is divided by it."""
    sources = [embeddings_ND] + list(variables)  # one call, so that the head is differentiated once
    slope_ND, *slopes = tf.gradients(loss, sources, stop_gradients=[embeddings_ND])
    head = [(slope, variable) for slope, variable in zip(slopes, variables) if slope is not None]
    in_head = {id(variable) for _, variable in head}
    behind = [variable for variable in variables if id(variable) not in in_head]
    scaled_ND = slope_ND if loss_scale is None else slope_ND * loss_scale
    slopes = tf.gradients(embeddings_ND, behind, grad_ys=scaled_ND)
    backbone = [(slope, variable) for slope, variable in zip(slopes, behind) if slope is not None]
    if loss_scale is not None:
        backbone = [(slope / loss_scale, variable) for slope, variable in backbone]
    return backbone, head


def clip_gradients(
    backbone: Pairs,
    head: Pairs,
    clip_norm: Optional[float] = None,
    clip: str = "all",
    total: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> Gradients:
    """Gradients whose norm is at most clip_norm: of `all`, or of the `backbone` alone. total: the
    sum over ranks, each of which has a slice of the head."""
    squares = [tf.nn.l2_loss(gradient) for gradient, _ in backbone]
    named = [(square, variable) for square, (_, variable) in zip(squares, backbone)]
    finite = tf.is_finite(tf.add_n(squares))
    if clip_norm and clip == "all":
        head = [(_materialized(gradient), variable) for gradient, variable in head]
        squares += [total(tf.nn.l2_loss(_values(gradient))) for gradient, _ in head]
    norm = tf.sqrt(2.0 * tf.add_n(squares))
    if clip_norm:
        factor = clip_norm / tf.maximum(norm, clip_norm)  # 1 for gradients below the bound
        backbone = [(gradient * factor, variable) for gradient, variable in backbone]
        if clip == "all":
            head = [(_times(gradient, factor), variable) for gradient, variable in head]
    return Gradients(backbone + head, finite, norm, named)


def nonfinite_names(loss: tf.Tensor, embeddings_ND: tf.Tensor, gradients: Gradients) -> tf.Tensor:
    """string scalar: names of the tensors of a step that are not finite, one a line; else empty."""
    names = ["loss", "embeddings"]
    names += [f"gradient of {plain_name(v.op.name)}" for _, v in gradients.squares]
    finite = tf.is_finite(tf.stack([loss] + [square for square, _ in gradients.squares]))
    embedded = tf.reduce_all(tf.is_finite(embeddings_ND))
    finite = tf.concat([finite[:1], embedded[None], finite[1:]], axis=0)
    found = tf.boolean_mask(tf.constant(names), tf.logical_not(finite))
    return tf.strings.reduce_join(found, axis=0, separator="\n")


def _materialized(gradient: Any) -> Any:
    """A RowGradient as plain IndexedSlices, which can be scaled."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values, gradient.indices, gradient.dense_shape)
    return gradient


def _values(gradient: Any) -> tf.Tensor:
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def _times(gradient: Any, factor: tf.Tensor) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values * factor, gradient.indices, gradient.dense_shape)
    return gradient * factor


class LossScale:
    """The scale of fp16's gradients: halved after an overflow, whose step is skipped and counted;
    doubled after GROWTH_STEPS finite ones. Its variables are part of a checkpoint."""

    def __init__(self) -> None:
        self.value = _state("loss_scale/value", tf.float32, FIRST_SCALE)
        self.good = _state("loss_scale/good_steps", tf.int64, 0)
        self.skipped = _state("loss_scale/skipped_steps", tf.int64, 0)

    def update(self, finite: tf.Tensor) -> tf.Operation:
        """The op to run after a step. finite: bool scalar, whether its gradients were."""
        good = tf.where(finite, self.good + 1, tf.zeros_like(self.good))
        grown = tf.logical_and(finite, good >= GROWTH_STEPS)
        factor = tf.where(finite, tf.where(grown, 2.0, 1.0), 0.5)
        values = [tf.clip_by_value(self.value * factor, 1.0, HIGHEST_SCALE)]
        values += [tf.where(grown, tf.zeros_like(good), good)]
        values += [self.skipped + tf.cast(tf.logical_not(finite), tf.int64)]
        with tf.control_dependencies(values):
            states = (self.value, self.good, self.skipped)
            return tf.group(*[tf.assign(state, value) for state, value in zip(states, values)])


def _state(name: str, dtype: Any, start: float) -> tf.Variable:
    first = tf.constant_initializer(start)
    variable = tf.get_variable(name, [], dtype, initializer=first, trainable=False)
    tf.add_to_collection(OPTIONAL, variable)  # a checkpoint of another device or precision has none
    return variable


def recomputed(unit: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    """A unit whose activations are not kept, but recomputed for its gradient (--recompute). The
    updates of moving statistics that the recomputation adds are dropped: one per step is enough.
    tf.recompute_grad would do, but in a graph TensorFlow 2.21's keeps every activation."""
    scope = tf.get_variable_scope()  # a gradient is built in the outermost one

    def make(x_NHWC):
        with tf.variable_scope(scope, reuse=tf.AUTO_REUSE, auxiliary_name_scope=False):
            return unit(x_NHWC)

    @tf.custom_gradient
    def body(x_NHWC):
        def gradient(slope_NHWC, variables=()):
            updates = tf.get_collection_ref(tf.GraphKeys.UPDATE_OPS)
            before = len(updates)
            with tf.control_dependencies([slope_NHWC]):  # else it runs right after the forward pass
                again_NHWC = tf.identity(x_NHWC)
            y_NHWC = make(again_NHWC)
            del updates[before:]
            slopes = tf.gradients(y_NHWC, [again_NHWC] + list(variables), slope_NHWC)
            return slopes[0], slopes[1:]

        return make(x_NHWC), gradient

    return body
