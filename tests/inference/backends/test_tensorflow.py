import numpy as np
import pytest

from inference.backends.base import ModelOptions
from inference.backends.tensorflow import TensorFlowBackend
from runtime.tf1 import tf
from tests.inference.tiny_models import IMAGES, MEAN, SCALE, build_graph, expected

X = ((IMAGES[..., ::-1].astype(np.float32) - MEAN) / SCALE).astype(np.float32)


def load(path):
    return TensorFlowBackend(str(path), ModelOptions(threads=1))


def write_graph(path):
    with tf.Graph().as_default() as graph:
        build_graph()
        path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def write_saved_model(path):
    with tf.Graph().as_default(), tf.Session() as session:
        image, features = build_graph()
        tf.saved_model.simple_save(session, str(path), {"image": image}, {"features": features})
    return path


@pytest.mark.parametrize("write", [write_graph, write_saved_model])
def test_it_computes_what_numpy_computes(tmp_path, write):
    model = load(write(tmp_path / "model.pb"))
    np.testing.assert_allclose(model.run(X), expected(IMAGES), rtol=1e-4, atol=1e-4)
    model.close()


def test_it_declares_its_input(tmp_path):
    model = load(write_graph(tmp_path / "model.pb"))
    assert (model.input_shape, model.input_dtype) == ((None, 12, 16, 3), "float32")


def test_a_damaged_graph_is_one_sentence(tmp_path):
    (tmp_path / "a.pb").write_bytes(b"\xff\xff")
    with pytest.raises(ValueError, match="^[^\n]*a.pb cannot be loaded by TensorFlow[^\n]*$"):
        load(tmp_path / "a.pb")


def test_a_damaged_saved_model_is_one_sentence(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff")
    with pytest.raises(ValueError, match="^[^\n]*cannot be loaded by TensorFlow[^\n]*$"):
        load(tmp_path)
