"""The first records of the training data, read apart from the run's pipeline.

N images, H W pixels. Damaged records are skipped: the pipeline reports them at their step.
"""

import collections
import itertools
import logging
import os
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np

from data.eval_data_reader import decode_images
from data.formats.image_headers import image_fault, image_size
from data.formats.manifest import Manifest
from data.formats.tfrecord import parse_example
from data.pipeline.decoding import Decoder
from runtime.session import session_config
from runtime.tf1 import tf
from training.config import TrainConfig
from training.plan import Plan

DECODERS_APART = 2.0  # mean gray levels; with red and blue swapped it is ten times that
SCANNED = 20000  # records that are compared with the verification sets


class Record(NamedTuple):
    """One training record."""

    shard: str  # path
    number: int  # in the shard
    example: bytes
    label: int
    image: bytes  # encoded, or raw pixels


def records(path: str, manifest: Manifest) -> Iterator[Record]:
    """The undamaged records of a dataset, shard after shard."""
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


def first_batch(config: TrainConfig, plan: Plan, count: int) -> Tuple[np.ndarray, np.ndarray]:
    """(uint8 [N, H, W, 3] RGB, int64 [N]) of the first `count` records, or as many as there are,
    decoded as in training, if evaluation decodes them to the same pixels."""
    found = []
    for record in records(config.tfrecords_file_path, plan.manifest):
        if record.label >= plan.identities and config.on_error == "stop":
            raise ValueError(
                f"{record.shard}: record {record.number} has label {record.label}, but the head "
                f"has {plan.identities} identities; pass --num_output {record.label + 1} or more, "
                "or convert the data again."
            )
        if record.label < plan.identities and _has_size(record.image, config.image_size):
            found.append(record)
        if len(found) == count:
            break
    if not found:
        raise ValueError(
            f"{config.tfrecords_file_path} has no readable image of {config.image_size[0]} x "
            f"{config.image_size[1]}; convert the data again."
        )
    _check_order([record.label for record in found])
    return _decoded(config, plan, found)


def _has_size(image: bytes, size: Sequence[int]) -> bool:
    """Whether it is an image of that size: encoded, or raw pixels."""
    if image_fault(image) is not None:
        return len(image) == size[0] * size[1] * 3
    return image_size(image) == tuple(size)


def _check_order(labels: List[int]) -> None:
    if len(labels) >= 16 and len(set(labels)) * 8 <= len(labels):
        logging.warning(
            "the first %d records are of %d identities only: they seem to be in the order of their "
            "source, which makes poor batches; convert the data again with --shuffle_seed.",
            len(labels),
            len(set(labels)),
        )


def _decoded(config: TrainConfig, plan: Plan, found: List[Record]) -> Tuple[np.ndarray, np.ndarray]:
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
                f"{apart:.1f} gray levels apart; one of them swaps the color channels."
            )
    return images_NHWC, labels_N


def warn_of_overlap(
    config: TrainConfig, plan: Plan, encoded: Dict[str, List[bytes]]
) -> Dict[str, int]:
    """Logs, and returns as {set: images}, which sets have images that are byte for byte among the
    first SCANNED training images. encoded: set -> its encoded images. Two photographs of one
    person, or one that was encoded twice, are not found: no warning is no proof."""
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
                "for byte: its accuracy is not on unseen identities.",
                name,
                count,
                len(encoded[name]),
                seen,
                plan.manifest.images,
            )
    return {name: count for name, count in shared.items() if count}
