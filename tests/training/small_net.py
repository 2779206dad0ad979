"""A net whose graph is built in a second, with each kind of variable that the deep nets have."""

from nets.layers import conv, dense, flatten, norm, prelu
from runtime.tf1 import tf


def small_net(pixels_NHWC, context):
    """In the place of L_Resnet_E_IR's: a convolution, a residual unit and a dense layer, all with
    batch norm, and so each kind of variable that the deep nets have."""
    x = norm(conv(pixels_NHWC, 6, 3, 2, context, "conv1"), context, "bn1")
    x = prelu(x, context, "prelu1")
    with tf.variable_scope("block1/unit_1"):
        x += norm(conv(x, 6, 3, 1, context, "conv2"), context, "bn2")
    return norm(dense(flatten(x), context.spec.embedding_size, context, "fc1"), context, "bn3")
