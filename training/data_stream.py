"""The stream of batches that this process trains on."""

from typing import List, Tuple

from data.pipeline.batches import (
    ImageSettings,
    StreamSettings,
    TrainingBatches,
    training_labels,
)
from losses.class_slices import local_labels, slice_of
from losses.partial_fc import Part, draw, drawn_groups, fitting
from runtime.device import strategy
from runtime.distributed.ranks import Ranks
from runtime.tf1 import tf
from training.config import TrainConfig


def open_batches(config: TrainConfig, ranks: Ranks) -> TrainingBatches:
    """The parts of batches of this process."""
    return TrainingBatches(
        _stream(config, ranks.host, ranks.host_count),
        config.batch_size // config.accumulate // ranks.host_count,
        ImageSettings(tuple(config.image_size), config.augmentation(), config.on_error),
    )


def _stream(config: TrainConfig, host: int, hosts: int) -> StreamSettings:
    return StreamSettings(config.tfrecords_file_path, config.seed, config.buffer_size, host, hosts)


def iterator_from(
    batches: TrainingBatches, config: TrainConfig, identities: int, step: int, ranks: Ranks
) -> tf.data.Iterator:
    """The iterator of the batches after `step` steps."""
    dataset = batches.dataset(step * config.batch_size // ranks.host_count)
    if strategy(config.device).draws_on_host and config.sample_rate < 1.0:
        dataset = with_draws(dataset, config, identities, step, ranks)
    return tf.data.make_initializable_iterator(dataset)


def with_draws(
    dataset: tf.data.Dataset, config: TrainConfig, identities: int, step: int, ranks: Ranks
) -> tf.data.Dataset:
    """Batches (images, labels) -> with the classes that the step reads, (drawn_R, places_N) int32
    of this card's slice: sampling needs operations that the device lacks, so the host does it in
    the input pipeline. The sample of a slice depends on the labels of all cards; those of the
    others are read from the records again.
    step: the steps before this dataset's first batch."""
    split = config.cluster.draw_groups or ranks.size
    sampling = (identities, config.sample_rate, config.batch_size, split)
    every, groups = drawn_groups(*sampling), drawn_groups(*sampling, Part(ranks.host, ranks.size))
    start, count = slice_of(identities, ranks.host, ranks.size)
    everyone = [_labels(config, step, ranks, rank) for rank in range(ranks.size)]

    def add_draw(index: tf.Tensor, batch: Tuple, labels: List[tf.Tensor]) -> Tuple:
        fitted_N = fitting(tf.concat(labels, axis=0), every)
        drawn = draw(local_labels(fitted_N, start, count), groups, config.seed, step + index)
        own_n = tf.split(fitted_N, ranks.size)[ranks.host]
        return (batch[0], own_n) + tuple(tf.cast(part, tf.int32) for part in drawn)

    if ranks.size == 1:
        return dataset.enumerate().map(lambda index, batch: add_draw(index, batch, [batch[1]]))
    zipped = tf.data.Dataset.zip((dataset, tf.data.Dataset.zip(tuple(everyone))))
    return zipped.enumerate().map(lambda index, both: add_draw(index, both[0], list(both[1])))


def _labels(config: TrainConfig, step: int, ranks: Ranks, rank: int) -> tf.data.Dataset:
    """The labels of another card's batches, in its order: int64 [n]."""
    share = config.batch_size // ranks.size
    return training_labels(_stream(config, rank, ranks.size), share, step * share)
