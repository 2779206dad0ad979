"""MobileFaceNet's own shapes: its stride, its last kernel, and what it refuses."""

import pytest

from nets.build import embeddings, variable_shapes
from nets.lineages import NetSpec
from runtime.tf1 import tf


@pytest.mark.parametrize("side, last", [(112, 7), (96, 6), (48, 3)])
def test_the_last_depthwise_kernel_covers_the_feature_map(side, last):
    spec = NetSpec("insightface_pytorch_mbf", 0, "ir", 0.125, 24, (side, side))
    shapes = variable_shapes(spec)
    assert shapes["mobilefacenet/conv_6_dw/conv/W_conv2d"][:2] == [last, last]


def test_images_that_are_not_square_are_refused():
    spec = NetSpec("arcface_torch_mbf", image_size=(112, 96))
    with tf.Graph().as_default(), pytest.raises(ValueError, match="112,96 is not square"):
        embeddings(tf.placeholder(tf.uint8, [1, 112, 96, 3]), spec, False)


def test_the_large_form_repeats_its_first_stage_as_residual_units():
    spec = NetSpec("arcface_torch_mbf_large", 0, "ir", 0.125, 24, (48, 48))
    names = variable_shapes(spec)
    units = {name.split("/")[2] for name in names if name.startswith("mobilefacenet/conv_2/")}
    assert units == {"unit_1", "unit_2"}
    assert not any(name.startswith("mobilefacenet/conv2_dw/") for name in names)
