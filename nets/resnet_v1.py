"""ResNet v1, arXiv:1512.03385, plain and squeeze-excitation, as InsightFace_TF lists them.

A stage's stride stands in its last unit, and an embedding stands where the classes were.
Letters: N images, H W pixels, C channels, D embedding.
"""

from nets.layers import conv, dropout, norm, squeeze_excite, subsample
from runtime.tf1 import tf

STEM = 64


def resnet_v1(pixels_NHWC, spec, rules, share, seed=None, wrap_unit=None):
    """float32 pixels [N, H, W, 3], the mean taken off -> float32 embeddings [N, D]."""
    with tf.variable_scope(f"resnet_v1_{spec.net_depth}"):
        x = _conv_norm_relu(pixels_NHWC, spec.channels(STEM), 7, 2, rules, "conv1")
        x = tf.nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], padding="SAME")
        counts = spec.row.units[spec.net_depth]
        for stage, count in enumerate(counts, start=1):
            for number in range(1, count + 1):
                stride = 2 if number == count and stage < len(counts) else 1
                with tf.variable_scope(f"block{stage}/unit_{number}/bottleneck_v1"):
                    x = _unit(x, spec, rules, stage, stride, wrap_unit)
        x = tf.reduce_mean(x, [1, 2], keepdims=True)
        x = conv(
            dropout(x, share, rules, seed), spec.embedding_size, 1, 1, rules, "logits", bias=True
        )
        return tf.cast(tf.squeeze(x, [1, 2]), tf.float32)


def _unit(x_NHWC, spec, rules, stage, stride, wrap_unit):
    inner = spec.channels(spec.row.widths[stage - 1])
    outputs = inner * spec.row.expansion

    def unit(x):
        short = subsample(x, stride)
        if x.shape.as_list()[-1] != outputs:
            short = conv(x, outputs, 1, stride, rules, "shortcut_conv")
            short = norm(short, rules, "shortcut_bn/BatchNorm")
        y = _conv_norm_relu(x, inner, 1, 1, rules, "conv1")
        y = _conv_norm_relu(y, inner, 3, stride, rules, "conv2")
        y = norm(conv(y, outputs, 1, 1, rules, "conv3"), rules, "conv3_bn/BatchNorm")
        y = squeeze_excite(y, rules) if spec.block == "se" else y
        return tf.nn.relu(y + short)

    return (wrap_unit(unit) if wrap_unit else unit)(x_NHWC)


def _conv_norm_relu(x_NHWC, filters, size, stride, rules, name):
    x = conv(x_NHWC, filters, size, stride, rules, name)
    return tf.nn.relu(norm(x, rules, f"{name}_bn/BatchNorm"))
