"""The table and its specs; names and shapes of every row's variables against golden lists.

python -m tests.nets.test_lineages rewrites the lists, after a change that was meant.
"""

import gzip
import json
import os

import pytest

from nets.build import embeddings
from nets.lineages import LINEAGES, NetSpec
from runtime.tf1 import tf
from tests.nets.tiny_nets import shapes_of, shrink

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(__file__)), "golden", "nets")


def _golden(lineage):
    return os.path.join(GOLDEN, f"{lineage}.json.gz")


def _listed(lineage):
    """{block: {name: shape}} of a row in its published sizes, but of few units a stage."""
    row = LINEAGES[lineage]
    depth = 100 if 100 in row.units else min(row.units)  # 100 is 101 in some rows' names
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, lineage, depth)
        return {block: shapes_of(NetSpec(lineage, depth, block)) for block in row.blocks}


@pytest.mark.parametrize("lineage", sorted(LINEAGES))
def test_variables_have_the_names_and_shapes_of_the_golden_list(lineage):
    with gzip.open(_golden(lineage), "rt") as stream:
        assert _listed(lineage) == json.load(stream)


def test_the_originals_names_are_the_originals():
    names = shapes_of(NetSpec("insightface_tf", 50, image_size=(16, 16)))
    for name in (
        "resnet_v1_50/conv1/W_conv2d",
        "resnet_v1_50/bn0/moving_variance",
        "resnet_v1_50/prelu0/alphas",
        "resnet_v1_50/block1/unit_1/bottleneck_v1/conv1_bn1/beta",
        "resnet_v1_50/block3/unit_14/bottleneck_v1/conv2_bn/BatchNorm/gamma",
        "resnet_v1_50/block4/unit_1/bottleneck_v1/shortcut_bn/BatchNorm/moving_mean",
        "resnet_v1_50/block4/unit_3/bottleneck_v1/prelu_layer/alphas",
        "resnet_v1_50/E_BN1/gamma",
        "resnet_v1_50/E_DenseLayer/b",
        "resnet_v1_50/E_BN2/gamma",
    ):
        assert name in names
    assert not any("block1" in name and "shortcut" in name for name in names)
    assert names["resnet_v1_50/E_DenseLayer/W"] == [512, 512]


def test_training_and_embedding_share_their_variables():
    spec = NetSpec("arcface_torch", 18, width=0.125, image_size=(32, 32))
    with tf.Graph().as_default():
        images = tf.placeholder(tf.uint8, [2, 32, 32, 3])
        with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
            embeddings(images, spec, training=True)
            before = len(tf.global_variables())
            updates = len(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
            embeddings(images, spec, training=False)
        assert len(tf.global_variables()) == before
        assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == updates > 0


def test_spec_survives_json():
    spec = NetSpec("insightface_pytorch", 50, "se", 0.5, 128, (96, 112))
    assert NetSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_spec_takes_the_lineages_other_name_of_a_depth():
    assert NetSpec("insightface_tf_wide", 101) == NetSpec("insightface_tf_wide", 100)
    assert NetSpec("insightface_tf_wide", 100).scope_depth == 101
    assert NetSpec("arcface_torch_mbf", 100) == NetSpec("arcface_torch_mbf", 18)


@pytest.mark.parametrize(
    "fields, says",
    [
        (dict(lineage="arcface_troch"), "Did you mean arcface_torch?"),
        (dict(net_depth=51), "choose one of 10, 18, 34, 50, 100, 152, 200"),
        (dict(block="se"), "arcface_torch; it has ir"),
        (dict(width=0.0), "--width 0.0"),
        (dict(embedding_size=0), "--embedding_size 0"),
        (dict(image_size=(8, 112)), "--image_size 8,112"),
    ],
)
def test_spec_refuses_what_no_net_is(fields, says):
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        NetSpec(**fields)
    assert says in str(error.value)


if __name__ == "__main__":
    os.makedirs(GOLDEN, exist_ok=True)
    for name in LINEAGES:
        content = json.dumps(_listed(name), indent=0, sort_keys=True).encode()
        with open(_golden(name), "wb") as stream, gzip.GzipFile("", "wb", 9, stream, 0) as packed:
            packed.write(content)
