import numpy as np
import pytest

from inference import Embedder, ModelOptions
from inference.preprocessing import Preprocessing
from tests.evaluation import tiny_sets
from tests.inference.tiny_models import (
    IMAGES,
    METADATA,
    WEIGHTS,
    expected,
    write_manifest,
    write_onnx,
)

onnx = pytest.mark.skipif(
    not all(__import__("importlib").util.find_spec(name) for name in ("onnx", "onnxruntime")),
    reason="needs onnx and onnxruntime",
)


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@onnx
def test_metadata_decides_the_preprocessing(tmp_path):
    with Embedder(write_onnx(tmp_path / "a.onnx")) as embedder:
        close(embedder.embed(IMAGES), expected(IMAGES))


@onnx
def test_flip_adds_the_mirrored_images_embedding(tmp_path):
    with Embedder(write_onnx(tmp_path / "a.onnx")) as embedder:
        found = embedder.embed(IMAGES, flip=True)
    close(found, expected(IMAGES) + expected(IMAGES[:, :, ::-1]))


@onnx
def test_embed_batch_returns_both_halves(tmp_path):
    with Embedder(write_onnx(tmp_path / "a.onnx")) as embedder:
        plain_ND, mirrored_ND = embedder.embed_batch(IMAGES)
    close(plain_ND, expected(IMAGES))
    close(mirrored_ND, expected(IMAGES[:, :, ::-1]))


@onnx
def test_raw_metadata_passes_the_pixels_on(tmp_path):
    path = write_onnx(tmp_path / "a.onnx", METADATA._replace(input_form="raw"))
    with Embedder(path) as embedder:
        close(embedder.embed(IMAGES), expected(IMAGES, "RGB", 0.0, 1.0))


@onnx
def test_a_foreign_file_is_scaled_as_insightface_scales(tmp_path):
    with Embedder(write_onnx(tmp_path / "a.onnx", None)) as embedder:
        close(embedder.embed(IMAGES), expected(IMAGES, "RGB", 127.5, 127.5))


@onnx
def test_a_foreign_file_with_its_own_scaling_gets_raw_pixels(tmp_path):
    path = write_onnx(tmp_path / "a.onnx", None, names=("Sub_0", "Mul_0"))
    with Embedder(path) as embedder:
        close(embedder.embed(IMAGES), expected(IMAGES, "RGB", 0.0, 1.0))


@onnx
def test_flags_decide_for_a_foreign_file(tmp_path):
    path = write_onnx(tmp_path / "a.onnx", None)
    with Embedder(path, given=Preprocessing("BGR", (3.0,), 2.0, "")) as embedder:
        close(embedder.embed(IMAGES), expected(IMAGES, "BGR", 3.0, 2.0))


@onnx
def test_flags_against_metadata_are_refused(tmp_path):
    with pytest.raises(ValueError, match="describes its preprocessing; omit --pixels"):
        Embedder(write_onnx(tmp_path / "a.onnx"), given=Preprocessing("RGB", (0.0,), 1.0, ""))


@onnx
def test_a_fixed_batch_is_filled(tmp_path):
    with Embedder(write_onnx(tmp_path / "a.onnx", batch=3)) as embedder:
        close(embedder.embed(IMAGES), expected(IMAGES))


@onnx
@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_batch_size_changes_no_embedding(tmp_path, batch_size):
    with Embedder(
        write_onnx(tmp_path / "a.onnx"), options=ModelOptions(batch_size=batch_size)
    ) as embedder:
        close(embedder.embed(IMAGES), expected(IMAGES))


@onnx
def test_embedding_size_and_image_size_are_the_models(tmp_path):
    with Embedder(write_onnx(tmp_path / "a.onnx")) as embedder:
        assert (embedder.embedding_size, embedder.image_size) == (WEIGHTS.shape[1], (12, 16))


@onnx
@pytest.mark.parametrize("images", [IMAGES / 255.0, IMAGES[:, 1:], IMAGES[:0], IMAGES[0]])
def test_images_of_another_form_are_refused(tmp_path, images):
    with Embedder(write_onnx(tmp_path / "a.onnx")) as embedder:
        with pytest.raises(ValueError, match=r"takes uint8 RGB \[N, 12, 16, 3\]"):
            embedder.embed(images)


@onnx
def test_an_input_that_is_no_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match="takes int8 input, but images are"):
        Embedder(write_onnx(tmp_path / "a.onnx", dtype=3))


def test_a_foreign_file_of_another_format_needs_the_flags(tmp_path):
    from tests.inference.backends.test_tensorflow import write_graph

    path = write_graph(tmp_path / "a.pb")
    with pytest.raises(ValueError, match="preprocessing is not known; pass --pixels"):
        Embedder(str(path))


def test_a_manifest_decides_the_preprocessing_of_a_frozen_graph(tmp_path):
    from tests.inference.backends.test_tensorflow import write_graph

    path = write_graph(tmp_path / "a.pb")
    write_manifest(path)
    with Embedder(str(path)) as embedder:
        close(embedder.embed(IMAGES), expected(IMAGES))


def test_a_checkpoint_embeds_one_image(tmp_path):
    with Embedder(tiny_sets.prefix()) as embedder:
        images_NHWC = np.zeros((1,) + embedder.image_size + (3,), np.uint8)
        assert embedder.embed(images_NHWC).shape == (1, 6)
