import numpy as np
import pytest

from inference.backends.base import ModelOptions
from inference.preprocessing import Preprocessing, to_input
from tests.inference.tiny_models import IMAGES, MEAN, SCALE, expected, write_onnx

pytest.importorskip("onnx", reason="writes the model")
pytest.importorskip("openvino", reason="runs the model")

X = to_input(IMAGES, Preprocessing("BGR", (MEAN,), SCALE, ""), True, "float32")


def load(path, **options):
    from inference.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(path, ModelOptions(threads=1, **options))


def test_it_runs_any_number_of_images(tmp_path):
    model = load(write_onnx(tmp_path / "a.onnx"))
    np.testing.assert_allclose(model.run(X[:3]), expected(IMAGES[:3]), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(model.run(X[:1]), expected(IMAGES[:1]), rtol=1e-3, atol=1e-3)


def test_a_result_is_not_changed_by_the_next_run(tmp_path):
    model = load(write_onnx(tmp_path / "a.onnx"))
    first = model.run(X[:1])
    kept = first.copy()
    model.run(X[1:2])
    np.testing.assert_array_equal(first, kept)


def test_it_declares_its_input(tmp_path):
    model = load(write_onnx(tmp_path / "a.onnx"))
    assert (model.input_shape, model.input_dtype) == ((None, 3, 12, 16), "float32")


def test_bf16_runs_or_is_refused_by_name(tmp_path):
    import openvino

    path = write_onnx(tmp_path / "a.onnx")
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        found = load(path, precision="bf16").run(X)
        np.testing.assert_allclose(found, expected(IMAGES), rtol=0.05, atol=0.05)
    else:
        with pytest.raises(ValueError, match="no bfloat16 instructions.*--precision fp32"):
            load(path, precision="bf16")


def test_an_xml_without_its_weights_names_them(tmp_path):
    (tmp_path / "a.xml").write_text("<net/>")
    with pytest.raises(ValueError, match=r"needs .*a\.bin, which has the weights"):
        load(str(tmp_path / "a.xml"))


def test_an_xml_that_ends_early_is_one_sentence(tmp_path):
    (tmp_path / "a.xml").write_text("<net")
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="is not whole XML"):
        load(str(tmp_path / "a.xml"))
