"""The graph that is exported is the checkpoint's, and its weights are those of the checkpoint."""

import numpy as np
import pytest

from checkpoint.format import read_record
from checkpoint.reader import AVERAGE
from checkpoint.writer import save_arrays
from export.inference_graph import build, digest, embed, read_network
from inference.backends.base import ModelOptions
from inference.backends.checkpoint import CheckpointBackend
from nets.build import variable_shapes
from runtime.tf1 import tf
from tests.export.networks import write_checkpoint
from tests.nets.tiny_nets import images


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run"))


def test_embeddings_are_those_of_infers_checkpoint_backend(prefix):
    network = read_network(prefix)
    images_NHWC = images(network.spec)
    expected_ND = CheckpointBackend(prefix, ModelOptions()).run(images_NHWC)
    assert np.allclose(embed(network, images_NHWC), expected_ND, rtol=0, atol=1e-5)


@pytest.mark.parametrize("lineage", ["arcface_torch", "arcface_torch_mbf", "insightface_tf_vgg"])
def test_weights_are_those_of_the_network_in_its_order(networks, lineage):
    network = networks(lineage)
    assert list(network.graph.shapes.items()) == list(variable_shapes(network.spec).items())


def test_frozen_graph_has_no_variables(networks):
    with tf.Graph().as_default() as graph:
        build(networks("arcface_torch"), frozen=True)
        assert "VarHandleOp" not in {op.type for op in graph.get_operations()}


def test_moving_averages_are_exported_unless_the_last_weights_are_chosen(prefix, tmp_path):
    arrays = read_network(prefix).arrays
    averages = {name + AVERAGE: array + 1 for name, array in arrays.items()}
    other = str(tmp_path / "InsightFace_iter_8.ckpt")
    save_arrays(other, dict(arrays, **averages), read_record(prefix))
    name = next(iter(arrays))
    assert np.array_equal(read_network(other).arrays[name], arrays[name] + 1)
    assert np.array_equal(read_network(other, averages=False).arrays[name], arrays[name])


def test_digest_depends_on_values_and_not_on_order():
    arrays = {"a": np.zeros([2, 3], np.float32), "b": np.ones([4], np.float32)}
    assert digest(arrays) == digest(dict(reversed(list(arrays.items()))))
    assert digest(arrays) != digest(dict(arrays, b=arrays["b"] + 1))
    assert digest(arrays) != digest(dict(arrays, a=arrays["a"].reshape(3, 2)))
