"""The layers that every net here is made of: convolution, norms, PReLU, dense, squeeze-excitation.

Letters: N images, H W pixels, C channels, F features, D embedding. A layer makes its own weights,
under the names of the original's checkpoints, and says which of them decay.
"""

import dataclasses
import math
from typing import Any, Callable, Optional

import numpy as np

from nets.lineages import Lineage
from runtime.npu import adapter
from runtime.tf1 import TF2, for_npu, tf
from runtime.variables import weight

BN_MOMENTUM = 0.9  # of the moving averages, in every lineage
GROUPS = 32  # of group norm
RENORM_RMAX, RENORM_RMIN, RENORM_DMAX = 3.0, 0.3333, 5.0


@dataclasses.dataclass(frozen=True)
class LayerContext:
    """How a lineage's layers behave in this graph."""

    row: Lineage
    training: bool
    compute_dtype: Any = tf.float32  # of convolutions; weights and statistics stay float32
    mean_over_ranks: Optional[Callable] = None  # float32 [2, C] -> its mean; None: this rank alone
    ranks: int = 1  # over how many the mean goes

    def decays(self, kind):
        return kind in self.row.decays


def conv(x_NHWC, filters, size, stride, rules, name, padding=None, groups=1, bias=False):
    """Convolution with symmetric padding (default: half the size), as MXNet and PyTorch pad.
    [N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters] at the default padding."""
    channels = x_NHWC.shape.as_list()[-1]
    depthwise = groups == channels == filters
    shape = [size, size] + ([channels, 1] if depthwise else [channels // groups, filters])
    area = size * size
    start = initializer(rules.row.conv_init, area * channels // groups, area * filters)
    with tf.variable_scope(name):
        kernel = weight("W_conv2d", shape, start, decay=rules.decays("conv"))
        kernel = tf.cast(kernel, rules.compute_dtype)
        padding = (size - 1) // 2 if padding is None else padding
        y = convolve(
            tf.cast(x_NHWC, rules.compute_dtype), kernel, stride, padding, groups, rules.training
        )
        if bias:
            offset = weight("b_conv2d", [filters], tf.zeros_initializer(), rules.decays("bias"))
            y = tf.nn.bias_add(y, tf.cast(offset, y.dtype))
        return y


def convolve(x_NHWC, kernel, stride, pad, groups=1, training=False):
    """The one place that calls TensorFlow's convolutions and pads. kernel: [h, w, C/groups, F],
    or [h, w, C, 1] where every channel is its own group. training: whether it has a gradient."""
    size = kernel.shape.as_list()[0]
    if size == 1 and stride > 1:  # the same numbers, and needed: the filter gradient of a strided
        # 1 x 1 in TensorFlow 2.21's oneDNN writes past its buffer at channels not in sixteens
        x_NHWC, stride = subsample(x_NHWC, stride), 1
    strides = [1, stride, stride, 1]
    if groups == 1 and stride == 1 and 2 * pad == size - 1:
        if training and not (TF2 or for_npu()):
            return _same(x_NHWC, kernel)
        return tf.nn.conv2d(x_NHWC, kernel, strides, padding="SAME")
    if pad:  # "SAME" at stride 2 pads one side only, and explicit padding has slow CPU gradients
        x_NHWC = tf.pad(x_NHWC, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    if groups > 1:
        return _grouped(x_NHWC, kernel, strides, groups)
    return tf.nn.conv2d(x_NHWC, kernel, strides, padding="VALID")


@tf.custom_gradient
def _same(x_NHWC, kernel):
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


def subsample(x_NHWC, stride):
    """Every stride-th row and column, as a 1x1 max-pool: several times as fast as a strided slice
    and its gradient, on both TensorFlows' CPUs."""
    if stride == 1:
        return x_NHWC
    return tf.nn.max_pool(x_NHWC, [1, 1, 1, 1], [1, stride, stride, 1], padding="VALID")


def _grouped(x_NHWC, kernel, strides, groups):
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


def norm(x, rules, name, kind=None, gamma="trained"):
    """The lineage's normalisation over all but the last axis; [N, H, W, C] or [N, C], same out.
    gamma: trained, frozen (as initialised), one (frozen at 1), none (no gamma and no beta)."""
    kind = rules.row.norm if kind is None else kind
    with tf.variable_scope(name):
        if len(x.shape) == 2:
            return tf.squeeze(_NORMS[kind](x[:, None, None, :], rules, gamma), [1, 2])
        return _NORMS[kind](x, rules, gamma)


def _batch_norm(x_NHWC, rules, gamma):
    """Batch norm with this rank's statistics, or those of all ranks where a rank's are few."""
    scale, offset = _affine(x_NHWC, rules, gamma)
    mean, variance = _moving(x_NHWC)
    if not rules.training:
        return _fused(x_NHWC, scale, offset, mean, variance, rules.row.eps, training=False)[0]
    if rules.mean_over_ranks is None:
        y, batch_mean, batch_variance = _fused(
            x_NHWC, scale, offset, mean, variance, rules.row.eps, training=True
        )
        handed_out = True  # the fused kernel hands out n/(n-1) times the variance that it used
    else:
        y, batch_mean, batch_variance = _synchronised(x_NHWC, scale, offset, rules)
        handed_out = False
    if handed_out != rules.row.unbiased:
        count = _count(x_NHWC) * rules.ranks
        ratio = count / tf.maximum(count - 1.0, 1.0)
        batch_variance *= ratio if rules.row.unbiased else 1.0 / ratio
    _follow(mean, batch_mean)
    _follow(variance, batch_variance)
    return y


def _fused(x_NHWC, scale, offset, mean, variance, eps, training):
    """TensorFlow's fused kernel, without the eps floor of its Python wrapper. Half precision goes
    through float32 on TensorFlow 1, whose CPU kernel knows nothing else."""
    dtype = x_NHWC.dtype
    if training:
        mean, variance = tf.zeros([0]), tf.zeros([0])
    y, batch_mean, batch_variance = tf.raw_ops.FusedBatchNormV3(
        x=x_NHWC if TF2 else tf.cast(x_NHWC, tf.float32),
        scale=scale,
        offset=offset,
        mean=mean,
        variance=variance,
        epsilon=eps,
        is_training=training,
    )[:3]
    return tf.cast(y, dtype), batch_mean, batch_variance


def _synchronised(x_NHWC, scale, offset, rules):
    """Batch norm whose mean and square mean come from all ranks; each holds as many images. The
    gradient passes through mean_over_ranks, which must have one."""
    x = tf.cast(x_NHWC, tf.float32)
    moments = tf.stack([tf.reduce_mean(x, [0, 1, 2]), tf.reduce_mean(x * x, [0, 1, 2])])
    moments = rules.mean_over_ranks(moments)
    mean, variance = moments[0], tf.maximum(moments[1] - moments[0] * moments[0], 0.0)
    y = tf.nn.batch_normalization(x, mean, variance, offset, scale, rules.row.eps)
    return tf.cast(y, x_NHWC.dtype), mean, variance


def _renorm(x_NHWC, rules, gamma):
    """Batch renormalisation, arXiv:1702.03275, as tf.layers did it: the running moments that bound
    the correction are debiased by their own weight."""
    scale, offset = _affine(x_NHWC, rules, gamma)
    mean, variance = _moving(x_NHWC)
    eps = rules.row.eps
    if not rules.training:
        return _fused(x_NHWC, scale, offset, mean, variance, eps, training=False)[0]
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


def _group_norm(x_NHWC, rules, gamma):
    """Group norm over 32 groups of channels; its weights have the original's shape [1, C, 1, 1]."""
    channels = x_NHWC.shape.as_list()[-1]
    groups = math.gcd(GROUPS, channels)
    shape = [1, channels, 1, 1]
    scale = weight("scale", shape, tf.ones_initializer(), decay=rules.decays("gn_scale"))
    offset = weight("offset", shape, tf.zeros_initializer(), decay=rules.decays("beta"))
    x, size = tf.cast(x_NHWC, tf.float32), tf.shape(x_NHWC)
    grouped = tf.reshape(x, tf.stack([size[0], size[1], size[2], groups, channels // groups]))
    mean, variance = tf.nn.moments(grouped, [1, 2, 4], keep_dims=True)
    normal = (grouped - mean) * tf.rsqrt(variance + rules.row.eps)
    y = tf.reshape(normal, size) * tf.reshape(scale, [channels]) + tf.reshape(offset, [channels])
    y.set_shape(x_NHWC.shape)
    return tf.cast(y, x_NHWC.dtype)


_NORMS = {"batch": _batch_norm, "group": _group_norm, "renorm": _renorm}


def _affine(x, rules, gamma):
    """gamma and beta, both float32 [C]."""
    shape = x.shape.as_list()[-1:]
    if gamma == "none":
        return tf.ones(shape), tf.zeros(shape)
    near_one = rules.row.gamma_init == "near_one" and gamma != "one"
    start = tf.random_normal_initializer(1.0, 0.002) if near_one else tf.ones_initializer()
    trained = gamma == "trained"
    beta = weight("beta", shape, tf.zeros_initializer(), decay=rules.decays("beta"))
    scale = weight(
        "gamma", shape, start, decay=trained and rules.decays("gamma"), trainable=trained
    )
    return scale, beta


def _moving(x):
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


def prelu(x, rules, name):
    """max(x, 0) + alpha min(x, 0), one alpha a channel. [N, H, W, C] or [N, C], same out."""
    start = tf.constant_initializer(rules.row.prelu_init)
    with tf.variable_scope(name):
        alphas = weight("alphas", x.shape.as_list()[-1:], start, decay=rules.decays("alphas"))
        alphas = tf.cast(alphas, x.dtype)
        if rules.training:
            return _prelu(x, alphas)
        return tf.nn.relu(x) - alphas * tf.nn.relu(-x)  # the form that exporters know as PReLU


@tf.custom_gradient
def _prelu(x, alphas):
    """PReLU in a third fewer passes over memory than what TensorFlow derives."""
    below = tf.minimum(x, tf.zeros([], x.dtype))
    slopes = alphas - tf.ones([], x.dtype)

    def gradient(dy):
        dy_below = dy - tf.raw_ops.ReluGrad(gradients=dy, features=x)
        return dy + slopes * dy_below, tf.reduce_sum(below * dy, list(range(len(x.shape) - 1)))

    return x + slopes * below, gradient


def dense(x_NF, outputs, rules, name, bias=True, kind="dense"):
    """Fully connected, in float32. [N, F] -> [N, outputs]. kind: its weights' among those that the
    lineage says decay."""
    features = x_NF.shape.as_list()[-1]
    start = initializer(rules.row.dense_init, features, outputs)
    with tf.variable_scope(name):
        y = tf.matmul(x_NF, weight("W", [features, outputs], start, decay=rules.decays(kind)))
        if bias:
            first = start if rules.row.dense_init == "torch" else tf.zeros_initializer()
            y += weight("b", [outputs], first, decay=rules.decays("bias"))
        return y


def squeeze_excite(x_NHWC, rules):
    """Scales each channel by a gate computed from all channels' means. [N, H, W, C], same out."""
    channels, row = x_NHWC.shape.as_list()[-1], rules.row
    x = tf.cast(x_NHWC, tf.float32)
    y = dense(
        tf.reduce_mean(x, [1, 2]), max(1, channels // 16), rules, "excitation_1", row.se_bias, "se"
    )
    if row.se_activation == "prelu":
        y = prelu(y, rules, "excitation_prelu")
    else:
        y = tf.nn.relu(y)
    gate = tf.sigmoid(dense(y, channels, rules, "excitation_2", row.se_bias, "se"))
    return x_NHWC * tf.cast(gate, x_NHWC.dtype)[:, None, None, :]


def dropout(x, share, rules, seed=None):
    """Drops `share` of the values when training. seed: int32 [2]; with it, the same seed drops the
    same values, so that a resumed run repeats them."""
    if not rules.training or not share:
        return x
    if for_npu():
        return adapter.dropout(x, share)
    if seed is None:
        return tf.nn.dropout(x, rate=share)
    kept = tf.random.stateless_uniform(tf.shape(x), seed) >= share
    return tf.where(kept, x / (1.0 - share), tf.zeros_like(x))


def flatten(x_NHWC):
    """[N, H, W, C] -> [N, H W C], channels fastest."""
    return tf.reshape(x_NHWC, [-1, int(np.prod(x_NHWC.shape.as_list()[1:]))])


def initializer(kind, fan_in, fan_out):
    """How a lineage starts its weights, from the inputs and outputs that a weight joins."""
    if kind == "xavier":
        return tf.truncated_normal_initializer(stddev=math.sqrt(2.6 / (fan_in + fan_out)))
    if kind == "normal":  # arcface_torch
        return tf.random_normal_initializer(stddev=0.1)
    if kind == "fan_out":  # Kaiming's, as MXNet and CVLface choose it
        return tf.random_normal_initializer(stddev=math.sqrt(2.0 / fan_out))
    if kind.startswith("truncated_"):  # TensorLayer's defaults
        return tf.truncated_normal_initializer(stddev=float(kind[len("truncated_") :]))
    assert kind == "torch", kind
    bound = 1.0 / math.sqrt(fan_in)
    return tf.random_uniform_initializer(-bound, bound)
