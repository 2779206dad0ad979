import sys

import pytest

from inference.backends.base import ModelOptions
from inference.model_files import (
    checkpoint_prefix,
    choose_backend,
    is_exported,
    model_kind,
    open_backend,
    read_metadata,
)
from tests.evaluation import tiny_sets
from tests.inference.tiny_models import METADATA, write_manifest, write_onnx

OPTIONS = ModelOptions(threads=1)


def test_a_suffix_is_the_kind(tmp_path):
    (tmp_path / "A.ONNX").write_bytes(b"x")
    assert model_kind(str(tmp_path / "A.ONNX")) == ".onnx"


def test_a_directory_with_saved_model_pb_is_a_saved_model(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    assert model_kind(str(tmp_path)) == "SavedModel" and is_exported(str(tmp_path))


@pytest.mark.parametrize("ending", ["", ".index"])
def test_a_checkpoint_is_its_prefix_or_its_index(ending):
    path = tiny_sets.prefix() + ending
    assert model_kind(path) == "checkpoint" and not is_exported(path)


def test_a_directory_of_checkpoints_stands_for_the_last_one():
    assert model_kind(tiny_sets.checkpoints()) == "checkpoint"
    assert checkpoint_prefix(tiny_sets.checkpoints()) == tiny_sets.prefix(tiny_sets.STEPS[1])


def test_another_directory_is_refused(tmp_path):
    with pytest.raises(ValueError, match="without a saved_model.pb and without checkpoints"):
        model_kind(str(tmp_path))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a.onnx is not there"):
        model_kind(str(tmp_path / "a.onnx"))


def test_a_name_of_no_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="names no checkpoint and no exported model"):
        model_kind(str(tmp_path / "a.ckpt"))


def test_a_backend_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="--backend onx is not known; choose one of"):
        choose_backend("a.onnx", ".onnx", "onx")


def test_a_backend_that_does_not_read_the_file_is_refused():
    with pytest.raises(ValueError, match="does not read a.onnx.*onnxruntime or openvino"):
        choose_backend("a.onnx", ".onnx", "tensorflow")


def test_a_precision_that_the_backend_lacks_is_refused():
    with pytest.raises(ValueError, match="bf16: onnxruntime does not have it.*--backend openvino"):
        choose_backend("a.onnx", ".onnx", "onnxruntime", "bf16")


def test_a_missing_backend_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)  # as Python marks what cannot be imported
    with pytest.raises(ValueError, match="not installed: pip install openvino"):
        choose_backend("a.xml", ".xml", None)


def test_without_the_first_backend_the_next_one_is_taken(monkeypatch):
    pytest.importorskip("openvino", reason="is the next one")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert choose_backend("a.onnx", ".onnx", None) == "openvino"


def test_two_outputs_are_refused_by_name(tmp_path):
    pytest.importorskip("onnx", reason="writes the model")
    path = write_onnx(tmp_path / "a.onnx", outputs=2)
    with pytest.raises(ValueError, match=r"has 2 outputs \(features, flat\)"):
        open_backend(path, None, OPTIONS)


def test_int8_of_a_float_file_is_refused(tmp_path):
    pytest.importorskip("onnx", reason="writes the model")
    path = write_onnx(tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="int8: .* has no quantised operators"):
        open_backend(path, None, ModelOptions(1, "int8"))


def test_metadata_comes_from_the_onnx_file(tmp_path):
    pytest.importorskip("onnx", reason="writes the model")
    assert read_metadata(write_onnx(tmp_path / "a.onnx")) == METADATA


def test_metadata_of_other_formats_comes_from_the_manifest(tmp_path):
    write_manifest(tmp_path / "a.tflite")
    assert read_metadata(str(tmp_path / "a.tflite")) == METADATA


def test_a_foreign_file_has_no_metadata(tmp_path):
    pytest.importorskip("onnx", reason="writes the model")
    assert read_metadata(write_onnx(tmp_path / "a.onnx", metadata=None)) is None
