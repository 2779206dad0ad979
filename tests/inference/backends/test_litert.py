import numpy as np
import pytest

from inference.backends.base import ModelOptions
from inference.backends.litert import LiteRtBackend
from runtime.tf1 import tf
from tests.inference.tiny_models import IMAGES, MEAN, SCALE, build_graph, expected

X = ((IMAGES[..., ::-1].astype(np.float32) - MEAN) / SCALE).astype(np.float32)


def write_tflite(path):
    with tf.Graph().as_default(), tf.Session() as session:
        image, features = build_graph(batch=1)
        converter = tf.lite.TFLiteConverter.from_session(session, [image], [features])
        path.write_bytes(converter.convert())
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = write_tflite(tmp_path_factory.mktemp("tflite") / "a.tflite")
    return LiteRtBackend(path, ModelOptions(threads=1))


def test_it_computes_what_numpy_computes(model):
    np.testing.assert_allclose(model.run(X[:1]), expected(IMAGES[:1]), rtol=1e-4, atol=1e-4)


def test_it_declares_its_input(model):
    assert model.input_shape[1:] == (12, 16, 3) and model.input_dtype == "float32"


def test_a_damaged_file_is_one_sentence(tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"\xff" * 64)
    with pytest.raises(ValueError, match="^[^\n]*a.tflite cannot be loaded by LiteRT[^\n]*$"):
        LiteRtBackend(str(tmp_path / "a.tflite"), ModelOptions(threads=1))
