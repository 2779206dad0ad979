"""The IR residual nets, "LResNet…E-IR", of every lineage: a row of the table -> the graph.

Letters: N images, H W pixels, C channels, D embedding. Scopes and names are those of
InsightFace_TF, so that its checkpoints load as they are.
"""

import functools

from nets.layers import (
    Kernel,
    LayerContext,
    conv,
    dense,
    dropout,
    flatten,
    norm,
    prelu,
    squeeze_excite,
    subsample,
)
from runtime.tf1 import tf

NORM_NAMES = {  # the original's group-norm net named its norms its own way
    "batch": {"conv1": "bn0", "conv2": "conv2_bn/BatchNorm", "last": "E_BN1"},
    "group": {"conv1": "group_norm_0", "conv2": "conv2_bn/GroupNorm", "last": "E_GN_0"},
}
NORM_NAMES["renorm"] = NORM_NAMES["batch"]
BOTTLENECK_EXPANSION = 4
STEM = 64  # channels of the first convolution


def resnet_e_ir(pixels_NHWC: tf.Tensor, context: LayerContext) -> tf.Tensor:
    """float32 pixels [N, H, W, 3], already scaled -> float32 embeddings [N, D], arXiv:1801.07698:
    a stem, four stages of residual units, and the E block."""
    spec, lineage = context.spec, context.lineage
    names = NORM_NAMES[lineage.norm]
    with tf.variable_scope(f"resnet_v1_{spec.scope_depth}"):
        x = conv(pixels_NHWC, spec.channels(STEM), Kernel(3), context, "conv1")
        x = prelu(norm(x, context, names["conv1"]), context, "prelu0")
        for stage, units in enumerate(lineage.units[spec.net_depth], start=1):
            channels = spec.channels(lineage.widths[stage - 1])
            for number in range(1, units + 1):
                stride = 2 if number == 1 else 1  # the first unit of a stage halves H and W
                unit = functools.partial(
                    residual_unit, channels=channels, stride=stride, context=context
                )
                with tf.variable_scope(f"block{stage}/unit_{number}/bottleneck_v1"):
                    x = context.wrap(unit)(x)
        return _embed(x, context, names["last"])


def residual_unit(
    x_NHWC: tf.Tensor, channels: int, stride: int, context: LayerContext
) -> tf.Tensor:
    """shortcut(x) + residual(norm(x)): [N, H, W, C] -> [N, H / stride, W / stride, outputs]. The
    residual is a basic block or a bottleneck, gated by squeeze-excitation in SE nets."""
    spec, lineage = context.spec, context.lineage
    bottleneck = spec.net_depth in lineage.bottlenecks
    outputs = channels * (BOTTLENECK_EXPANSION if bottleneck else lineage.expansion)
    residual = _bottleneck if bottleneck else _basic_block
    normal = norm(x_NHWC, context, "conv1_bn1")
    short = _shortcut(x_NHWC, normal, outputs, stride, context)
    y = residual(normal, channels, outputs, stride, context)
    if spec.block != "se":
        return y + short
    y = squeeze_excite(y, context) + short
    return tf.nn.relu(y) if lineage.relu_after_add else y


def _basic_block(
    x_NHWC: tf.Tensor, channels: int, outputs: int, stride: int, context: LayerContext
) -> tf.Tensor:
    """3x3, norm, PReLU, 3x3 at `stride`, norm."""
    y = conv(x_NHWC, channels, Kernel(3), context, "conv1")
    if context.lineage.norm_after_conv1:
        y = norm(y, context, "conv1_bn2")
    y = prelu(y, context, "prelu_layer")
    y = conv(y, outputs, Kernel(3, stride), context, "conv2")
    return norm(y, context, NORM_NAMES[context.lineage.norm]["conv2"])


def _bottleneck(
    x_NHWC: tf.Tensor, channels: int, outputs: int, stride: int, context: LayerContext
) -> tf.Tensor:
    """1x1, norm, PReLU, 3x3, norm, PReLU, 1x1 at `stride`, norm: CVLface's deepest nets."""
    y = conv(x_NHWC, channels, Kernel(1), context, "conv1")
    y = norm(y, context, "conv1_bn2")
    y = prelu(y, context, "prelu_layer")
    y = conv(y, channels, Kernel(3), context, "conv2")
    y = norm(y, context, "conv2_bn/BatchNorm")
    y = prelu(y, context, "prelu_layer2")
    y = conv(y, outputs, Kernel(1, stride), context, "conv3")
    return norm(y, context, "conv3_bn/BatchNorm")


def _shortcut(
    x_NHWC: tf.Tensor, normal_NHWC: tf.Tensor, outputs: int, stride: int, context: LayerContext
) -> tf.Tensor:
    """1x1 convolution and norm where channels are added, in some lineages in every first unit of a
    stage; otherwise every stride-th pixel."""
    lineage, channels = context.lineage, x_NHWC.shape.as_list()[-1]
    first_conv = lineage.first_shortcut == "conv" and stride > 1
    if channels != outputs or first_conv:
        short = conv(x_NHWC, outputs, Kernel(1, stride), context, "shortcut_conv")
        return norm(short, context, "shortcut_bn/BatchNorm")
    if stride == 1:
        return normal_NHWC if lineage.identity_carries_norm else x_NHWC
    return subsample(x_NHWC, stride)


def _embed(x_NHWC: tf.Tensor, context: LayerContext, name: str) -> tf.Tensor:
    """The E block: norm, dropout, dense, norm. [N, H, W, C] -> [N, D]."""
    x = tf.cast(norm(x_NHWC, context, name), tf.float32)
    x = flatten(dropout(x, context))
    x = dense(x, context.spec.embedding_size, context, "E_DenseLayer")
    if context.lineage.last_gamma == "absent":
        return x
    return norm(x, context, "E_BN2", gamma=context.lineage.last_gamma)
