"""ResNet v1, arXiv:1512.03385, plain and squeeze-excitation, as InsightFace_TF lists them.

The last unit of a stage has its stride, and an embedding takes the place of the classes.
Letters: N images, H W pixels, C channels, D embedding.
"""

import functools

from nets.layers import Kernel, LayerContext, conv, dropout, norm, squeeze_excite, subsample
from runtime.tf1 import tf

STEM = 64


def resnet_v1(pixels_NHWC: tf.Tensor, context: LayerContext) -> tf.Tensor:
    """float32 pixels [N, H, W, 3], the mean subtracted -> float32 embeddings [N, D]."""
    spec, lineage = context.spec, context.lineage
    with tf.variable_scope(f"resnet_v1_{spec.net_depth}"):
        x = _conv_norm_relu(pixels_NHWC, spec.channels(STEM), 7, 2, context, "conv1")
        x = tf.nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], padding="SAME")
        counts = lineage.units[spec.net_depth]
        for stage, count in enumerate(counts, start=1):
            channels = spec.channels(lineage.widths[stage - 1])
            for number in range(1, count + 1):
                stride = 2 if number == count and stage < len(counts) else 1
                unit = functools.partial(
                    bottleneck_unit, channels=channels, stride=stride, context=context
                )
                with tf.variable_scope(f"block{stage}/unit_{number}/bottleneck_v1"):
                    x = context.wrap(unit)(x)
        x = dropout(tf.reduce_mean(x, [1, 2], keepdims=True), context)
        x = conv(x, spec.embedding_size, Kernel(1), context, "logits", bias=True)
        return tf.cast(tf.squeeze(x, [1, 2]), tf.float32)


def bottleneck_unit(
    x_NHWC: tf.Tensor, channels: int, stride: int, context: LayerContext
) -> tf.Tensor:
    """relu(shortcut + residual), the residual 1x1, 3x3 at `stride`, 1x1, each with its norm:
    [N, H, W, C] -> [N, H / stride, W / stride, channels * expansion]."""
    outputs = channels * context.lineage.expansion
    short = subsample(x_NHWC, stride)
    if x_NHWC.shape.as_list()[-1] != outputs:
        short = conv(x_NHWC, outputs, Kernel(1, stride), context, "shortcut_conv")
        short = norm(short, context, "shortcut_bn/BatchNorm")
    y = _conv_norm_relu(x_NHWC, channels, 1, 1, context, "conv1")
    y = _conv_norm_relu(y, channels, 3, stride, context, "conv2")
    y = norm(conv(y, outputs, Kernel(1), context, "conv3"), context, "conv3_bn/BatchNorm")
    y = squeeze_excite(y, context) if context.spec.block == "se" else y
    return tf.nn.relu(y + short)


def _conv_norm_relu(
    x_NHWC: tf.Tensor, filters: int, size: int, stride: int, context: LayerContext, name: str
) -> tf.Tensor:
    x = conv(x_NHWC, filters, Kernel(size, stride), context, name)
    return tf.nn.relu(norm(x, context, f"{name}_bn/BatchNorm"))
