"""ResNet v1: the stride is in the last unit of a stage, and a unit ends in a ReLU."""

import numpy as np

from nets.layers import LayerContext
from nets.lineages import NetSpec
from nets.resnet_v1 import bottleneck_unit, resnet_v1
from runtime.tf1 import tf
from tests.nets.tiny_nets import small_spec


def test_the_last_unit_of_each_stage_but_the_last_halves_the_image(monkeypatch):
    spec = small_spec(monkeypatch, "insightface_tf_resnet")
    sizes = {}

    with tf.Graph().as_default() as graph:
        resnet_v1(tf.zeros([1, 64, 96, 3]), LayerContext(spec, False))
        for op in graph.get_operations():
            if op.type == "Relu" and "/unit_" in op.name and op.name.count("/") == 4:
                sizes["/".join(op.name.split("/")[1:3])] = op.outputs[0].shape.as_list()[1:3]
    assert sizes == {
        "block1/unit_1": [8, 12],
        "block2/unit_1": [8, 12],
        "block2/unit_2": [4, 6],
        "block3/unit_1": [2, 3],
        "block4/unit_1": [2, 3],
    }


def test_a_unit_without_residual_is_the_relu_of_its_shortcut():
    context = LayerContext(NetSpec("insightface_tf_resnet", 50), False)
    x_NHWC = np.random.RandomState(0).standard_normal((2, 4, 6, 8)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        y = bottleneck_unit(tf.constant(x_NHWC), 2, 2, context)
        session.run(tf.global_variables_initializer())
        last = [v for v in tf.global_variables() if v.op.name == "conv3/W_conv2d"]
        session.run([v.assign(tf.zeros_like(v)) for v in last])
        np.testing.assert_array_equal(session.run(y), np.maximum(x_NHWC[:, ::2, ::2], 0))
