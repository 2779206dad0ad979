"""VGG-16 and VGG-19, arXiv:1409.1556, as InsightFace_TF lists them, with an embedding for classes.

Letters: N images, H W pixels, C channels, D embedding.
"""

from nets.layers import Kernel, LayerContext, conv, dense, dropout, flatten
from runtime.tf1 import tf

HIDDEN = 4096


def vgg(pixels_NHWC: tf.Tensor, context: LayerContext) -> tf.Tensor:
    """float32 pixels [N, H, W, 3], the mean subtracted -> float32 embeddings [N, D]. It has no
    units, so no activation is recomputed."""
    spec, lineage = context.spec, context.lineage
    x = pixels_NHWC
    for stage, count in enumerate(lineage.units[spec.net_depth], start=1):
        channels = spec.channels(lineage.widths[stage - 1])
        for number in range(1, count + 1):
            x = tf.nn.relu(
                conv(x, channels, Kernel(3), context, f"conv{stage}_{number}", bias=True)
            )
        x = tf.nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], padding="SAME")
    x = flatten(dropout(tf.cast(x, tf.float32), context))
    x = tf.nn.relu(dense(x, spec.channels(HIDDEN), context, "fc1_relu"))
    x = tf.nn.relu(dense(x, spec.channels(HIDDEN), context, "fc2_relu"))
    return dense(x, spec.embedding_size, context, "fc3_relu")
