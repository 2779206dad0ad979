"""export_model.py from a checkpoint to a file in place; a mistake is one sentence."""

import hashlib
import json
import os

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


def test_manifest_is_insightfaces(checkpoint, tmp_path):
    export(checkpoint, tmp_path / "m.onnx")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    task = manifest["tasks"]["recognition"]
    digest = hashlib.sha256((tmp_path / "m.onnx").read_bytes()).hexdigest()
    assert manifest["manifest_version"] == 2 and task["preprocessing"] == "embedded"
    assert (task["sha256"], task["input_size"], task["embedding_dimension"]) == (
        digest,
        [32, 32],
        24,
    )


def test_manifest_of_another_file_stays(checkpoint, tmp_path):
    export(checkpoint, tmp_path / "a.onnx")
    before = (tmp_path / "manifest.json").read_text()
    export(checkpoint, tmp_path / "b.onnx")
    assert (tmp_path / "manifest.json").read_text() == before
    assert (tmp_path / "b.onnx.manifest.json").exists()


def test_model_card_has_the_recipe_and_the_licence_to_fill_in(checkpoint, tmp_path):
    export(checkpoint, tmp_path / "m.onnx")
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert "| loss | arcface |" in card and "License of the weights: TODO" in card


def test_accuracy_comes_from_the_runs_log(tmp_path):
    prefix = write_checkpoint(tmp_path)
    (tmp_path / "logs").mkdir()
    line = {"kind": "validation", "step": 7, "set": "lfw", "accuracy_flip": 0.75}
    line["accuracy_flip_interval"] = [0.7, 0.8]
    (tmp_path / "logs" / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    export(prefix, tmp_path / "m.onnx")
    assert read_manifest(str(tmp_path / "m.onnx")).accuracy == {"lfw": 0.75}
    assert "| lfw | 0.7500 | 0.7000 - 0.8000 |" in (tmp_path / "MODEL_CARD.md").read_text()


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


def test_no_ema_exports_the_last_weights(tmp_path):
    from checkpoint.format import read_record
    from checkpoint.reader import AVERAGE, variable_arrays
    from checkpoint.writer import save_arrays
    from export.inference_graph import read_network
    from nets.build import variable_shapes

    prefix = write_checkpoint(tmp_path)
    record = read_record(prefix)
    network = read_network(prefix)
    arrays = variable_arrays(prefix, list(variable_shapes(network.spec)))
    arrays.update({name + AVERAGE: array + 1 for name, array in arrays.items()})
    save_arrays(prefix, arrays, record)
    name = next(iter(network.arrays))
    assert np.array_equal(read_network(prefix).arrays[name], network.arrays[name] + 1)
    last = read_network(prefix, averages=False).arrays[name]
    assert np.array_equal(last, network.arrays[name])


MISTAKES = {
    "no checkpoint": (["--ckpt_file", "none.ckpt"], "names no checkpoint"),
    "another project's file": (["--ckpt_file", "m.pth"], "convert_weights.py"),
    "mindir without MindSpore": (["--file_format", "mindir"], "needs MindSpore"),
}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_mistake_is_one_sentence_and_writes_nothing(checkpoint, tmp_path, mistake):
    words, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        export(checkpoint, tmp_path / "m", *words)
    assert message in str(error.value)
    assert not os.listdir(str(tmp_path))


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
    assert not (tmp_path / "m.onnx").exists()


def test_the_script_exits_with_2(tmp_path):
    result = run_script("none.ckpt", str(tmp_path / "m.onnx"), "16")
    assert result.returncode == 2 and "none.ckpt names no checkpoint" in result.stderr


@pytest.mark.skipif(not (TF2 and os.path.exists(TF1_PYTHON)), reason="needs both TensorFlows")
def test_both_tensorflows_write_the_same_bytes(checkpoint, tmp_path):
    export(checkpoint, tmp_path / "two.onnx")
    result = run_script(checkpoint, str(tmp_path / "one.onnx"), python=TF1_PYTHON)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
