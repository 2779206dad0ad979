"""The IR residual nets, "LResNet…E-IR", of every lineage: a row of the table -> the graph.

Letters: N images, H W pixels, C channels, D embedding. Scopes and names are those of
InsightFace_TF, so that its checkpoints load as they are.
"""

from nets.layers import conv, dense, dropout, flatten, norm, prelu, squeeze_excite, subsample
from runtime.tf1 import tf

NORM_NAMES = {  # the original's group-norm net named its norms its own way
    "batch": {"conv1": "bn0", "conv2": "conv2_bn/BatchNorm", "last": "E_BN1"},
    "group": {"conv1": "group_norm_0", "conv2": "conv2_bn/GroupNorm", "last": "E_GN_0"},
}
NORM_NAMES["renorm"] = NORM_NAMES["batch"]
BOTTLENECK_EXPANSION = 4
STEM = 64  # channels of the first convolution


def resnet_e_ir(pixels_NHWC, spec, rules, share, seed=None, wrap_unit=None):
    """float32 pixels [N, H, W, 3], already scaled -> float32 embeddings [N, D], arXiv:1801.07698.
    share: dropout. wrap_unit: what to make of each unit's function before it is called."""
    names, row = NORM_NAMES[spec.row.norm], spec.row
    with tf.variable_scope(f"resnet_v1_{spec.scope_depth}"):
        x = conv(pixels_NHWC, spec.channels(STEM), 3, 1, rules, "conv1")
        x = prelu(norm(x, rules, names["conv1"]), rules, "prelu0")
        for stage, count in enumerate(row.units[spec.net_depth], start=1):
            for number in range(1, count + 1):  # the first unit of a stage halves H and W
                with tf.variable_scope(f"block{stage}/unit_{number}/bottleneck_v1"):
                    x = _unit(x, spec, rules, stage, 2 if number == 1 else 1, wrap_unit)
        return _embed(x, spec, rules, share, seed, names["last"])


def _unit(x_NHWC, spec, rules, stage, stride, wrap_unit):
    inner = spec.channels(spec.row.widths[stage - 1])

    def unit(x):
        return unit_ir(x, spec, rules, inner, stride)

    return (wrap_unit(unit) if wrap_unit else unit)(x_NHWC)


def unit_ir(x_NHWC, spec, rules, inner, stride):
    """norm, 3x3, norm, PReLU, 3x3 at `stride`, norm, squeeze-excitation where asked; plus shortcut.
    [N, H, W, C] -> [N, H / stride, W / stride, inner * expansion]."""
    row = spec.row
    bottleneck = spec.net_depth in row.bottlenecks
    outputs = inner * (BOTTLENECK_EXPANSION if bottleneck else row.expansion)
    y = norm(x_NHWC, rules, "conv1_bn1")
    short = _shortcut(x_NHWC, y, outputs, stride, rules)
    y = (_three if bottleneck else _two)(y, inner, outputs, stride, rules)
    if spec.block == "se":
        y = squeeze_excite(y, rules) + short
        return tf.nn.relu(y) if row.relu_after_add else y
    return y + short


def _two(y, inner, outputs, stride, rules):
    """The residual of every depth of most lineages: 3x3 and 3x3 at `stride`."""
    y = conv(y, inner, 3, 1, rules, "conv1")
    if rules.row.norm_after_conv1:
        y = norm(y, rules, "conv1_bn2")
    y = conv(prelu(y, rules, "prelu_layer"), outputs, 3, stride, rules, "conv2")
    return norm(y, rules, NORM_NAMES[rules.row.norm]["conv2"])


def _three(y, inner, outputs, stride, rules):
    """The bottleneck residual of CVLface's deepest nets: 1x1, 3x3, 1x1 at `stride`."""
    y = norm(conv(y, inner, 1, 1, rules, "conv1"), rules, "conv1_bn2")
    y = conv(prelu(y, rules, "prelu_layer"), inner, 3, 1, rules, "conv2")
    y = prelu(norm(y, rules, "conv2_bn/BatchNorm"), rules, "prelu_layer2")
    return norm(conv(y, outputs, 1, stride, rules, "conv3"), rules, "conv3_bn/BatchNorm")


def _shortcut(x_NHWC, normal_NHWC, outputs, stride, rules):
    """1x1 convolution and norm where channels are added (and in every first unit, if the lineage
    has it so); else every stride-th pixel."""
    row, channels = rules.row, x_NHWC.shape.as_list()[-1]
    first_conv = row.first_shortcut == "conv" and stride > 1
    if channels != outputs or first_conv:
        short = conv(x_NHWC, outputs, 1, stride, rules, "shortcut_conv")
        return norm(short, rules, "shortcut_bn/BatchNorm")
    if stride == 1:
        return normal_NHWC if row.identity_carries_norm else x_NHWC
    return subsample(x_NHWC, stride)


def _embed(x_NHWC, spec, rules, share, seed, name):
    """The E block: norm, dropout, dense, norm. [N, H, W, C] -> [N, D]."""
    x = tf.cast(norm(x_NHWC, rules, name), tf.float32)
    x = flatten(dropout(x, share, rules, seed))
    x = dense(x, spec.embedding_size, rules, "E_DenseLayer")
    if spec.row.last_gamma == "absent":
        return x
    return norm(x, rules, "E_BN2", gamma=spec.row.last_gamma)
