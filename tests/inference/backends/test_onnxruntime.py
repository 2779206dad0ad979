import numpy as np
import pytest

from inference.backends.base import ModelOptions
from inference.preprocessing import Preprocessing, to_input
from tests.inference.tiny_models import IMAGES, MEAN, SCALE, expected, write_onnx

pytest.importorskip("onnx", reason="writes the model")
pytest.importorskip("onnxruntime", reason="runs the model")

X = to_input(IMAGES, Preprocessing("BGR", (MEAN,), SCALE, ""), True, "float32")


def load(path):
    from inference.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(path, ModelOptions(threads=1))


def test_it_runs_any_number_of_images(tmp_path):
    model = load(write_onnx(tmp_path / "a.onnx"))
    np.testing.assert_allclose(model.run(X[:3]), expected(IMAGES[:3]), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.run(X[:1]), expected(IMAGES[:1]), rtol=1e-4, atol=1e-4)


def test_it_declares_its_input(tmp_path):
    model = load(write_onnx(tmp_path / "a.onnx", batch=4))
    assert (model.input_shape, model.input_dtype) == ((4, 3, 12, 16), "float32")


def test_an_ir_version_that_is_too_new_is_refused_with_the_opset_to_export(tmp_path):
    with pytest.raises(ValueError, match="IR version 99.*--opset 11.*newer onnxruntime"):
        load(write_onnx(tmp_path / "a.onnx", ir=99))


def test_weights_of_a_wrong_shape_are_one_sentence(tmp_path):
    import onnx

    path = write_onnx(tmp_path / "a.onnx")
    model = onnx.load(path)
    model.graph.initializer[0].dims[0] += 1
    onnx.save(model, path)
    with pytest.raises(ValueError, match="^[^\n]*a.onnx cannot be loaded by onnxruntime[^\n]*$"):
        load(path)


def test_a_missing_gpu_is_refused(tmp_path):
    import onnxruntime

    from inference.backends.onnxruntime import OnnxRuntimeBackend

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(ValueError, match="pip install onnxruntime-gpu"):
        OnnxRuntimeBackend(write_onnx(tmp_path / "a.onnx"), ModelOptions(1, device="gpu"))
