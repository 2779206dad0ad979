"""The order of layers in a residual unit, which names and shapes alone do not show."""

import numpy as np
import pytest

from nets.build import embeddings
from nets.L_Resnet_E_IR import residual_unit
from nets.layers import LayerContext
from nets.lineages import NetSpec
from runtime.tf1 import tf
from tests.nets.tiny_nets import small_spec

CHANNELS = 8


def unit_of(spec, stride, channels=CHANNELS, assign=()):
    """(x, residual_unit(x)) of an inference net, its variables as they start but for `assign`,
    {end of a name: value of every element}."""
    draw = np.random.RandomState(0)
    x_NHWC = draw.standard_normal((2, 6, 4, CHANNELS)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(2)
        y = residual_unit(tf.constant(x_NHWC), channels, stride, LayerContext(spec, False))
        session.run(tf.global_variables_initializer())
        for variable in tf.global_variables():
            for ending, value in dict(assign).items():
                if variable.op.name.endswith(ending):
                    session.run(variable.assign(tf.fill(variable.shape, value)))
        return x_NHWC, session.run(y)


def test_a_unit_without_residual_is_its_identity_shortcut():
    spec = NetSpec("arcface_torch", 18)
    x_NHWC, y_NHWC = unit_of(spec, 1, assign={"conv2/W_conv2d": 0.0})
    np.testing.assert_array_equal(x_NHWC, y_NHWC)


def test_a_pool_shortcut_takes_every_other_pixel():
    spec = NetSpec("insightface_pytorch", 50)
    x_NHWC, y_NHWC = unit_of(spec, 2, assign={"conv2/W_conv2d": 0.0})
    np.testing.assert_array_equal(x_NHWC[:, ::2, ::2], y_NHWC)


def test_a_conv_shortcut_is_learned_where_no_channel_is_added():
    spec = NetSpec("arcface_torch", 18)
    zero = {"conv2/W_conv2d": 0.0, "shortcut_conv/W_conv2d": 0.0}
    x_NHWC, y_NHWC = unit_of(spec, 2, assign=zero)
    assert y_NHWC.shape == (2, 3, 2, CHANNELS) and not y_NHWC.any()


def test_an_se_unit_of_insightface_tf_ends_in_a_relu():
    zero = {"conv2/W_conv2d": 0.0}
    x_NHWC, y_NHWC = unit_of(NetSpec("insightface_tf", 18, "se"), 1, assign=zero)
    np.testing.assert_array_equal(np.maximum(x_NHWC, 0), y_NHWC)


def test_the_gate_of_an_se_unit_scales_the_residual_alone():
    """Zero gate weights and biases make a gate of 1/2."""
    spec = NetSpec("insightface_mxnet", 18, "se")
    plain = unit_of(NetSpec("insightface_mxnet", 18), 1, assign={"conv2/W_conv2d": 0.01})
    gated = unit_of(
        spec, 1, assign={"conv2/W_conv2d": 0.01, "excitation_2/W": 0.0, "excitation_2/b": 0.0}
    )
    assert plain[1].shape == gated[1].shape
    np.testing.assert_allclose(gated[1] - gated[0], (plain[1] - plain[0]) / 2, atol=1e-5)


def test_a_bottleneck_has_four_times_its_channels():
    x_NHWC, y_NHWC = unit_of(NetSpec("cvlface", 152), 2, channels=4)
    assert y_NHWC.shape == (2, 3, 2, 16)


@pytest.mark.parametrize("lineage, norms", [("insightface_tf_gn", 1), ("arcface_torch", 2)])
def test_the_e_block_ends_in_a_norm_except_in_the_group_norm_net(monkeypatch, lineage, norms):
    spec = small_spec(monkeypatch, lineage)
    with tf.Graph().as_default():
        embeddings(tf.placeholder(tf.uint8, [1, 32, 32, 3]), spec, False)
        owners = {v.op.name.split("/")[1] for v in tf.global_variables()}
    assert len([name for name in owners if name.startswith(("E_BN", "E_GN"))]) == norms
