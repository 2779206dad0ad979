"""VGG-16 and VGG-19, arXiv:1409.1556, as InsightFace_TF lists them, with an embedding for classes.

Letters: N images, H W pixels, C channels, D embedding.
"""

from nets.layers import conv, dense, dropout, flatten
from runtime.tf1 import tf

HIDDEN = 4096


def vgg(pixels_NHWC, spec, rules, share, seed=None, wrap_unit=None):
    """float32 pixels [N, H, W, 3], the mean taken off -> float32 embeddings [N, D]. wrap_unit is
    not used: no layer is worth computing twice."""
    x = pixels_NHWC
    for stage, count in enumerate(spec.row.units[spec.net_depth], start=1):
        channels = spec.channels(spec.row.widths[stage - 1])
        for number in range(1, count + 1):
            x = tf.nn.relu(conv(x, channels, 3, 1, rules, f"conv{stage}_{number}", bias=True))
        x = tf.nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], padding="SAME")
    x = flatten(dropout(tf.cast(x, tf.float32), share, rules, seed))
    x = tf.nn.relu(dense(x, spec.channels(HIDDEN), rules, "fc1_relu"))
    x = tf.nn.relu(dense(x, spec.channels(HIDDEN), rules, "fc2_relu"))
    return dense(x, spec.embedding_size, rules, "fc3_relu")
