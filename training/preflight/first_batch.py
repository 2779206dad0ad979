"""A look at the first records of the training data, beside the run's own reading of them.

N images, H W pixels. What is damaged is passed over: the pipeline finds it when its turn comes.
"""

import collections
import itertools
import logging
import os

import numpy as np

from data.eval_data_reader import decode_images
from data.formats.image_headers import image_fault, image_size
from data.formats.tfrecord import parse_example
from data.pipeline.decoding import Decoder
from runtime.session import session_config
from runtime.tf1 import tf

DECODERS_APART = 2.0  # grey levels, in the mean; with red and blue exchanged it is ten times that
SCANNED = 20000  # records that are compared with the verification sets

# One record: its shard's path, its number there, its Example's bytes, and what those hold.
Record = collections.namedtuple("Record", "shard number example label image")


def records(path, manifest):
    """The whole records of a data set, shard after shard."""
    is_file = not tf.io.gfile.isdir(path)
    for name, _ in manifest.shards:
        shard = path if is_file else os.path.join(path, name)
        try:
            for number, example in enumerate(tf.io.tf_record_iterator(shard)):
                try:
                    yield Record(shard, number, example, *parse_example(example))
                except ValueError:
                    continue
        except tf.errors.DataLossError:
            continue


def first_batch(config, plan, count):
    """(uint8 [N, H, W, 3] RGB, int64 [N]) of the first `count` records, or as many as there are,
    decoded as training decodes them, if evaluation sees the same in them."""
    found = []
    for record in records(config.tfrecords_file_path, plan.manifest):
        if record.label >= plan.identities and config.on_error == "stop":
            raise ValueError(
                f"{record.shard}: record {record.number} has label {record.label}, but the head "
                f"has {plan.identities} identities; pass --num_output {record.label + 1} or more, "
                "or convert the data again."
            )
        if record.label < plan.identities and _fits(record.image, config.image_size):
            found.append(record)
        if len(found) == count:
            break
    if not found:
        raise ValueError(
            f"{config.tfrecords_file_path} holds no image of {config.image_size[0]} x "
            f"{config.image_size[1]} that can be read; convert the data again."
        )
    _doubt_order([record.label for record in found])
    return _decoded(config, plan, found)


def _fits(image, size):
    """Whether it is an image of that size: a file, or the pixels themselves."""
    if image_fault(image) is not None:
        return len(image) == size[0] * size[1] * 3
    return image_size(image) == tuple(size)


def _doubt_order(labels):
    if len(labels) >= 16 and len(set(labels)) * 8 <= len(labels):
        logging.warning(
            "the first %d records are of %d identities only: they seem to lie in their source's "
            "order, which makes poor batches; convert the data again with --shuffle_seed.",
            len(labels),
            len(set(labels)),
        )


def _decoded(config, plan, found):
    size, raw = tuple(config.image_size), image_fault(found[0].image) is not None
    with tf.Graph().as_default():
        decoder = Decoder(size, plan.identities, raw)
        decoded = decoder.decode(tf.constant([record.example for record in found]))
        with tf.Session(config=session_config("cpu")) as session:
            images_NHWC, labels_N = session.run(decoded)
    if not raw:
        others_NHWC = decode_images([record.image for record in found], size)
        apart = np.abs(images_NHWC.astype(np.int16) - others_NHWC).mean()
        if apart > DECODERS_APART:
            raise ValueError(
                f"{config.tfrecords_file_path}: training and evaluation decode its images "
                f"{apart:.1f} grey levels apart; in one of them the colours are in another order."
            )
    return images_NHWC, labels_N


def warn_of_overlap(config, plan, encoded):
    """Says which sets hold images that are among the first SCANNED of the training data too, byte
    for byte. encoded: set -> its encoded images. Two photographs of one person, or one photograph
    packed twice, cannot be told so cheaply: silence proves nothing."""
    known = {name: collections.Counter(map(hash, images)) for name, images in encoded.items()}
    shared, seen = collections.Counter(), 0
    for record in itertools.islice(records(config.tfrecords_file_path, plan.manifest), SCANNED):
        seen += 1
        for name, images in known.items():
            shared[name] += images.pop(hash(record.image), 0)
    for name, count in shared.items():
        if count:
            logging.warning(
                "%s: %d of its %d images are also among the first %d of %d training images, byte "
                "for byte: its accuracy is not that of strangers.",
                name,
                count,
                len(encoded[name]),
                seen,
                plan.manifest.images,
            )
