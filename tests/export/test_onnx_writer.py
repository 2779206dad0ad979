"""Input forms, PReLU forms, names: the file that other projects' readers expect."""

import cv2
import numpy as np
import pytest

from export import proof, runtimes
from export.onnx_writer import OnnxForm
from tests.export.networks import onnx_bytes
from tests.nets.tiny_nets import images

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def loaded(networks, lineage="arcface_torch", **form):
    network = networks(lineage)
    return network, onnx.load_from_string(onnx_bytes(network, OnnxForm(**form)))


def difference(networks, network, content, batch):
    runtime = runtimes.onnx_runtime(onnxruntime, content)
    return proof.differences(runtime.run(batch), networks.embeddings(network))[0]


@pytest.mark.parametrize("form", ["scaled", "raw", "uint8"])
@pytest.mark.parametrize("lineage", ["arcface_torch", "insightface_tf", "insightface_tf_vgg"])
def test_each_input_form_gives_the_same_embeddings(networks, lineage, form):
    network = networks(lineage)
    images_NHWC = images(network.spec)
    batch = runtimes.input_of(images_NHWC, network.spec, form)
    content = onnx_bytes(network, OnnxForm(input_form=form))
    assert difference(networks, network, content, batch) <= proof.TOLERANCE


def arcface_onnx_mean_and_scale(model):
    """InsightFace's ArcFaceONNX: by the names of the first eight nodes, 0 and 1 or 127.5 twice."""
    names = [node.name for node in model.graph.node[:8]]
    subtracts = any(name.startswith(("Sub", "_minus")) for name in names)
    multiplies = any(name.startswith(("Mul", "_mul")) for name in names)
    return (0.0, 1.0) if subtracts and multiplies else (127.5, 127.5)


@pytest.mark.parametrize(
    "lineage, form",
    [
        ("arcface_torch", "raw"),  # RGB, 127.5
        ("arcface_torch", "scaled"),
        ("insightface_tf", "raw"),  # BGR, 128
        ("insightface_pytorch", "raw"),  # BGR, 127.5
        ("insightface_mxnet", "raw"),  # RGB, 128
        ("insightface_tf_resnet", "raw"),  # a divisor of 1
    ],
)
def test_insightfaces_reader_feeds_the_file_as_the_checkpoint_was_fed(networks, lineage, form):
    network, model = loaded(networks, lineage, input_form=form)
    mean, scale = arcface_onnx_mean_and_scale(model)
    images_NHWC = images(network.spec)
    size = network.spec.image_size[::-1]
    bgr = [np.ascontiguousarray(image[..., ::-1]) for image in images_NHWC]
    batch = cv2.dnn.blobFromImages(bgr, 1.0 / scale, size, (mean,) * 3, swapRB=True)
    content = model.SerializeToString()
    assert difference(networks, network, content, batch) <= proof.TOLERANCE
    assert len(model.graph.output) == 1


def test_scaled_input_has_no_nodes_in_front(networks):
    _, model = loaded(networks, input_form="scaled")
    assert model.graph.node[0].op_type == "Conv"


def test_prelu_slopes_have_a_dimension_for_height_and_width(networks):
    _, model = loaded(networks)
    slope = next(node.input[1] for node in model.graph.node if node.op_type == "PRelu")
    dims = next(list(w.dims) for w in model.graph.initializer if w.name == slope)
    assert dims == [8, 1, 1]


def test_decomposed_prelu_gives_the_same_embeddings(networks):
    network, model = loaded(networks, prelu="decomposed")
    images_NHWC = images(network.spec)
    batch = runtimes.input_of(images_NHWC, network.spec, "raw")
    assert "PRelu" not in {node.op_type for node in model.graph.node}
    assert difference(networks, network, model.SerializeToString(), batch) <= proof.TOLERANCE


def test_names_are_those_asked_for(networks):
    _, model = loaded(networks, input_name="data", output_name="output1")
    assert [model.graph.input[0].name, model.graph.output[0].name] == ["data", "output1"]


@pytest.mark.parametrize("batch_size, expected", [(None, "batch"), (4, 4)])
def test_batch_is_dynamic_unless_it_is_given(networks, batch_size, expected):
    _, model = loaded(networks, batch_size=batch_size)
    dimension = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert (dimension.dim_param or dimension.dim_value) == expected


def test_default_is_opset_11_and_ir_6(networks):
    _, model = loaded(networks)
    assert (model.opset_import[0].version, model.ir_version) == (11, 6)


def test_every_weight_is_of_four_bytes_or_more(networks):
    _, model = loaded(networks)  # arcface_torch's acceptance test refuses smaller ones
    assert {w.data_type for w in model.graph.initializer} <= {1, 7}
