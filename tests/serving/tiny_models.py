"""A face model of a few thousand weights as an ONNX file, and photos that it separates."""

import functools
import os

import cv2
import numpy as np
import pytest

from data.eval_data_reader import write_pairs
from data.synthetic import draw_person

SIDE, DIMENSIONS, CELL = 112, 24, 14
SEED = 5


def write_model(path, seed=0):
    """Raw RGB [N, 3, 112, 112] -> [N, 24]: a projection of an 8 x 8 picture without its mean."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    weights = _weights(seed)
    constants = {
        "mean": np.array(127.5, np.float32),
        "factor": np.array(1 / 127.5, np.float32),
        "weights": weights.reshape(-1, DIMENSIONS).astype(np.float32),
        "bias": np.full(DIMENSIONS, 0.01, np.float32),
    }
    nodes = [
        helper.make_node("Sub", ["data", "mean"], ["centred"], name="Sub_input"),
        helper.make_node("Mul", ["centred", "factor"], ["scaled"], name="Mul_input"),
        helper.make_node(
            "AveragePool", ["scaled"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]
        ),
        helper.make_node("Flatten", ["cells"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["features"]),
    ]
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tiny",
        [tensor("data", onnx.TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [tensor("features", onnx.TensorProto.FLOAT, ["N", DIMENSIONS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6, producer_name="tests"
    )
    onnx.save(model, str(path))
    return str(path)


def write_graph(path):
    """The same network as a frozen graph with a manifest, for a TensorFlow without ONNX Runtime."""
    from runtime.tf1 import tf
    from tests.inference.tiny_models import METADATA, write_manifest

    weights = _weights(0).transpose(1, 0, 2).reshape(-1, DIMENSIONS).astype(np.float32)
    with tf.Graph().as_default() as graph:
        image = tf.placeholder(tf.float32, [None, SIDE, SIDE, 3], "image")
        cells = tf.nn.avg_pool2d(image, CELL, CELL, "VALID")
        flat = tf.reshape(cells, [-1, len(weights)])
        tf.add(tf.matmul(flat, tf.constant(weights)), 0.01, name="features")
    path.write_bytes(graph.as_graph_def().SerializeToString())
    write_manifest(
        path,
        METADATA._replace(
            embedding_size=DIMENSIONS,
            image_size=[SIDE, SIDE],
            channel_order="RGB",
            mean=[127.5],
            scale=127.5,
        ),
    )
    return str(path)


def _weights(seed):
    weights = np.random.RandomState(seed).randn(3, (SIDE // CELL) ** 2, DIMENSIONS)
    weights -= weights.mean(axis=1, keepdims=True)  # a gray picture has no direction
    weights[0, 0] += 0.01
    return weights


def face(person, shot=0):
    """JPEG bytes of a drawn person's 112 x 112 crop; shot 0 to 3."""
    return _shots(person)[shot]


@functools.lru_cache(maxsize=None)
def _shots(person):
    return draw_person((SEED, person, ("frontal",) * 4, SIDE))


def write_people(directory, people, shots=2):
    """<directory>/<name>/<shot>.jpg for {name: person}; returns the directory as text."""
    for name, person in people.items():
        folder = os.path.join(str(directory), name)
        os.makedirs(folder)
        for shot in range(shots):
            with open(os.path.join(folder, f"{shot}.jpg"), "wb") as stream:
                stream.write(face(person, shot))
    return str(directory)


def write_calibration_set(path, people=12):
    """A .bin with a genuine and an impostor pair for each person."""
    encoded, issame = [], []
    for person in range(people):
        encoded += [face(100 + person, 0), face(100 + person, 1)]
        encoded += [face(100 + person, 2), face(100 + (person + 1) % people, 3)]
        issame += [True, False]
    write_pairs(str(path), encoded, issame)
    return str(path)


def photo(persons, side=200):
    """JPEG bytes of a photo with the faces of some people in a row, each `side` pixels."""
    tiles = []
    for person in persons:
        crop = cv2.imdecode(np.frombuffer(face(person), np.uint8), cv2.IMREAD_COLOR)
        tiles.append(cv2.resize(crop, (side, side), interpolation=cv2.INTER_CUBIC))
    canvas = cv2.copyMakeBorder(
        np.hstack(tiles), 60, 60, 60, 60, cv2.BORDER_CONSTANT, value=(120, 130, 125)
    )
    return cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
