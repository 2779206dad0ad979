"""export_model.py from a checkpoint to a file in place; a mistake is one sentence."""

import contextlib
import json
import os
import resource
import sys

import cv2
import numpy as np
import pytest

import export_model
from checkpoint.model_metadata import KEY, ModelMetadata, read_manifest
from runtime.tf1 import TF2
from tests.conftest import draw
from tests.export.networks import ROOT, run_script, write_checkpoint

TF1_PYTHON = os.path.join(ROOT, ".venv-tf1", "bin", "python")


def export(checkpoint, path, *words):
    return export_model.main(
        ["--ckpt_file", checkpoint, "--file_name", str(path), "--proof_images", "4"] + list(words)
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run"))


def test_onnx_describes_itself(checkpoint, tmp_path):
    onnx = pytest.importorskip("onnx")
    assert export(checkpoint, tmp_path / "m.onnx") == 0
    props = {prop.key: prop.value for prop in onnx.load(str(tmp_path / "m.onnx")).metadata_props}
    metadata = ModelMetadata.from_json(props[KEY])
    assert metadata == read_manifest(str(tmp_path / "m.onnx"))
    assert (metadata.lineage, metadata.step, metadata.input_form) == ("arcface_torch", 7, "raw")
    assert metadata.dataset == "train.rec"


def test_ckpt_ms_needs_no_mindspore(checkpoint, tmp_path):
    assert export(checkpoint, tmp_path / "m", "--file_format", "ckpt_ms") == 0
    assert (tmp_path / "m.ckpt").exists()


def test_om_without_atc_leaves_the_onnx_and_the_command(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ValueError, match="atc is not on the PATH.*--input_shape=image:16,3,32,32"):
        export(checkpoint, tmp_path / "m", "--file_format", "om", "--batch_size", "16")
    assert (tmp_path / "m.onnx").exists() and not (tmp_path / "m.om").exists()


@pytest.mark.skipif(not TF2, reason="the quantizer needs a newer onnxruntime")
def test_int8_keeps_the_metadata(checkpoint, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    for shot in range(8):
        (tmp_path / f"{shot}.jpg").write_bytes(draw(shot, 0))
    export(checkpoint, tmp_path / "m", "--int8", "--calibration", str(tmp_path))
    model = onnx.load(str(tmp_path / "m.onnx"))
    assert KEY in {prop.key for prop in model.metadata_props}
    assert "QuantizeLinear" in {node.op_type for node in model.graph.node}


MISTAKES = {
    "no checkpoint": (["--ckpt_file", "none.ckpt"], "names no checkpoint"),
    "another project's file": (["--ckpt_file", "m.pth"], "convert_weights.py"),
    "a training head": (["--output_name", "logits"], "is a training head"),
    "an opset out of range": (["--opset", "23"], "--opset 23 is out of range"),
    "int8 without images": (["--int8"], "--int8 needs --calibration"),
    "mindir without MindSpore": (
        ["--file_format", "mindir", "--mindspore_python", sys.executable],
        "has no MindSpore",
    ),
    "AIR": (["--file_format", "AIR"], "AIR on Ascend hardware only"),
    "a chip that atc does not know": (
        ["--file_format", "om", "--soc_version", "310P3"],
        "is no Ascend chip",
    ),
}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_mistake_is_one_sentence_and_writes_nothing(checkpoint, tmp_path, mistake):
    words, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        export(checkpoint, tmp_path / "m", *words)
    assert message in str(error.value)
    assert not os.listdir(str(tmp_path))


def test_another_lineage_is_refused_where_the_format_has_names_for_one(tmp_path):
    prefix = write_checkpoint(tmp_path / "run", "insightface_tf_vgg", 16)
    with pytest.raises(ValueError, match="which insightface_tf_vgg is not"):
        export(prefix, tmp_path / "m", "--file_format", "ckpt_ms")
    assert os.listdir(str(tmp_path)) == ["run"]


def test_an_existing_target_is_refused_and_stays(checkpoint, tmp_path):
    (tmp_path / "m.onnx").write_text("old")
    with pytest.raises(ValueError, match="m.onnx exists; pass --overwrite"):
        export(checkpoint, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "old"
    assert os.listdir(str(tmp_path)) == ["m.onnx"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_directory_that_is_not_writable_is_refused(checkpoint, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="is not writable; pass another --file_name"):
        export(checkpoint, tmp_path / "m.onnx")
    tmp_path.chmod(0o700)


def test_a_checkpoint_without_a_record_is_refused(tmp_path):
    prefix = write_checkpoint(tmp_path)
    os.remove(f"{prefix}.json")
    with pytest.raises(ValueError, match="put the .json back|json is missing"):
        export(prefix, tmp_path / "m.onnx")


def test_a_record_of_another_network_is_refused(tmp_path):
    prefix = write_checkpoint(tmp_path)
    with open(f"{prefix}.json") as stream:
        record = json.load(stream)
    record["net"]["embedding_size"] = 16
    with open(f"{prefix}.json", "w") as stream:
        json.dump(record, stream)
    with pytest.raises(ValueError, match="does not hold .*24 instead of"):
        export(prefix, tmp_path / "m.onnx")


def test_calibration_images_of_another_size_are_refused(checkpoint, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 48, 3), np.uint8))
    with pytest.raises(ValueError, match="its images are 48 x 48"):
        export(checkpoint, tmp_path / "m.onnx", "--int8", "--calibration", str(tmp_path))
    assert os.listdir(str(tmp_path)) == ["a.png"]


@contextlib.contextmanager
def largest_file(size):
    """No file of this process may grow beyond `size` bytes, as on a disk that is full midway."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("file_format", ["onnx", "pb", "savedmodel", "ckpt_ms"])
def test_a_disk_that_fills_midway_leaves_nothing(checkpoint, tmp_path, file_format):
    with largest_file(100000), pytest.raises((OSError, ValueError)) as error:
        export(checkpoint, tmp_path / "m", "--file_format", file_format)
    assert str(tmp_path / "m") in str(error.value)
    assert not os.listdir(str(tmp_path))


def test_the_script_exits_with_2(tmp_path):
    result = run_script("none.ckpt", str(tmp_path / "m.onnx"), "16")
    assert result.returncode == 2 and "none.ckpt names no checkpoint" in result.stderr


@pytest.mark.skipif(not (TF2 and os.path.exists(TF1_PYTHON)), reason="needs both TensorFlows")
def test_both_tensorflows_write_the_same_bytes(checkpoint, tmp_path):
    export(checkpoint, tmp_path / "two.onnx")
    result = run_script(checkpoint, str(tmp_path / "one.onnx"), python=TF1_PYTHON)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
