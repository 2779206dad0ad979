"""manifest.json is InsightFace's, the model card has what a reader needs."""

import hashlib
import json

import numpy as np
import pytest

from checkpoint.model_metadata import KEY, ModelMetadata, read_manifest
from export.inference_graph import Network
from export.manifest import Written, manifest, metadata_of, model_card, write_manifests
from export.proof import Proof
from nets.lineages import NetSpec

RECORD = {
    "step": 7,
    "dataset": {"source": "train.rec", "images": 9},
    "training": {"loss": "arcface"},
}
PROOFS = [Proof("onnxruntime 1", 4, [1, 2], 2e-6, 0.5)]


def network_of(directory, lineage="arcface_torch"):
    spec = NetSpec(lineage, 50, "ir", 0.125, 24, (32, 48))
    prefix = str(directory / "ckpt" / "InsightFace_iter_7.ckpt")
    return Network(prefix, spec, {"w": np.zeros([3], np.float32)}, RECORD, False)


def written(directory, name="m.onnx", content=b"model"):
    path = directory / name
    path.write_bytes(content)
    return Written(str(path), "onnx", "fp32", PROOFS)


def test_manifest_is_insightfaces(tmp_path):
    network = network_of(tmp_path)
    write_manifests(written(tmp_path), network, metadata_of(network, "raw"))
    found = json.loads((tmp_path / "manifest.json").read_text())
    task = found["tasks"]["recognition"]
    assert (found["manifest_version"], found["license"]) == (2, "MODEL.LICENSE")
    assert (task["file"], task["sha256"]) == ("m.onnx", hashlib.sha256(b"model").hexdigest())
    assert (task["input_size"], task["embedding_dimension"]) == ([48, 32], 24)


@pytest.mark.parametrize(
    "lineage, form, expected",
    [
        ("insightface_tf", "raw", "embedded"),
        ("arcface_torch", "scaled", {"mean": 127.5, "std": 127.5}),
        ("insightface_mxnet", "scaled", {"mean": 127.5, "std": 128.0}),
    ],
)
def test_preprocessing_is_what_insightface_must_do(tmp_path, lineage, form, expected):
    network = network_of(tmp_path, lineage)
    found = manifest(written(tmp_path), network, metadata_of(network, form))
    assert found["tasks"]["recognition"]["preprocessing"] == expected


@pytest.mark.parametrize(
    "lineage, form", [("insightface_tf", "scaled"), ("arcface_torch", "uint8")]
)
def test_a_form_that_insightface_cannot_feed_is_no_task(tmp_path, lineage, form):
    network = network_of(tmp_path, lineage)
    assert not manifest(written(tmp_path), network, metadata_of(network, form))["tasks"]


def test_the_files_own_manifest_holds_the_metadata_and_the_proof(tmp_path):
    network = network_of(tmp_path)
    metadata = metadata_of(network, "raw")
    write_manifests(written(tmp_path), network, metadata)
    assert read_manifest(str(tmp_path / "m.onnx")) == metadata
    found = json.loads((tmp_path / "m.onnx.manifest.json").read_text())
    assert found["proof"] == [dict(PROOFS[0]._asdict())]
    assert ModelMetadata.from_dict(found[KEY]).dataset == "train.rec"


def test_manifest_of_another_file_stays(tmp_path):
    network = network_of(tmp_path)
    metadata = metadata_of(network, "raw")
    write_manifests(written(tmp_path, "a.onnx"), network, metadata)
    before = (tmp_path / "manifest.json").read_text()
    write_manifests(written(tmp_path, "b.onnx"), network, metadata)
    assert (tmp_path / "manifest.json").read_text() == before
    assert (tmp_path / "b.onnx.manifest.json").exists()


def test_model_card_has_the_recipe_the_comparison_and_the_license_to_fill_in(tmp_path):
    network = network_of(tmp_path)
    card = model_card(written(tmp_path), network, metadata_of(network, "raw"))
    assert "| loss | arcface |" in card and "License of the weights: TODO" in card
    assert "| onnxruntime 1 | 4 | 2e-06 | 0.5000000 |" in card
    assert "No verification result of this checkpoint was found next to it." in card


def test_accuracy_is_that_of_the_runs_log_at_the_checkpoints_step(tmp_path):
    (tmp_path / "logs").mkdir()
    line = {"kind": "validation", "step": 7, "set": "lfw", "accuracy_flip": 0.75}
    line["accuracy_flip_interval"] = [0.7, 0.8]
    other = dict(line, step=6, accuracy_flip=0.5)
    text = "".join(json.dumps(one) + "\n" for one in (other, line))
    (tmp_path / "logs" / "metrics.jsonl").write_text(text)
    network = network_of(tmp_path)
    metadata = metadata_of(network, "raw")
    assert metadata.accuracy == {"lfw": 0.75}
    assert "| lfw | 0.7500 | 0.7000 - 0.8000 |" in model_card(written(tmp_path), network, metadata)
