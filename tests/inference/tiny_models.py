"""Model files of one matrix: embedding = input @ weights, which NumPy computes too."""

import json

import numpy as np

from checkpoint.model_metadata import KEY, ModelMetadata
from runtime.tf1 import tf

HEIGHT, WIDTH, SIZE = 12, 16, 5  # of the images, and of an embedding
MEAN, SCALE = 100.0, 64.0
IMAGES = np.random.RandomState(1).randint(0, 256, (7, HEIGHT, WIDTH, 3)).astype(np.uint8)
WEIGHTS = (np.random.RandomState(2).randn(3 * HEIGHT * WIDTH, SIZE) / 24).astype(np.float32)
METADATA = ModelMetadata(
    lineage="insightface_pytorch",
    net="ir",
    net_depth=50,
    width=1.0,
    embedding_size=SIZE,
    image_size=[HEIGHT, WIDTH],
    channel_order="BGR",
    mean=[MEAN],
    scale=SCALE,
    input_form="scaled",
    normalized=False,
    checkpoint_sha256="0" * 64,
    step=9,
    dataset="tiny",
    accuracy={},
)


def expected(images_NHWC, order="BGR", mean=MEAN, scale=SCALE):
    """The embeddings of a model that takes NCHW floats."""
    pixels = images_NHWC[..., ::-1] if order == "BGR" else images_NHWC
    x_NCHW = (pixels.astype(np.float32).transpose(0, 3, 1, 2) - mean) / scale
    return x_NCHW.reshape(len(images_NHWC), -1) @ WEIGHTS


def write_onnx(
    path, metadata=METADATA, batch="N", size=(HEIGHT, WIDTH), names=(), ir=6, outputs=1, dtype=1
):
    """An .onnx of Flatten and MatMul. names: of identities in front."""
    from onnx import helper, numpy_helper, save

    weights = np.resize(WEIGHTS, (3 * size[0] * size[1], SIZE))
    nodes, last = [], "image"
    for name in names:
        nodes.append(helper.make_node("Identity", [last], [name], name=name))
        last = name
    if dtype != 1:
        nodes.append(helper.make_node("Cast", [last], ["floats"], name="Cast", to=1))
        last = "floats"
    nodes.append(helper.make_node("Flatten", [last], ["flat"], name="Flatten", axis=1))
    nodes.append(helper.make_node("MatMul", ["flat", "weights"], ["features"], name="dense"))
    found = [helper.make_tensor_value_info("features", 1, [batch, SIZE])]
    if outputs == 2:
        found.append(helper.make_tensor_value_info("flat", 1, [batch, len(weights)]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", dtype, [batch, 3] + list(size))],
        found,
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=ir)
    if metadata is not None:
        helper.set_model_props(model, {KEY: metadata.to_json()})
    save(model, str(path))
    return str(path)


def write_manifest(path, metadata=METADATA):
    """<path>.manifest.json, as every format but ONNX needs."""
    with open(f"{path}.manifest.json", "w") as stream:
        json.dump({KEY: metadata._asdict()}, stream)


def build_graph(batch=None):
    """(images NHWC, embeddings) of the same matrix, in the default graph."""
    image = tf.placeholder(tf.float32, [batch, HEIGHT, WIDTH, 3], "image")
    flat = tf.reshape(tf.transpose(image, [0, 3, 1, 2]), [-1, len(WEIGHTS)])
    return image, tf.matmul(flat, tf.constant(WEIGHTS), name="features")
