import numpy as np
import pytest

from data.eval_data_reader import decode_images
from inference.backends.base import ModelOptions
from inference.backends.checkpoint import CheckpointBackend, CheckpointEmbedder
from tests.evaluation import tiny_sets


@pytest.fixture(scope="module")
def embedder():
    with CheckpointEmbedder(tiny_sets.prefix(), batch_size=3) as embedder:
        yield embedder


def test_mirrored_is_the_embedding_of_the_mirror_image(embedder):
    images_BHWC = decode_images(tiny_sets.encoded_images(3), embedder.image_size)
    _, mirrored_BD = embedder.embed_batch(images_BHWC)
    plain_BD, _ = embedder.embed_batch(images_BHWC[:, :, ::-1])
    np.testing.assert_allclose(mirrored_BD, plain_BD, rtol=1e-4, atol=1e-4)


def test_a_short_last_batch_changes_no_embedding(embedder):
    encoded = tiny_sets.encoded_images(7)
    plain_ND, mirrored_ND = embedder.embed_encoded(encoded)
    assert plain_ND.shape == mirrored_ND.shape == (7, 6)
    alone_ND, _ = embedder.embed_encoded(encoded[6:])
    np.testing.assert_allclose(alone_ND[0], plain_ND[6], rtol=1e-4, atol=1e-4)


def test_restore_takes_another_checkpoint_of_the_net(embedder):
    encoded = tiny_sets.encoded_images(3)
    before_ND, _ = embedder.embed_encoded(encoded)
    embedder.restore(tiny_sets.prefix(tiny_sets.STEPS[1]))
    after_ND, _ = embedder.embed_encoded(encoded)
    embedder.restore(tiny_sets.prefix())
    again_ND, _ = embedder.embed_encoded(encoded)
    assert np.abs(after_ND - before_ND).max() > 1e-3
    assert np.array_equal(again_ND, before_ND)


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="names no checkpoint"):
        CheckpointEmbedder(str(tmp_path / "InsightFace_iter_1.ckpt"))


@pytest.fixture(scope="module")
def backend():
    backend = CheckpointBackend(tiny_sets.prefix(), ModelOptions(threads=1))
    yield backend
    backend.close()


def test_the_backend_equals_the_plain_half(backend, embedder):
    images_BHWC = decode_images(tiny_sets.encoded_images(3), embedder.image_size)
    plain_BD, _ = embedder.embed_batch(images_BHWC)
    np.testing.assert_allclose(backend.run(images_BHWC), plain_BD, rtol=1e-4, atol=1e-4)


def test_the_backend_takes_any_number_of_images(backend):
    images_BHWC = decode_images(tiny_sets.encoded_images(5), backend.image_size)
    assert backend.run(images_BHWC).shape == (5, 6) and backend.run(images_BHWC[:2]).shape == (2, 6)


def test_the_backend_takes_uint8_channels_last(backend):
    assert backend.input_dtype == "uint8" and backend.input_shape == (None, 16, 20, 3)
