"""The fastest backend is measured once for a model, and only where there is a choice."""

import importlib.util
import json
import logging
import os

import pytest

from inference import fastest_backend as module
from inference.backends.base import ModelOptions
from inference.fastest_backend import fastest_backend, measure, memory_path
from tests.inference import tiny_models

OPTIONS = ModelOptions(threads=1)
pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "openvino")),
    reason="needs two backends",
)


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "SMALLEST", 1)
    return tiny_models.write_onnx(tmp_path / "a.onnx")


def test_every_installed_backend_is_measured(model):
    rates = measure(model, ["onnxruntime", "openvino"], OPTIONS)
    assert set(rates) == {"onnxruntime", "openvino"} and min(rates.values()) > 0


def test_answer_is_remembered(model, caplog):
    caplog.set_level(logging.INFO)
    first = fastest_backend(model, OPTIONS)
    assert "is used for this model from now on" in caplog.text
    caplog.clear()
    assert fastest_backend(model, OPTIONS) == first and caplog.text == ""


def test_remembered_answer_belongs_to_the_models_bytes(model, tmp_path):
    fastest_backend(model, OPTIONS)
    tiny_models.write_onnx(tmp_path / "a.onnx", names=("other",))
    fastest_backend(model, OPTIONS)
    with open(memory_path()) as stream:
        assert len(json.load(stream)) == 2


def test_damaged_memory_is_written_again(model):
    os.makedirs(os.path.dirname(memory_path()))
    with open(memory_path(), "w") as stream:
        stream.write("{")
    fastest_backend(model, OPTIONS)
    with open(memory_path()) as stream:
        assert len(json.load(stream)) == 1


def test_small_model_takes_the_first_installed(model, monkeypatch):
    monkeypatch.setattr(module, "SMALLEST", 1 << 30)
    assert fastest_backend(model, OPTIONS) == "onnxruntime"
    assert not os.path.exists(memory_path())


def test_directory_that_cannot_be_written_takes_the_first_installed(model, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file")
    assert fastest_backend(model, OPTIONS) == "onnxruntime"


def test_single_backend_is_not_measured(model):
    assert fastest_backend(model, OPTIONS._replace(precision="bf16")) == "openvino"
    assert not os.path.exists(memory_path())


def test_file_that_no_backend_loads_is_not_measured(tmp_path, model):
    with open(model, "r+b") as stream:
        stream.truncate(os.path.getsize(model) // 2)
    assert measure(model, ["onnxruntime", "openvino"], OPTIONS) == {}
    assert fastest_backend(model, OPTIONS) == "onnxruntime"
