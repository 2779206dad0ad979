"""A photo's embedding, and what pins a bank to its model."""

import os

import numpy as np
import pytest

from faces.photo import MAX_BYTES, PhotoError, read_photo
from serving.recognizer import Recognizer, digest, model_digest, open_embedder, read_file
from tests.serving.tiny_models import DIMENSIONS, face, write_model


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    return Recognizer(write_model(tmp_path_factory.mktemp("model") / "model.onnx"), "none")


def test_photo_becomes_a_unit_vector_with_the_digest_of_its_file(recognizer):
    photo = recognizer.embed_photo(face(1))
    assert photo.source_digest == digest(face(1))
    assert np.linalg.norm(photo.unit_D) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(photo.crop.image_HWC, read_photo(face(1)))


def test_mirrored_image_is_added_unless_flip_is_off(recognizer):
    crop_HWC = read_photo(face(1))
    mirrored = recognizer.embed_crops(np.ascontiguousarray(crop_HWC[:, ::-1])[None])
    np.testing.assert_allclose(recognizer.embed_crops(crop_HWC[None]), mirrored, atol=1e-5)


def test_contract_names_what_embeddings_depend_on(recognizer):
    contract = recognizer.contract
    assert contract.embedding_size == DIMENSIONS and contract.flip
    assert contract.preprocessing == "RGB, (0.0) / 1, 112x112"


def test_digest_changes_with_the_weights(tmp_path):
    first, second = (write_model(tmp_path / f"{seed}.onnx", seed) for seed in (0, 1))
    assert model_digest(first) != model_digest(second)


def test_digest_of_a_checkpoint_covers_its_files(tmp_path):
    for ending in (".index", ".data-00000-of-00001", ".json"):
        (tmp_path / f"a.ckpt{ending}").write_bytes(ending.encode())
    whole = model_digest(str(tmp_path / "a.ckpt"))
    os.remove(str(tmp_path / "a.ckpt.json"))  # a description, no weights
    assert model_digest(str(tmp_path / "a.ckpt")) == whole
    (tmp_path / "a.ckpt.data-00000-of-00001").write_bytes(b"other")
    assert model_digest(str(tmp_path / "a.ckpt")) != whole


def test_missing_model_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="is not there"):
        model_digest(str(tmp_path / "none.ckpt"))


def test_weights_of_pytorch_name_the_converter():
    with pytest.raises(ValueError, match="convert_weights.py"):
        open_embedder("model_ir_se100.pth")


def test_large_file_is_refused_before_it_is_read(tmp_path):
    with open(str(tmp_path / "a.jpg"), "wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(PhotoError, match="MiB"):
        read_file(str(tmp_path / "a.jpg"))
