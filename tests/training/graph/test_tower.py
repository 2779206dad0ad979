"""A rank's part of a step: two ranks together make the step that one makes."""

import numpy as np
import pytest

from nets.build import BUILDERS
from runtime.distributed.ranks import Ranks, prepared
from runtime.flags import build
from runtime.session import session_config
from runtime.tf1 import tf
from runtime.variables import plain_name
from tests.training.small_net import small_net
from training.config import MultiDeviceConfig
from training.graph.settings import step_settings
from training.graph.step import build_step
from training.graph.tower import copied, tower_decay

IDENTITIES, BATCH, SIDE = 7, 8, 16


def config_of(**flags):
    values = dict(image_size=(SIDE, SIDE), net_depth=18, width=0.125, embedding_size=6)
    values.update(batch_size=BATCH, eval_batch_size=2, lr=0.05, schedule="constant", dropout=0.0)
    values.update(sync_batch_norm=True, loss="cosface", scale=8.0)
    return build(MultiDeviceConfig, dict(values, tfrecords_file_path="unused", **flags))


def stepped(size, names, **flags):
    """One step of `size` ranks on the same batch -> {scalar: value}, {variable: value} after it."""
    config, ranks = config_of(**flags), Ranks(size)
    noise = np.random.RandomState(0)
    images = noise.randint(0, 256, (BATCH, SIDE, SIDE, 3)).astype(np.uint8)
    labels = np.arange(BATCH, dtype=np.int64) % IDENTITIES
    with tf.Graph().as_default(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUILDERS, "ir", small_net)
        tf.set_random_seed(1)
        shares = zip(np.split(images, size), np.split(labels, size))
        batches = [(tf.constant(image), tf.constant(label)) for image, label in shares]
        ops = build_step(step_settings(config, IDENTITIES), batches, ranks)
        with tf.Session(config=prepared(session_config("cpu"), ranks)) as session:
            session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
            session.run(ops.replicate)
            fetches = {name: ops.scalars[name] for name in names}
            scalars = session.run((ops.train, fetches))[1]
            variables = session.run([tower.backbone for tower in ops.towers])
    backbone = [plain_name(v.op.name) for v in ops.towers[0].backbone]
    return scalars, dict(zip(backbone, variables[0]))


@pytest.mark.parametrize(
    "flags", [dict(), dict(clip_norm=0.01), dict(clip="backbone", clip_norm=1)]
)
def test_two_ranks_measure_the_gradient_norm_of_one(flags):
    """Of the head, too, of which each has a slice: what clipping divides by."""
    names = ("inference_loss", "gradient_norm", "accuracy")
    alone, together = (stepped(size, names, **flags)[0] for size in (1, 2))
    for name in names:
        assert together[name] == pytest.approx(alone[name], rel=1e-4), name


def test_two_ranks_update_the_backbone_as_one_does():
    alone, together = (stepped(size, ())[1] for size in (1, 2))
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        error = np.linalg.norm(together[name] - value)
        assert error <= 1e-5 * np.linalg.norm(value) + 1e-6, name


def test_a_frozen_backbone_keeps_its_weights():
    config = config_of()
    with tf.Graph().as_default(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUILDERS, "ir", small_net)
        batch = (tf.zeros([BATCH, SIDE, SIDE, 3], tf.uint8), tf.zeros([BATCH], tf.int64))
        ops = build_step(step_settings(config, IDENTITIES, frozen_steps=1), [batch])
        trained = [v for v in ops.backbone if v.trainable]
        with tf.Session(config=session_config("cpu")) as session:
            session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
            before = session.run(trained)
            session.run(ops.train)
            after = session.run(trained)
            session.run(ops.train)
            later = session.run(trained)
    for old, new in zip(before, after):
        np.testing.assert_array_equal(old, new)
    assert any((old != new).any() for old, new in zip(after, later))


def test_the_slices_of_the_head_are_no_copies():
    with tf.Graph().as_default(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUILDERS, "ir", small_net)
        batch = (tf.zeros([4, SIDE, SIDE, 3], tf.uint8), tf.zeros([4], tf.int64))
        ops = build_step(step_settings(config_of(), IDENTITIES), [batch] * 2, Ranks(2))
        names = {plain_name(v.op.name).split("/")[0] for v in copied(ops.towers[1])}
        assert "class_centres" not in names and "conv1" in names


def test_the_decay_adds_half_the_squares_of_the_decayed_weights():
    with tf.Graph().as_default(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUILDERS, "ir", small_net)
        batch = (tf.zeros([BATCH, SIDE, SIDE, 3], tf.uint8), tf.zeros([BATCH], tf.int64))
        ops = build_step(step_settings(config_of(weight_decay=0.5), IDENTITIES), [batch])
        decayed = tf.get_collection("decayed_variables")
        with tf.Session(config=session_config("cpu")) as session:
            session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
            values = session.run(decayed)
            found = session.run(tower_decay(0.5, ops_collectives(), ops.towers[0]))
    assert found == pytest.approx(0.25 * sum(np.square(value).sum() for value in values), rel=1e-5)


def ops_collectives():
    from runtime.distributed.collectives import Collectives

    return Collectives(0, 1)
