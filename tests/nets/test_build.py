"""uint8 in, embeddings out: pixels, and the same digits from both TensorFlows.

python -m tests.nets.test_build rewrites the golden embeddings, after a change that was meant.
"""

import json
import os

import numpy as np
import pytest

from nets.build import embeddings, scale_pixels
from nets.layers import NetOptions
from nets.lineages import LINEAGES, NetSpec
from runtime.tf1 import tf
from tests.nets.tiny_nets import embed, images, relative, small_spec

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(__file__)), "golden", "nets")
GOLDEN_EMBEDDINGS = os.path.join(GOLDEN, "embeddings.json")
ROWS = [(row.name, block) for row in LINEAGES.values() for block in row.blocks]


@pytest.mark.parametrize("lineage, block", ROWS)
def test_both_tensorflows_give_the_golden_embeddings(monkeypatch, lineage, block):
    with open(GOLDEN_EMBEDDINGS) as stream:
        expected = np.array(json.load(stream)[f"{lineage} {block}"], np.float32)
    spec = small_spec(monkeypatch, lineage, block)
    assert relative(embed(spec, None, images(spec, 2)), expected) < 1e-5


def _pixels(lineage):
    spec = NetSpec(lineage, 50 if lineage != "insightface_tf_vgg" else 16, image_size=(16, 16))
    image = np.zeros((1, 16, 16, 3), np.uint8)
    image[..., :] = (255, 100, 0)
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(scale_pixels(tf.constant(image), spec))[0, 0, 0]


def test_pixels_are_ordered_and_scaled_as_the_lineage_does():
    np.testing.assert_allclose(_pixels("arcface_torch"), [1, -27.5 / 127.5, -1], rtol=1e-6)
    np.testing.assert_allclose(
        _pixels("insightface_tf"), [-127.5 / 128, -27.5 / 128, 127.5 / 128], rtol=1e-6
    )
    np.testing.assert_allclose(
        _pixels("insightface_tf_vgg"), [131.32, -16.779, -103.939], rtol=1e-5
    )


@pytest.mark.parametrize("lineage", ["insightface_pytorch", "insightface_pytorch_mbf"])
def test_embeddings_have_length_one_where_the_lineage_has_it_so(monkeypatch, lineage):
    spec = small_spec(monkeypatch, lineage)
    lengths = np.linalg.norm(embed(spec, None, images(spec)), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)


def test_gradients_reach_every_trained_weight(monkeypatch):
    for lineage in ("arcface_torch", "arcface_torch_mbf", "insightface_tf_gn"):
        spec = small_spec(monkeypatch, lineage)
        with tf.Graph().as_default():
            shape = [4] + list(spec.image_size) + [3]
            x_ND = embeddings(tf.placeholder(tf.uint8, shape), spec, training=True)
            variables = tf.trainable_variables()
            assert None not in tf.gradients(tf.reduce_sum(x_ND * x_ND), variables)


def test_units_can_be_wrapped(monkeypatch):
    seen = []

    def wrap(unit):
        seen.append(unit)
        return unit

    spec = small_spec(monkeypatch, "arcface_torch")
    with tf.Graph().as_default():
        images_NHWC = tf.placeholder(tf.uint8, [1, 32, 32, 3])
        embeddings(images_NHWC, spec, True, NetOptions(wrap_unit=wrap))
    assert len(seen) == 5


def test_mobilefacenet_refuses_images_that_are_not_square():
    spec = NetSpec("arcface_torch_mbf", image_size=(112, 96))
    with tf.Graph().as_default(), pytest.raises(ValueError, match="--image_size 112,96 is not sq"):
        embeddings(tf.placeholder(tf.uint8, [1, 112, 96, 3]), spec, False)


if __name__ == "__main__":
    golden = {}
    for name, kind in ROWS:
        patch = pytest.MonkeyPatch()
        net = small_spec(patch, name, kind)
        golden[f"{name} {kind}"] = embed(net, None, images(net, 2)).tolist()
        patch.undo()
    with open(GOLDEN_EMBEDDINGS, "w") as stream:
        stream.write(json.dumps(golden).replace("]], ", "]],\n"))
        stream.write("\n")
