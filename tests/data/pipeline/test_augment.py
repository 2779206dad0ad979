import dataclasses

import numpy as np
import pytest

from data.pipeline.augment import augment_images
from data.pipeline.recipes import Augmentation, recipe
from runtime.tf1 import tf

SIDE = 24
CHANGES = [field.name for field in dataclasses.fields(Augmentation)]


def faces(count=6):
    """Smooth images with an edge, so that every change shows."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    images = [np.stack([rows * 7, columns * 6, (rows + columns) * 3 + i], -1) for i in range(count)]
    images = np.array(images)
    images[:, :, SIDE // 2 :] //= 2
    return images.astype(np.uint8)


def augmented(images, augmentation, seed=1, first=0):
    with tf.Graph().as_default(), tf.Session() as session:
        images_NHWC = tf.placeholder(tf.uint8, images.shape)
        place_N = first + tf.range(len(images), dtype=tf.int64)
        result = augment_images(images_NHWC, seed, place_N, augmentation)
        assert result.shape.as_list() == list(images.shape)
        return session.run(result, {images_NHWC: images})


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_at_probability_one_changes_every_image(change):
    images = faces()
    result = augmented(images, Augmentation(**{change: 1.0}))
    assert result.dtype == np.uint8
    assert all((a != b).any() for a, b in zip(images, result))
    difference = np.abs(images.astype(int) - result).mean()
    assert difference < 120  # a picture still


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_chooses_no_image_leaves_all(change):
    images = faces(3)
    assert (augmented(images, Augmentation(**{change: 1e-9})) == images).all()


def test_draws_depend_on_the_place_in_the_stream_alone():
    images = np.repeat(faces(1), 12, axis=0)
    whole = augmented(images, recipe("strong"))
    parts = [augmented(images[:4], recipe("strong"), first=first) for first in (0, 4, 8)]
    assert (whole == np.concatenate(parts)).all()
    assert (whole != augmented(images, recipe("strong"), seed=2)).any()


def test_flip_is_exact():
    images = faces(5)
    assert (augmented(images, Augmentation(flip=1.0)) == images[:, :, ::-1]).all()


def test_occlusion_covers_a_part_in_one_colour():
    images = faces(4)
    result = augmented(images, Augmentation(occlusion=1.0))
    for before, after in zip(images, result):
        covered = (before != after).any(axis=-1)
        assert 0.02 < covered.mean() < 0.3
        rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
        inside = after[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].reshape(-1, 3)
        assert len(np.unique(inside, axis=0)) == 1
