"""Small data sets of shards, written by TensorFlow's own writer, and what a stream of them says."""

import os

import cv2
import numpy as np

from data.formats.tfrecord import example_bytes
from runtime.tf1 import tf

SIZE = 16


def picture(number, size=SIZE, extension=".jpg"):
    """An image whose corner and colour say its number, encoded."""
    image = np.full((size, size, 3), 40 + number % 160, np.uint8)
    image[: size // 2, : size // 4] = (200, number * 7 % 256, 30)
    return cv2.imencode(extension, image)[1].tobytes()


def write_shard(path, examples):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example)


def write_set(folder, counts, identities=None, image=picture):
    """Shards of these counts; record i of the set has label i unless `identities` folds them."""
    number = 0
    for shard, count in enumerate(counts):
        numbers = range(number, number + count)
        labels = [i % identities if identities else i for i in numbers]
        write_shard(
            os.path.join(str(folder), f"train-{shard:05d}.tfrecords"),
            [example_bytes(label, image(i)) for label, i in zip(labels, numbers)],
        )
        number += count
    return str(folder)


def take(dataset, batches):
    """The first elements of a dataset; fewer if it ends."""
    with tf.Graph().as_default():
        iterator = tf.data.make_initializable_iterator(dataset())
        element = iterator.get_next()
        found = []
        with tf.Session() as session:
            session.run(iterator.initializer)
            for _ in range(batches):
                try:
                    found.append(session.run(element))
                except tf.errors.OutOfRangeError:
                    break
        return found
