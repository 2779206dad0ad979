"""The layers that every net here is made of: convolution, norms, PReLU, dense, squeeze-excitation.

Letters: N images, H W pixels, C channels, F features, D embedding. A layer makes its own weights,
under the names of the original's checkpoints, and marks those that weight decay includes.
"""

import math
from typing import Any, Callable, List, NamedTuple, Optional, Tuple

import numpy as np

from nets.lineages import Lineage, NetSpec
from runtime.device import current
from runtime.tf1 import TF2, tf
from runtime.variables import weight

BN_MOMENTUM = 0.9  # of the moving averages, in every lineage
GROUPS = 32  # of group norm
SE_REDUCTION = 16  # channels over hidden units of squeeze-excitation
RENORM_RMAX, RENORM_RMIN, RENORM_DMAX = 3.0, 0.3333, 5.0


Unit = Callable[[tf.Tensor], tf.Tensor]  # float [N, H, W, C] -> the same of other sizes


class NetOptions(NamedTuple):
    """What a training chooses of a net; the defaults are those of inference."""

    dropout_rate: Optional[float] = None  # None: the lineage's own
    dropout_seed: Optional[tf.Tensor] = None  # int32 [2]; the same seed drops the same values
    compute_dtype: tf.DType = tf.float32  # of convolutions; weights and statistics stay float32
    mean_over_ranks: Optional[Callable] = None  # float32 [2, C] -> its mean; None: this rank alone
    rank_count: int = 1  # over how many ranks the mean is
    wrap_unit: Optional[Callable[[Unit], Unit]] = None  # as for activation recomputation


INFERENCE = NetOptions()


class LayerContext(NamedTuple):
    """What every layer of a net in one graph reads."""

    spec: NetSpec
    training: bool
    options: NetOptions = INFERENCE

    @property
    def lineage(self) -> Lineage:
        return self.spec.row

    def decays(self, kind: str) -> bool:
        """Whether the lineage's weight decay includes this kind of weight."""
        return kind in self.lineage.decays

    def wrap(self, unit: Unit) -> Unit:
        """A residual unit as `wrap_unit` changes it."""
        return self.options.wrap_unit(unit) if self.options.wrap_unit else unit


class Kernel(NamedTuple):
    """The geometry of a convolution."""

    size: int  # height and width
    stride: int = 1
    groups: int = 1  # of channels; as many as there are channels: depthwise
    padding: Optional[int] = None  # on each side; None: half the size, rounded down


