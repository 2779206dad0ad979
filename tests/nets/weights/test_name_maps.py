"""Names of other projects, written by hand from their sources, and the nets that they are of."""

import pytest

from nets.lineages import LINEAGES, NetSpec
from nets.weights.layout import tensors_of
from nets.weights.name_maps import canonical, recognise, their_name
from tests.nets.tiny_nets import numbers, shapes_of, small_spec

UNIT = "resnet_v1_50/block3/unit_2/bottleneck_v1"


@pytest.mark.parametrize(
    "lineage, ours, theirs",
    [
        ("arcface_torch", "resnet_v1_50/conv1/W_conv2d", "conv1.weight"),
        ("arcface_torch", "resnet_v1_50/E_DenseLayer/b", "fc.bias"),
        ("arcface_torch", "resnet_v1_50/E_BN2/moving_variance", "features.running_var"),
        ("arcface_torch", f"{UNIT}/prelu_layer/alphas", "layer3.1.prelu.weight"),
        ("arcface_torch", f"{UNIT}/shortcut_conv/W_conv2d", "layer3.1.downsample.0.weight"),
        ("insightface_pytorch", "resnet_v1_50/prelu0/alphas", "input_layer.2.weight"),
        ("insightface_pytorch", f"{UNIT}/conv2/W_conv2d", "body.8.res_layer.3.weight"),
        ("cvlface", f"{UNIT}/conv2/W_conv2d", "body.8.res_layer.4.weight"),
        ("insightface_mxnet", f"{UNIT}/conv2/W_conv2d", "stage3_unit2_conv2_weight"),
        ("insightface_mxnet", "resnet_v1_50/E_DenseLayer/W", "pre_fc1_weight"),
        ("insightface_tf", f"{UNIT}/conv2/W_conv2d", f"{UNIT}/conv2/W_conv2d"),
    ],
)
def test_a_variable_has_the_name_that_the_project_writes(lineage, ours, theirs):
    assert their_name(ours, NetSpec(lineage, 50)) == theirs


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ("conv1/conv/W_conv2d", "layers.0.layers.0.weight"),
        ("conv_3/unit_2/conv_dw/bn/gamma", "layers.3.layers.1.layers.1.layers.1.weight"),
        ("conv_6_sep/prelu/alphas", "conv_sep.layers.2.weight"),
        ("linear/W", "features.layers.2.weight"),
    ],
)
def test_mobilefacenets_layers_are_numbered_as_arcface_torch_numbers_them(ours, theirs):
    assert their_name(f"mobilefacenet/{ours}", NetSpec("arcface_torch_mbf")) == theirs


@pytest.mark.parametrize("lineage", [row.name for row in LINEAGES.values() if row.names])
def test_no_two_variables_have_one_name(monkeypatch, lineage):
    spec = small_spec(monkeypatch, lineage)
    names = [their_name(ours, spec) for ours in shapes_of(spec)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("net/E_DenseLayer/kernel", "net/E_DenseLayer/W"),
        ("net/E_DenseLayer/bias", "net/E_DenseLayer/b"),
        ("net/conv1/kernel", "net/conv1/W_conv2d"),
        ("net/conv1/biases", "net/conv1/b_conv2d"),
        ("net/PReluLayer/alpha", "net/prelu_layer/alphas"),
        ("net/p_relu_layer/alpha_w", "net/prelu_layer/alphas"),
        ("net/bn0/gamma", "net/bn0/gamma"),
        ("bias", "bias"),
    ],
)
def test_names_of_other_tensorlayers_become_ours(name, expected):
    assert canonical(name) == expected


NAMED = [(row.name, block) for row in LINEAGES.values() if row.names for block in row.blocks]


@pytest.mark.parametrize("lineage, block", NAMED)
def test_a_net_is_recognised_by_its_names_and_shapes(monkeypatch, lineage, block):
    spec = small_spec(monkeypatch, lineage, block)
    arrays = {name: numbers(name, shape) for name, shape in shapes_of(spec).items()}
    found = recognise({name: a.shape for name, a in tensors_of(arrays, spec).items()})
    assert (found.net_depth, found.block, found.width) == (spec.net_depth, block, spec.width)
    assert found.embedding_size == spec.embedding_size
    assert LINEAGES[found.lineage].names == LINEAGES[lineage].names


@pytest.mark.parametrize("shapes", [{}, {"fc.weight": (10, 20)}, {"layer1.0.bn3.weight": (8,)}])
def test_names_of_no_net_are_not_recognised(shapes):
    assert recognise(shapes) is None
