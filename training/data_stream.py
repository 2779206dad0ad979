"""The stream of batches that this process trains on."""

from data.pipeline.batches import TrainingBatches
from runtime.device import strategy
from runtime.distributed.ranks import Ranks
from runtime.tf1 import tf
from training import ascend
from training.config import TrainConfig


def open_batches(config: TrainConfig, ranks: Ranks) -> TrainingBatches:
    """The parts of batches of this process."""
    return TrainingBatches(
        config.tfrecords_file_path,
        config.batch_size // config.accumulate // ranks.host_count,
        config.seed,
        augment=config.augmentation(),
        buffer_size=config.buffer_size,
        image_size=tuple(config.image_size),
        host=ranks.host,
        hosts=ranks.host_count,
        on_error=config.on_error,
    )


def iterator_from(
    batches: TrainingBatches, config: TrainConfig, identities: int, step: int, ranks: Ranks
) -> tf.data.Iterator:
    """The iterator of the batches after `step` steps."""
    dataset = batches.dataset(step * config.batch_size // ranks.host_count)
    if strategy(config.device).draws_on_host and config.sample_rate < 1.0:
        dataset = ascend.with_draws(dataset, config, identities, step, ranks)
    return tf.data.make_initializable_iterator(dataset)
