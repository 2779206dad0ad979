"""Where a run starts."""

import pytest

from checkpoint.writer import CheckpointWriter
from runtime.tf1 import tf
from tests.training.graph.test_step import config_of
from training.plan import make_plan
from training.resume import find_start
from training.run_log import record_of


@pytest.fixture
def saved(small, tmp_path):
    """The config of a run whose step 4 is on disk."""
    config = config_of(small, tmp_path)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("v", [])
        session.run(tf.global_variables_initializer())
        record = record_of(config, make_plan(config))
        writer = CheckpointWriter(config.directory("ckpt"), record, keep=1)
        writer.save(session, 4, images_seen=32, best={"mean": 0.75})
    return config


def start_of(small, output, **flags):
    config = config_of(small, output, **flags)
    return find_start(config, make_plan(config))


def test_a_new_run_starts_at_step_0(small, tmp_path):
    start = start_of(small, tmp_path)
    assert (start.prefix, start.step, start.best) == (None, 0, None)


def test_resume_without_a_checkpoint_starts_a_new_run(small, tmp_path, caplog):
    caplog.set_level("INFO")
    assert start_of(small, tmp_path, resume=True).step == 0
    assert "no checkpoint in" in caplog.text


def test_resume_starts_at_the_step_of_the_checkpoint(small, saved, tmp_path):
    start = start_of(small, tmp_path, resume=True)
    assert (start.step, start.best) == (4, {"mean": 0.75})
    assert start.prefix.endswith("InsightFace_iter_4.ckpt")


def test_resume_with_another_learning_rate_is_refused(small, saved, tmp_path):
    with pytest.raises(ValueError, match="was trained with --lr 0.05"):
        start_of(small, tmp_path, resume=True, lr=0.5)
