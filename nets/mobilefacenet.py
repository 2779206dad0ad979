"""MobileFaceNet, arXiv:1804.07573, in the forms of arcface_torch and InsightFace_Pytorch.

Letters: N images, H W pixels, C channels, D embedding. Scopes are InsightFace_Pytorch's names.
"""

import functools

from nets.layers import Kernel, LayerContext, conv, dense, flatten, norm, prelu
from runtime.tf1 import tf

HIDDEN = (128, 256, 512)  # of a depthwise block; the same in every form, so wide forms expand by 1
LAST = 512


def mobilefacenet(pixels_NHWC: tf.Tensor, context: LayerContext) -> tf.Tensor:
    """float32 pixels [N, H, W, 3], already scaled -> float32 embeddings [N, D]. No dropout."""
    spec, lineage = context.spec, context.lineage
    first, stage2, stage3, stage4 = (spec.channels(count) for count in lineage.widths)
    narrow, middle, wide = (spec.channels(count) for count in HIDDEN)
    counts = lineage.units[spec.net_depth]
    with tf.variable_scope("mobilefacenet"):
        x = _conv_block(pixels_NHWC, first, Kernel(3, stride=2), context, "conv1")
        if counts[0] == 1:  # its groups are 64 even where there are 128 channels
            kernel = Kernel(3, groups=spec.channels(64))
            x = _conv_block(x, first, kernel, context, "conv2_dw")
        else:
            x = _residuals(x, counts[0], narrow, context, "conv_2")
        x = _depthwise(x, stage2, 2, narrow, context, "conv_23")
        x = _residuals(x, counts[1], narrow, context, "conv_3")
        x = _depthwise(x, stage3, 2, middle, context, "conv_34")
        x = _residuals(x, counts[2], middle, context, "conv_4")
        x = _depthwise(x, stage4, 2, wide, context, "conv_45")
        x = _residuals(x, counts[3], middle, context, "conv_5")
        x = _conv_block(x, spec.channels(LAST), Kernel(1), context, "conv_6_sep")
        return _embed(x, context)


def _conv_block(
    x_NHWC: tf.Tensor, filters: int, kernel: Kernel, context: LayerContext, name: str
) -> tf.Tensor:
    with tf.variable_scope(name):
        x = conv(x_NHWC, filters, kernel, context, "conv")
        return prelu(norm(x, context, "bn"), context, "prelu")


def _linear_block(
    x_NHWC: tf.Tensor, filters: int, kernel: Kernel, context: LayerContext, name: str
) -> tf.Tensor:
    with tf.variable_scope(name):
        x = conv(x_NHWC, filters, kernel, context, "conv")
        return norm(x, context, "bn")


def _depthwise(
    x_NHWC: tf.Tensor, filters: int, stride: int, hidden: int, context: LayerContext, name: str
) -> tf.Tensor:
    """1x1 up to `hidden` channels, 3x3 on each of them at `stride`, 1x1 down to `filters`."""
    with tf.variable_scope(name):
        x = _conv_block(x_NHWC, hidden, Kernel(1), context, "conv")
        x = _conv_block(x, hidden, Kernel(3, stride, groups=hidden), context, "conv_dw")
        return _linear_block(x, filters, Kernel(1), context, "project")


def _residuals(
    x_NHWC: tf.Tensor, count: int, hidden: int, context: LayerContext, name: str
) -> tf.Tensor:
    """`count` units of x + depthwise(x) at stride 1."""
    for number in range(1, count + 1):
        unit = functools.partial(
            _residual_unit, hidden=hidden, context=context, name=f"{name}/unit_{number}"
        )
        x_NHWC = context.wrap(unit)(x_NHWC)
    return x_NHWC


def _residual_unit(x_NHWC: tf.Tensor, hidden: int, context: LayerContext, name: str) -> tf.Tensor:
    return x_NHWC + _depthwise(x_NHWC, x_NHWC.shape.as_list()[-1], 1, hidden, context, name)


def _embed(x_NHWC: tf.Tensor, context: LayerContext) -> tf.Tensor:
    """One weight a channel and pixel, then a dense layer: [N, H, W, C] -> [N, D]."""
    spec = context.spec
    side, across = x_NHWC.shape.as_list()[1:3]
    if side != across:
        raise ValueError(
            f"--image_size {spec.image_size[0]},{spec.image_size[1]} is not square, and "
            f"{spec.lineage} ends in a square kernel. Pass one of equal sides."
        )
    channels = x_NHWC.shape.as_list()[-1]
    whole = Kernel(side, groups=channels, padding=0)
    x = _linear_block(x_NHWC, channels, whole, context, "conv_6_dw")
    x = flatten(tf.cast(x, tf.float32))
    x = dense(x, spec.embedding_size, context, "linear", bias=False)
    return norm(x, context, "bn", gamma=context.lineage.last_gamma)
