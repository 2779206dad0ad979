"""Batches of Examples become pixels; damage in a stream is tested in test_batches.py."""

import numpy as np
import pytest

from data.formats.tfrecord import example_bytes
from data.pipeline.decoding import Decoder
from runtime.tf1 import tf
from tests.data.tiny_shards import SIZE, picture


def decoded(decoder, examples):
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(decoder.decode(tf.constant(examples)))


def test_raw_pixels_are_turned_from_bgr_to_rgb():
    bgr = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    images, label_N = decoded(Decoder((2, 4), 9, raw=True), [example_bytes(8, bgr.tobytes())])
    assert (images[0] == bgr[..., ::-1]).all() and label_N.tolist() == [8]


def test_a_label_beyond_the_identities_is_an_error():
    with pytest.raises(tf.errors.InvalidArgumentError, match="label out of range"):
        decoded(Decoder((SIZE, SIZE), 3), [example_bytes(3, picture(3))])
