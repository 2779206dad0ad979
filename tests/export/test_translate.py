"""Every lineage's graph translates, and an unknown operation is named."""

import numpy as np
import pytest

from export import proof, runtimes
from export.onnx_writer import OnnxForm
from export.pipeline import graph_of
from export.translate import translate
from runtime.tf1 import tf
from tests.export.networks import ROWS, write
from tests.nets.tiny_nets import images


@pytest.mark.parametrize("lineage, block", ROWS)
def test_onnx_runtime_gives_the_checkpoints_embeddings(networks, lineage, block):
    library = pytest.importorskip("onnxruntime")
    network = networks(lineage, block)
    batch = runtimes.input_of(images(network.spec), network.spec, "raw")
    for fold in (False, True):
        content = write(graph_of(network, fold), network, OnnxForm())
        found_ND = runtimes.onnx_runtime(library, content).run(batch)
        difference, _ = proof.differences(found_ND, networks.embeddings(network))
        assert difference <= proof.TOLERANCE, fold


@pytest.mark.parametrize("lineage, block", ROWS)
def test_onnx_checker_accepts_every_lineage(networks, lineage, block):
    onnx = pytest.importorskip("onnx")
    network = networks(lineage, block)
    graph = graph_of(network)
    for opset in (9, 11, 13, 18, 22):
        content = write(graph, network, OnnxForm(opset=opset))
        onnx.checker.check_model(onnx.load_from_string(content), full_check=True)


def test_unknown_operation_is_named():
    with tf.Graph().as_default():
        pixels_NHWC = tf.placeholder(tf.float32, [None, 4, 5, 3])
        features_ND = tf.cos(tf.reduce_mean(pixels_NHWC, [1, 2]), name="wave")
        with pytest.raises(ValueError, match="wave: TensorFlow's operation Cos has no translation"):
            translate(pixels_NHWC, features_ND, {})


def test_prelu_is_one_node(networks):
    ops = [node.op for node in graph_of(networks("arcface_torch")).nodes]
    assert "PRelu" in ops and "Relu" not in ops and "Neg" not in ops


def test_shapes_are_channels_first(networks):
    graph = graph_of(networks("arcface_torch"), fold=False)
    conv = next(node for node in graph.nodes if node.op == "Conv")
    assert graph.shapes[graph.input] == [None, 3, 32, 32]
    assert graph.shapes[conv.output] == [None, 8, 32, 32]


def test_dense_weights_are_permuted_to_channels_first():
    with tf.Graph().as_default():
        image_NHWC = tf.placeholder(tf.float32, [None, 2, 3, 4])
        weights = np.arange(24 * 5, dtype=np.float32).reshape(24, 5)
        features_ND = tf.matmul(tf.reshape(image_NHWC, [-1, 24]), tf.constant(weights))
        gemm = translate(image_NHWC, features_ND, {}).nodes[-1]
    expected = weights.reshape(2, 3, 4, 5).transpose(2, 0, 1, 3).reshape(24, 5).T
    assert np.array_equal(gemm.weights["weight"], expected)
