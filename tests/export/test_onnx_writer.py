"""Input forms, PReLU forms, names: the file that other projects' readers expect."""

import cv2
import numpy as np
import pytest

from export import inference_graph, proof, runtimes
from export.onnx_writer import OnnxForm
from tests.export.networks import narrow, onnx_bytes
from tests.nets.tiny_nets import images

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def loaded(monkeypatch, lineage="arcface_torch", **form):
    network = narrow(monkeypatch, lineage)
    return network, onnx.load_from_string(onnx_bytes(network, OnnxForm(**form)))


def difference(network, content, batch, images_NHWC):
    runtime = runtimes.onnx_runtime(onnxruntime, content)
    expected_ND = inference_graph.embed(network, images_NHWC)
    return proof.differences(runtime.run(batch), expected_ND)[0]


@pytest.mark.parametrize("form", ["scaled", "raw", "uint8"])
@pytest.mark.parametrize("lineage", ["arcface_torch", "insightface_tf", "insightface_tf_vgg"])
def test_each_input_form_gives_the_same_embeddings(monkeypatch, lineage, form):
    network = narrow(monkeypatch, lineage)
    images_NHWC = images(network.spec)
    batch = runtimes.input_of(images_NHWC, network.spec, form)
    content = onnx_bytes(network, OnnxForm(input_form=form))
    assert difference(network, content, batch, images_NHWC) <= proof.TOLERANCE


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
def test_insightfaces_reader_feeds_the_file_as_the_checkpoint_was_fed(monkeypatch, lineage, form):
    network, model = loaded(monkeypatch, lineage, input_form=form)
    mean, scale = arcface_onnx_mean_and_scale(model)
    images_NHWC = images(network.spec)
    size = network.spec.image_size[::-1]
    bgr = [np.ascontiguousarray(image[..., ::-1]) for image in images_NHWC]
    batch = cv2.dnn.blobFromImages(bgr, 1.0 / scale, size, (mean,) * 3, swapRB=True)
    content = model.SerializeToString()
    assert difference(network, content, batch, images_NHWC) <= proof.TOLERANCE
    assert len(model.graph.output) == 1


def test_scaled_input_has_no_nodes_in_front(monkeypatch):
    _, model = loaded(monkeypatch, input_form="scaled")
    assert model.graph.node[0].op_type == "Conv"


def test_prelu_slopes_have_a_dimension_for_height_and_width(monkeypatch):
    _, model = loaded(monkeypatch)
    slope = next(node.input[1] for node in model.graph.node if node.op_type == "PRelu")
    dims = next(list(w.dims) for w in model.graph.initializer if w.name == slope)
    assert dims == [8, 1, 1]


def test_decomposed_prelu_gives_the_same_embeddings(monkeypatch):
    network, model = loaded(monkeypatch, prelu="decomposed")
    images_NHWC = images(network.spec)
    batch = runtimes.input_of(images_NHWC, network.spec, "raw")
    assert "PRelu" not in {node.op_type for node in model.graph.node}
    assert difference(network, model.SerializeToString(), batch, images_NHWC) <= proof.TOLERANCE


def test_names_are_those_asked_for(monkeypatch):
    _, model = loaded(monkeypatch, input_name="data", output_name="output1")
    assert [model.graph.input[0].name, model.graph.output[0].name] == ["data", "output1"]


@pytest.mark.parametrize("batch_size, expected", [(None, "batch"), (4, 4)])
def test_batch_is_dynamic_unless_it_is_given(monkeypatch, batch_size, expected):
    _, model = loaded(monkeypatch, batch_size=batch_size)
    dimension = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert (dimension.dim_param or dimension.dim_value) == expected


def test_default_is_opset_11_and_ir_6(monkeypatch):
    _, model = loaded(monkeypatch)
    assert (model.opset_import[0].version, model.ir_version) == (11, 6)


def test_every_weight_is_of_four_bytes_or_more(monkeypatch):
    _, model = loaded(monkeypatch)  # arcface_torch's acceptance test refuses smaller ones
    assert {w.data_type for w in model.graph.initializer} <= {1, 7}
