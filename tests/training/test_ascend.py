"""What a run on an Ascend NPU is told otherwise, and the sample that its host draws."""

import logging

import numpy as np
import pytest

from data.pipeline.batches import training_batches
from losses.class_slices import local_labels, slice_of
from losses.partial_fc import Part, draw, drawn_groups
from runtime.distributed.ranks import SINGLE, Ranks
from runtime.flags import build
from runtime.session import session_config
from runtime.tf1 import tf
from training import ascend
from training.config import MultiDeviceConfig

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
                small.shards,
                share,
                config.seed,
                start_image=first * share,
                buffer_size=config.buffer_size,
                image_size=(small.size, small.size),
                host=rank,
                hosts=size,
            )
            found[rank] = taken(ascend.with_draws(dataset, config, IDENTITIES, first, ranks), 2)
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


def test_validation_takes_the_shape_that_training_compiles(small):
    told = ascend.adapted(config_of(small, eval_batch_size=64), Ranks(kind="NPU", cards=2))
    assert told.eval_batch_size == 2  # and their mirrors: the 4 images of a card
    assert ascend.adapted(config_of(small, precision="fp16"), Ranks(kind="NPU")).precision == "fp32"


@pytest.mark.parametrize("batch, cards", [(8, 3), (6, 2), (7, 1)])
def test_a_batch_that_cards_cannot_share_evenly_is_refused(small, batch, cards):
    with pytest.raises(ValueError, match=f"pass a multiple of {2 * cards}"):
        ascend.adapted(config_of(small, batch_size=batch), Ranks(kind="NPU", cards=cards))


def test_another_device_says_which_flags_it_passes_over(small, caplog):
    caplog.set_level(logging.INFO)
    config = config_of(small, device="cpu", hccl_timeout=600, npu_option=("deterministic=1",))
    assert ascend.adapted(config, SINGLE) is config
    assert "--hccl_timeout, --npu_option is for --device npu and has" in caplog.text


def test_a_profile_is_the_adapters(small, tmp_path):
    config = config_of(small, profile="2:3", output_path=str(tmp_path))
    told = ascend.adapted(config, Ranks(kind="NPU"))
    assert told.profiling_mode is True and str(tmp_path) in told.profiling_options
