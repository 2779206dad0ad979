"""How fast each layer of a finetuned net moves."""

import numpy as np
import pytest

from nets.build import embeddings
from nets.lineages import NetSpec
from runtime.tf1 import tf
from tests.training.graph.test_step import run, trained  # noqa: F401
from training.graph.finetune import layers, patterns


def layers_of(lineage, depth):
    with tf.Graph().as_default():
        spec = NetSpec(lineage, depth, width=0.125, image_size=(32, 32))
        embeddings(tf.placeholder(tf.uint8, [2, 32, 32, 3]), spec, True)
        return layers(tf.trainable_variables())


@pytest.mark.parametrize(
    "lineage, depth, count, first, last",
    [
        ("arcface_torch", 18, 10, "resnet_v1_18/conv1/W_conv2d", "resnet_v1_18/E_DenseLayer/W"),
        ("arcface_torch_mbf", 0, 26, "mobilefacenet/conv1/conv/W_conv2d", "mobilefacenet/linear/W"),
        ("insightface_tf_vgg", 16, 16, "conv1_1/W_conv2d", "fc3_relu/W"),
    ],
)
def test_a_layer_is_a_unit_or_a_weight_of_its_own(lineage, depth, count, first, last):
    found = layers_of(lineage, depth)
    assert len(found) == count
    assert (found[0][0].op.name, found[-1][0].op.name) == (first, last)


def test_each_layer_moves_slower_than_the_one_behind_it(run):  # noqa: F811
    plain, slow = (
        run(net_depth=18),
        run(net_depth=18, layer_lr_decay=0.5, lr_factor_of=("E_DenseLayer/*=0.25",)),
    )
    start = plain.values()
    for each in (plain, slow):
        each.steps(1)
    whole, found = plain.values(), slow.values()
    factors = {"_18/conv1/": 0.5**9, "block1/unit_1/": 0.5**8, "block4/unit_2/": 0.5}
    factors.update({"E_DenseLayer/": 0.25, "class_centres": 1.0})
    seen = set()
    for name in trained(start):
        fitting = [part for part in reversed(list(factors)) if part in name]
        if fitting and np.abs(whole[name] - start[name]).max() > 1e-5:
            seen.add(fitting[0])
            moved = factors[fitting[0]] * (whole[name] - start[name])
            np.testing.assert_allclose(
                found[name] - start[name], moved, rtol=0.02, atol=2e-6, err_msg=name
            )
    assert len(seen) == len(factors)


@pytest.mark.parametrize("said", ["block1/*", "=0.5", "block1/*=slow", "block1/*=-1"])
def test_what_is_no_pattern_and_factor_is_refused(said):
    with pytest.raises(ValueError, match="is not pattern=factor"):
        patterns([said], ["net/block1/W"])


def test_a_pattern_that_fits_nothing_is_refused():
    with pytest.raises(ValueError, match="block9/\\*=0.1 matches no variable of this network"):
        patterns(["block9/*=0.1"], ["net/block1/W"])
    assert patterns(["class_centres=2"], ["net/block1/W"]) == [("class_centres", 2.0)]
