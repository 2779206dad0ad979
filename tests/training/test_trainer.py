"""The life of a run from its first line to its exit code, on a net of a second."""

import logging
import os

import pytest

from evaluation.report.run_logs import read_metrics
from nets.build import BUILDERS
from tests.training.graph.test_step import config_of
from tests.training.small_net import small_net
from training.trainer import Trainer


def train(small, output, **flags):
    """(exit code, steps in metrics.jsonl)."""
    flags = dict(dict(epoch="2step", show_info_interval="1", dropout=0.0), **flags)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUILDERS, "ir", small_net)
        with Trainer(config_of(small, output, **flags)) as trainer:
            code = trainer.run()
    lines = read_metrics(os.path.join(str(output), "logs", "metrics.jsonl"))
    return code, [line["step"] for line in lines if line["kind"] == "train"]


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    output = tmp_path_factory.mktemp("run")
    assert train(small, output) == (0, [1, 2])
    return output


def test_a_run_leaves_checkpoint_config_metrics_and_report(trained):
    for name in ("config.json", "report.html", "ckpt/InsightFace_iter_2.ckpt.json"):
        assert (trained / name).exists(), name


def test_a_run_is_resumed_where_it_ended(small, trained, caplog):
    caplog.set_level(logging.INFO)
    assert train(small, trained, epoch="3step", resume=True) == (0, [1, 2, 3])
    assert "goodput: " in caplog.text and "TFLOP/s" in caplog.text
    assert train(small, trained, epoch="3step", resume=True) == (0, [1, 2, 3])
    assert "is trained to step 3 already: nothing to do." in caplog.text


def test_a_directory_with_checkpoints_is_not_overwritten(small, trained):
    with pytest.raises(ValueError, match="pass --resume"):
        train(small, trained)


def test_a_refused_run_releases_its_lock(small, trained):
    for _ in range(2):
        with pytest.raises(ValueError, match="pass --resume"):
            train(small, trained)


def test_two_runs_cannot_have_one_directory(small, tmp_path):
    config = config_of(small, tmp_path)
    with Trainer(config):
        with pytest.raises(ValueError, match="is in use by another training"):
            with Trainer(config):
                pass
