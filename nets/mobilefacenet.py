"""MobileFaceNet, arXiv:1804.07573, in the forms of arcface_torch and InsightFace_Pytorch.

Letters: N images, H W pixels, C channels, D embedding. Scopes are InsightFace_Pytorch's names.
"""

from nets.layers import conv, dense, flatten, norm, prelu
from runtime.tf1 import tf

HIDDEN = (128, 256, 512)  # of a depthwise block; the same in every form, so wide forms expand by 1
LAST = 512


def mobilefacenet(pixels_NHWC, spec, rules, share, seed=None, wrap_unit=None):
    """float32 pixels [N, H, W, 3], already scaled -> float32 embeddings [N, D]. No dropout."""
    first, stage2, stage3, stage4 = (spec.channels(count) for count in spec.row.widths)
    narrow, middle, wide = (spec.channels(count) for count in HIDDEN)
    counts = spec.row.units[spec.net_depth]
    with tf.variable_scope("mobilefacenet"):
        x = _conv_block(pixels_NHWC, first, 3, 2, rules, "conv1")
        if counts[0] == 1:  # its groups are 64 even where there are 128 channels
            x = _conv_block(x, first, 3, 1, rules, "conv2_dw", spec.channels(64))
        else:
            x = _residuals(x, counts[0], narrow, rules, "conv_2", wrap_unit)
        x = _depthwise(x, stage2, 2, narrow, rules, "conv_23")
        x = _residuals(x, counts[1], narrow, rules, "conv_3", wrap_unit)
        x = _depthwise(x, stage3, 2, middle, rules, "conv_34")
        x = _residuals(x, counts[2], middle, rules, "conv_4", wrap_unit)
        x = _depthwise(x, stage4, 2, wide, rules, "conv_45")
        x = _residuals(x, counts[3], middle, rules, "conv_5", wrap_unit)
        x = _conv_block(x, spec.channels(LAST), 1, 1, rules, "conv_6_sep")
        return _embed(x, spec, rules)


def _conv_block(x_NHWC, filters, size, stride, rules, name, groups=1):
    with tf.variable_scope(name):
        x = conv(x_NHWC, filters, size, stride, rules, "conv", groups=groups)
        return prelu(norm(x, rules, "bn"), rules, "prelu")


def _linear_block(x_NHWC, filters, size, rules, name, groups=1, padding=None):
    with tf.variable_scope(name):
        x = conv(x_NHWC, filters, size, 1, rules, "conv", groups=groups, padding=padding)
        return norm(x, rules, "bn")


def _depthwise(x_NHWC, filters, stride, hidden, rules, name):
    """1x1 up to `hidden` channels, 3x3 on each of them at `stride`, 1x1 down to `filters`."""
    with tf.variable_scope(name):
        x = _conv_block(x_NHWC, hidden, 1, 1, rules, "conv")
        x = _conv_block(x, hidden, 3, stride, rules, "conv_dw", groups=hidden)
        return _linear_block(x, filters, 1, rules, "project")


def _residuals(x_NHWC, count, hidden, rules, name, wrap_unit):
    def unit(x, number):
        channels = x.shape.as_list()[-1]
        return x + _depthwise(x, channels, 1, hidden, rules, f"{name}/unit_{number}")

    for number in range(1, count + 1):

        def numbered(x, number=number):
            return unit(x, number)

        x_NHWC = (wrap_unit(numbered) if wrap_unit else numbered)(x_NHWC)
    return x_NHWC


def _embed(x_NHWC, spec, rules):
    """One weight a channel and pixel, then a dense layer: [N, H, W, C] -> [N, D]."""
    side, across = x_NHWC.shape.as_list()[1:3]
    if side != across:
        raise ValueError(
            f"--image_size {spec.image_size[0]},{spec.image_size[1]} is not square, and "
            f"{spec.lineage} ends in a square kernel; pass one of equal sides."
        )
    channels = x_NHWC.shape.as_list()[-1]
    x = _linear_block(x_NHWC, channels, side, rules, "conv_6_dw", groups=channels, padding=0)
    x = flatten(tf.cast(x, tf.float32))
    x = dense(x, spec.embedding_size, rules, "linear", bias=False)
    return norm(x, rules, "bn", gamma=spec.row.last_gamma)
