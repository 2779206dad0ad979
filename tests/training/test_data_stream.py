"""The stream of batches, and the sample that the host draws where the device cannot."""

import numpy as np
import pytest

from data.pipeline.batches import ImageSettings, StreamSettings, training_batches
from losses.class_slices import local_labels, slice_of
from losses.partial_fc import Part, draw, drawn_groups
from runtime.distributed.ranks import Ranks
from runtime.flags import build
from runtime.session import session_config
from runtime.tf1 import tf
from training.config import MultiDeviceConfig
from training.data_stream import with_draws

IDENTITIES = 21  # in slices of 10 and 11


def config_of(small, **settings):
    values = dict(
        tfrecords_file_path=small.shards,
        image_size=(small.size, small.size),
        batch_size=8,
        num_output=IDENTITIES,
        sample_rate=0.8,
        buffer_size=7,
        device="npu",
    )
    return build(MultiDeviceConfig, dict(values, **settings))


def taken(dataset, count):
    batches = tf.data.make_initializable_iterator(dataset)
    element = batches.get_next()
    with tf.Session(config=session_config("cpu")) as session:
        session.run(batches.initializer)
        return [session.run(element) for _ in range(count)]


@pytest.mark.parametrize("size", [1, 2])
def test_the_host_draws_what_the_labels_of_all_cards_decide(small, size):
    """For step 3 on, of each card: against the draw that a step makes of gathered labels."""
    config, first, share = config_of(small), 3, 8 // size
    found = {}
    for rank in range(size):
        ranks = Ranks(host=rank, kind="NPU", cards=size)
        with tf.Graph().as_default():
            dataset = training_batches(
                StreamSettings(small.shards, config.seed, config.buffer_size, rank, size),
                share,
                ImageSettings((small.size, small.size)),
                start_image=first * share,
            )
            found[rank] = taken(with_draws(dataset, config, IDENTITIES, first, ranks), 2)
    for turn in range(2):
        labels = np.concatenate([found[rank][turn][1] for rank in range(size)])
        for rank in range(size):
            start, count = slice_of(IDENTITIES, rank, size)
            groups = drawn_groups(IDENTITIES, 0.8, 8, size, Part(rank, size))
            with tf.Graph().as_default(), tf.Session(config=session_config("cpu")) as session:
                own = local_labels(tf.constant(labels), start, count)
                expected = session.run(draw(own, groups, config.seed, first + turn))
            for mine, other in zip(found[rank][turn][2:], expected):
                assert mine.dtype == np.int32
                np.testing.assert_array_equal(mine, other)
