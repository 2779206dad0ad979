"""What an export computes once, and what it does not put in place."""

import dataclasses
import os

import numpy as np
import pytest

from export import pipeline, runtimes
from export.config import ExportConfig
from export.manifest import metadata_of
from export.pipeline import Export
from export.proof import Reference
from export.staging import staged


@pytest.fixture
def exported(networks, tmp_path):
    """An Export of a narrow network to m.onnx."""
    network = networks("arcface_torch")
    config = ExportConfig("none.ckpt", str(tmp_path / "m.onnx"), proof_images=3)
    return Export(config, network, metadata_of(network, config.form))


def test_checkpoints_embeddings_are_computed_once(exported):
    assert exported.reference() is exported.reference()


def test_onnx_is_compared_in_every_installed_runtime(exported, tmp_path):
    proofs, precision = pipeline.WRITERS["onnx"](exported, str(tmp_path / "m.onnx"))
    assert len(proofs) == len(runtimes.open_onnx("m.onnx")) and precision == "fp32"
    assert all(one.batches == [1, 2] and one.images == 3 for one in proofs)


@pytest.mark.parametrize("file_format", ["onnx", "pb", "savedmodel"])
def test_a_file_that_differs_from_the_checkpoint_is_not_put_in_place(
    exported, tmp_path, file_format
):
    if file_format == "onnx":
        pytest.importorskip("onnxruntime")
    exported.config = dataclasses.replace(exported.config, file_format=file_format)
    images_NHWC, expected_ND = exported.reference()
    wrong_ND = expected_ND + 2e-4 * np.abs(expected_ND).max()
    exported._reference = Reference(images_NHWC, wrong_ND)
    with pytest.raises(ValueError, match="m.* was not written: its embeddings in .* differ"):
        with staged(str(tmp_path / "m.onnx")) as path:
            pipeline.WRITERS[file_format](exported, path)
    assert not os.listdir(str(tmp_path))