def conv(
    x_NHWC: tf.Tensor,
    filters: int,
    kernel: Kernel,
    context: LayerContext,
    name: str,
    bias: bool = False,
) -> tf.Tensor:
    """Convolution with symmetric padding, as MXNet and PyTorch pad.
    [N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters] at the default padding."""
    channels = x_NHWC.shape.as_list()[-1]
    size, stride, groups, padding = kernel
    depthwise = groups == channels == filters
    shape = [size, size] + ([channels, 1] if depthwise else [channels // groups, filters])
    area = size * size
    start = initializer(context.lineage.conv_init, area * channels // groups, area * filters)
    with tf.variable_scope(name):
        weights = weight("W_conv2d", shape, start, decay=context.decays("conv"))
        weights = tf.cast(weights, context.options.compute_dtype)
        padding = (size - 1) // 2 if padding is None else padding
        y = convolve(
            tf.cast(x_NHWC, context.options.compute_dtype),
            weights,
            stride,
            padding,
            groups,
            context.training,
        )
        if bias:
            offset = weight("b_conv2d", [filters], tf.zeros_initializer(), context.decays("bias"))
            y = tf.nn.bias_add(y, tf.cast(offset, y.dtype))
        return y


def convolve(
    x_NHWC: tf.Tensor,
    kernel: tf.Tensor,
    stride: int,
    pad: int,
    groups: int = 1,
    training: bool = False,
) -> tf.Tensor:
    """The one place that calls TensorFlow's convolutions and pads. kernel: [h, w, C/groups, F],
    or [h, w, C, 1] where every channel is its own group. training: whether it has a gradient."""
    size = kernel.shape.as_list()[0]
    if size == 1 and stride > 1:  # the same numbers, and needed: the filter gradient of a strided
        # 1 x 1 in TensorFlow 2.21's oneDNN writes past its buffer at channels not in sixteens
        x_NHWC, stride = subsample(x_NHWC, stride), 1
    strides = [1, stride, stride, 1]
    if groups == 1 and stride == 1 and 2 * pad == size - 1:
        if training and current().same_conv_is_slow():
            return _same(x_NHWC, kernel)
        return tf.nn.conv2d(x_NHWC, kernel, strides, padding="SAME")
    if pad:  # "SAME" at stride 2 pads one side only, and explicit padding has slow CPU gradients
        x_NHWC = tf.pad(x_NHWC, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    if groups > 1:
        return _grouped(x_NHWC, kernel, strides, groups)
    return tf.nn.conv2d(x_NHWC, kernel, strides, padding="VALID")


@tf.custom_gradient
def _same(x_NHWC: tf.Tensor, kernel: tf.Tensor) -> Any:
    """A "SAME" convolution at stride 1 whose input's gradient is a convolution with the turned
    kernel: on a CPU TensorFlow 1.15's own kernel for that takes 1.2 to 2.6 times as long."""
    strides = [1, 1, 1, 1]

    def gradient(dy_NHWF):
        turned = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
        shape = tf.shape(kernel)
        return (
            tf.nn.conv2d(dy_NHWF, turned, strides, padding="SAME"),
            tf.nn.conv2d_backprop_filter(x_NHWC, shape, dy_NHWF, strides, padding="SAME"),
        )

    return tf.nn.conv2d(x_NHWC, kernel, strides, padding="SAME"), gradient


def subsample(x_NHWC: tf.Tensor, stride: int) -> tf.Tensor:
    """Every stride-th row and column, as a 1x1 max-pool: several times as fast as a strided slice
    and its gradient, on both TensorFlows' CPUs."""
    if stride == 1:
        return x_NHWC
    return tf.nn.max_pool(x_NHWC, [1, 1, 1, 1], [1, stride, stride, 1], padding="VALID")


def _grouped(x_NHWC: tf.Tensor, kernel: tf.Tensor, strides: List[int], groups: int) -> tf.Tensor:
    """Grouped convolution by depthwise ones: TensorFlow's CPU has no gradient for groups."""
    height, width, inputs, filters = kernel.shape.as_list()
    if inputs == groups and filters == 1:
        return tf.nn.depthwise_conv2d(x_NHWC, kernel, strides, padding="VALID")
    channels, outputs = inputs * groups, filters // groups
    split = tf.reshape(kernel, [height, width, inputs, groups, outputs])
    split = tf.transpose(split, [0, 1, 3, 2, 4])
    split = tf.reshape(split, [height, width, channels, outputs])
    y = tf.nn.depthwise_conv2d(x_NHWC, split, strides, padding="VALID")
    shape, known = tf.shape(y), y.shape.as_list()
    y = tf.reshape(y, tf.stack([shape[0], shape[1], shape[2], groups, inputs, outputs]))
    y = tf.reshape(tf.reduce_sum(y, 4), tf.stack([shape[0], shape[1], shape[2], filters]))
    y.set_shape(known[:3] + [filters])
    return y


def norm(
    x: tf.Tensor,
    context: LayerContext,
    name: str,
    kind: Optional[str] = None,
    gamma: str = "trained",
) -> tf.Tensor:
    """The lineage's normalisation over all but the last axis; [N, H, W, C] or [N, C], same out.
    gamma: trained, frozen (as initialised), one (frozen at 1), none (no gamma and no beta)."""
    kind = context.lineage.norm if kind is None else kind
    with tf.variable_scope(name):
        if len(x.shape) == 2:
            return tf.squeeze(_NORMS[kind](x[:, None, None, :], context, gamma), [1, 2])
        return _NORMS[kind](x, context, gamma)


def _batch_norm(x_NHWC: tf.Tensor, context: LayerContext, gamma: str) -> tf.Tensor:
    """Batch norm with this rank's statistics, or those of all ranks where a rank's are few."""
    scale, offset = _affine(x_NHWC, context, gamma)
    mean, variance = _moving(x_NHWC)
    if not context.training:
        return _fused(x_NHWC, scale, offset, context.lineage.eps, (mean, variance))[0]
    if context.options.mean_over_ranks is None:
        y, batch_mean, batch_variance = _fused(x_NHWC, scale, offset, context.lineage.eps)
        handed_out = True  # the fused kernel returns n/(n-1) times the variance that it used
    else:
        y, batch_mean, batch_variance = _synchronised(x_NHWC, scale, offset, context)
        handed_out = False
    if handed_out != context.lineage.unbiased:
        count = _count(x_NHWC) * context.options.rank_count
        ratio = count / tf.maximum(count - 1.0, 1.0)
        batch_variance *= ratio if context.lineage.unbiased else 1.0 / ratio
    _follow(mean, batch_mean)
    _follow(variance, batch_variance)
    return y


def _fused(
    x_NHWC: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    eps: float,
    moments: Optional[Tuple[tf.Tensor, tf.Tensor]] = None,
) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """TensorFlow's fused kernel -> (y, mean, variance), without its Python wrapper's floor of eps.
    moments: mean and variance to normalise by; None: those of the batch. Half precision is cast to
    float32 on TensorFlow 1, the only type of its CPU kernel."""
    dtype = x_NHWC.dtype
    mean, variance = moments or (tf.zeros([0]), tf.zeros([0]))
    y, batch_mean, batch_variance = tf.raw_ops.FusedBatchNormV3(
        x=x_NHWC if TF2 else tf.cast(x_NHWC, tf.float32),
        scale=scale,
        offset=offset,
        mean=mean,
        variance=variance,
        epsilon=eps,
        is_training=moments is None,
    )[:3]
    return tf.cast(y, dtype), batch_mean, batch_variance


def _synchronised(x_NHWC, scale, offset, context):
    """Batch norm whose mean and square mean come from all ranks; each holds as many images. The
    gradient passes through mean_over_ranks, which must have one."""
    x = tf.cast(x_NHWC, tf.float32)
    moments = tf.stack([tf.reduce_mean(x, [0, 1, 2]), tf.reduce_mean(x * x, [0, 1, 2])])
    moments = context.options.mean_over_ranks(moments)
    mean, variance = moments[0], tf.maximum(moments[1] - moments[0] * moments[0], 0.0)
    y = tf.nn.batch_normalization(x, mean, variance, offset, scale, context.lineage.eps)
    return tf.cast(y, x_NHWC.dtype), mean, variance


def _renorm(x_NHWC: tf.Tensor, context: LayerContext, gamma: str) -> tf.Tensor:
    """Batch renormalisation, arXiv:1702.03275, as tf.layers did it: the running moments that bound
    the correction are debiased by their own weight."""
    scale, offset = _affine(x_NHWC, context, gamma)
    mean, variance = _moving(x_NHWC)
    eps = context.lineage.eps
    if not context.training:
        return _fused(x_NHWC, scale, offset, eps, (mean, variance))[0]
    x = tf.cast(x_NHWC, tf.float32)
    batch_mean, batch_variance = tf.nn.moments(x, [0, 1, 2])
    batch_deviation = tf.sqrt(batch_variance + eps)
    mixed_mean, new_mean = _debiased("renorm_mean", batch_mean)
    mixed_deviation, new_deviation = _debiased("renorm_stddev", batch_deviation)
    r = tf.clip_by_value(batch_deviation / mixed_deviation, RENORM_RMIN, RENORM_RMAX)
    d = tf.clip_by_value((batch_mean - mixed_mean) / mixed_deviation, -RENORM_DMAX, RENORM_DMAX)
    r, d = tf.stop_gradient(r), tf.stop_gradient(d)
    normal = (x - batch_mean) / batch_deviation * r + d
    _follow(mean, new_mean)
    _follow(variance, new_deviation * new_deviation - eps)
    return tf.cast(normal * scale + offset, x_NHWC.dtype)


def _debiased(name, value):
    """A running mean that starts at nothing, as (what it was, the missing weight filled with this
    step's value; what it becomes, divided by its weight). Both [C]."""
    zero, shape = tf.zeros_initializer(), value.shape.as_list()
    value = tf.stop_gradient(value)
    running = weight(name, shape, zero, trainable=False)
    share = weight(f"{name}_weight", [], zero, trainable=False)
    before, before_share = tf.identity(running), tf.identity(share)  # read once, then assigned
    after = before * BN_MOMENTUM + (1.0 - BN_MOMENTUM) * value
    after_share = before_share * BN_MOMENTUM + (1.0 - BN_MOMENTUM)
    for variable, target in ((running, after), (share, after_share)):
        tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, tf.assign(variable, target))
    return before + (1.0 - before_share) * value, after / after_share


def _group_norm(x_NHWC: tf.Tensor, context: LayerContext, gamma: str) -> tf.Tensor:
    """Group norm over 32 groups of channels; its weights have the original's shape [1, C, 1, 1]."""
    channels = x_NHWC.shape.as_list()[-1]
    groups = math.gcd(GROUPS, channels)
    shape = [1, channels, 1, 1]
    scale = weight("scale", shape, tf.ones_initializer(), decay=context.decays("gn_scale"))
    offset = weight("offset", shape, tf.zeros_initializer(), decay=context.decays("beta"))
    x, size = tf.cast(x_NHWC, tf.float32), tf.shape(x_NHWC)
    grouped = tf.reshape(x, tf.stack([size[0], size[1], size[2], groups, channels // groups]))
    mean, variance = tf.nn.moments(grouped, [1, 2, 4], keep_dims=True)
    normal = (grouped - mean) * tf.rsqrt(variance + context.lineage.eps)
    y = tf.reshape(normal, size) * tf.reshape(scale, [channels]) + tf.reshape(offset, [channels])
    y.set_shape(x_NHWC.shape)
    return tf.cast(y, x_NHWC.dtype)


_NORMS = {"batch": _batch_norm, "group": _group_norm, "renorm": _renorm}


def _affine(x: tf.Tensor, context: LayerContext, gamma: str) -> Tuple[tf.Tensor, tf.Tensor]:
    """gamma and beta, both float32 [C]."""
    shape = x.shape.as_list()[-1:]
    if gamma == "none":
        return tf.ones(shape), tf.zeros(shape)
    near_one = context.lineage.gamma_init == "near_one" and gamma != "one"
    start = tf.random_normal_initializer(1.0, 0.002) if near_one else tf.ones_initializer()
    trained = gamma == "trained"
    beta = weight("beta", shape, tf.zeros_initializer(), decay=context.decays("beta"))
    scale = weight(
        "gamma", shape, start, decay=trained and context.decays("gamma"), trainable=trained
    )
    return scale, beta


def _moving(x: tf.Tensor) -> Tuple[tf.Variable, tf.Variable]:
    shape = x.shape.as_list()[-1:]
    mean = weight("moving_mean", shape, tf.zeros_initializer(), trainable=False)
    return mean, weight("moving_variance", shape, tf.ones_initializer(), trainable=False)


def _count(x_NHWC):
    """How many values each channel's statistics are made of; a float where the shape is known."""
    sizes = x_NHWC.shape.as_list()[:3]
    if None not in sizes:
        return float(np.prod(sizes))
    return tf.cast(tf.reduce_prod(tf.shape(x_NHWC)[:3]), tf.float32)


def _follow(moving, value):
    """moving <- 0.9 moving + 0.1 value, once a step: the training step runs UPDATE_OPS."""
    step = (1.0 - BN_MOMENTUM) * (tf.stop_gradient(value) - moving)
    tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, tf.assign_add(moving, step))


def prelu(x: tf.Tensor, context: LayerContext, name: str) -> tf.Tensor:
    """max(x, 0) + alpha min(x, 0), one alpha a channel. [N, H, W, C] or [N, C], same out."""
    start = tf.constant_initializer(context.lineage.prelu_init)
    with tf.variable_scope(name):
        alphas = weight("alphas", x.shape.as_list()[-1:], start, decay=context.decays("alphas"))
        alphas = tf.cast(alphas, x.dtype)
        if context.training:
            return _prelu(x, alphas)
        return tf.nn.relu(x) - alphas * tf.nn.relu(-x)  # the form that exporters know as PReLU


@tf.custom_gradient
def _prelu(x: tf.Tensor, alphas: tf.Tensor) -> Any:
    """PReLU with a third less memory traffic than the gradient that TensorFlow derives."""
    below = tf.minimum(x, tf.zeros([], x.dtype))
    slopes = alphas - tf.ones([], x.dtype)

    def gradient(dy):
        dy_below = dy - tf.raw_ops.ReluGrad(gradients=dy, features=x)
        return dy + slopes * dy_below, tf.reduce_sum(below * dy, list(range(len(x.shape) - 1)))

    return x + slopes * below, gradient


def dense(
    x_NF: tf.Tensor,
    outputs: int,
    context: LayerContext,
    name: str,
    bias: bool = True,
    kind: str = "dense",
) -> tf.Tensor:
    """Fully connected, in float32. [N, F] -> [N, outputs]. kind: its weights' among those that the
    lineage says decay."""
    features = x_NF.shape.as_list()[-1]
    start = initializer(context.lineage.dense_init, features, outputs)
    with tf.variable_scope(name):
        y = tf.matmul(x_NF, weight("W", [features, outputs], start, decay=context.decays(kind)))
        if bias:
            first = start if context.lineage.dense_init == "torch" else tf.zeros_initializer()
            y += weight("b", [outputs], first, decay=context.decays("bias"))
        return y


def squeeze_excite(x_NHWC: tf.Tensor, context: LayerContext) -> tf.Tensor:
    """Scales each channel by a gate computed from all channels' means. [N, H, W, C], same out."""
    channels, lineage = x_NHWC.shape.as_list()[-1], context.lineage
    mean_NC = tf.reduce_mean(tf.cast(x_NHWC, tf.float32), [1, 2])
    hidden = max(1, channels // SE_REDUCTION)
    y = dense(mean_NC, hidden, context, "excitation_1", lineage.se_bias, "se")
    if lineage.se_activation == "prelu":
        y = prelu(y, context, "excitation_prelu")
    else:
        y = tf.nn.relu(y)
    gate = tf.sigmoid(dense(y, channels, context, "excitation_2", lineage.se_bias, "se"))
    return x_NHWC * tf.cast(gate, x_NHWC.dtype)[:, None, None, :]


def dropout(x: tf.Tensor, context: LayerContext) -> tf.Tensor:
    """Drops values at the options' rate when training, by their seed where there is one, so that a
    resumed run repeats it."""
    seed, rate = context.options.dropout_seed, context.options.dropout_rate
    rate = context.lineage.dropout if rate is None else rate
    if not context.training or not rate:
        return x
    return current().dropout(x, rate, seed)


def flatten(x_NHWC: tf.Tensor) -> tf.Tensor:
    """[N, H, W, C] -> [N, H W C], channels fastest."""
    return tf.reshape(x_NHWC, [-1, int(np.prod(x_NHWC.shape.as_list()[1:]))])


def initializer(kind: str, fan_in: int, fan_out: int) -> Any:
    """How a lineage starts its weights, from the inputs and outputs that a weight joins."""
    if kind == "xavier":
        return tf.truncated_normal_initializer(stddev=math.sqrt(2.6 / (fan_in + fan_out)))
    if kind == "normal":  # arcface_torch
        return tf.random_normal_initializer(stddev=0.1)
    if kind == "fan_out":  # Kaiming's, as MXNet and CVLface choose it
        return tf.random_normal_initializer(stddev=math.sqrt(2.0 / fan_out))
    if kind.startswith("truncated_"):  # TensorLayer's defaults
        return tf.truncated_normal_initializer(stddev=float(kind[len("truncated_") :]))
    if kind != "torch":
        raise ValueError(f"{kind} is no initializer of a lineage; see nets/lineages.py.")
    bound = 1.0 / math.sqrt(fan_in)
    return tf.random_uniform_initializer(-bound, bound)
