"""VGG: three dense layers behind five pools, and dropout before them when training."""

import numpy as np
import pytest

from nets.build import variable_shapes
from nets.layers import LayerContext, NetOptions
from nets.lineages import NetSpec
from nets.vgg import vgg
from runtime.tf1 import tf


@pytest.mark.parametrize("depth, convolutions", [(16, 13), (19, 16)])
def test_the_depth_counts_convolutions_and_dense_layers(depth, convolutions):
    spec = NetSpec("insightface_tf_vgg", depth, "ir", 0.125, 24, (32, 64))
    shapes = variable_shapes(spec)
    kernels = [shape for name, shape in shapes.items() if name.endswith("W_conv2d")]
    assert len(kernels) == convolutions == depth - 3
    assert shapes["fc1_relu/W"] == [1 * 2 * 64, 512]  # five pools of 32 x 64 leave 1 x 2
    assert shapes["fc3_relu/W"] == [512, 24]


def test_the_dropout_seed_decides_a_training_embedding():
    spec = NetSpec("insightface_tf_vgg", 16, "ir", 0.125, 24, (32, 32))
    pixels_NHWC = np.random.RandomState(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        seed = tf.placeholder(tf.int32, [2])
        options = NetOptions(dropout_rate=0.5, dropout_seed=seed)
        x_ND = vgg(tf.constant(pixels_NHWC), LayerContext(spec, True, options))
        session.run(tf.global_variables_initializer())
        one, same, other = (session.run(x_ND, {seed: value}) for value in ([1, 2], [1, 2], [1, 3]))
    assert x_ND.shape.as_list() == [2, 24]
    assert np.array_equal(one, same) and not np.array_equal(one, other)
