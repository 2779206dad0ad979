import pytest

from inference.batches import embed_encoded, prefetch
from tests.evaluation import tiny_sets


def test_progress_counts_images_not_rows():
    done = []
    embed_encoded(tiny_sets.fake_embed, tiny_sets.encoded_images(7), (16, 20), 3, done.append)
    assert done == [3, 3, 1]


def test_an_image_that_does_not_decode_is_named():
    encoded = tiny_sets.encoded_images(5)
    encoded[4] = b"not a picture"
    with pytest.raises(ValueError, match="a.bin: image 4 "):
        embed_encoded(tiny_sets.fake_embed, encoded, (16, 20), 2, where="a.bin: image")


def test_prefetch_keeps_the_order():
    assert list(prefetch(lambda x: x * x, range(9), workers=3)) == [x * x for x in range(9)]
