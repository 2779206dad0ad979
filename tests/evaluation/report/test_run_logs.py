"""The records of a run, read while it may still be writing."""

import os

from evaluation.report.run_logs import read_run
from tests.evaluation import tiny_sets
from tests.evaluation.tiny_sets import train_line, validation_line


def test_a_line_cut_short_is_skipped_and_a_repeated_step_counts_once(tmp_path):
    lines = [train_line(10), train_line(20), train_line(20, loss=1.0), train_line(30)]
    run = read_run(tiny_sets.write_run(tmp_path / "r", lines, tail='{"kind": "tra'))
    assert [(line["step"], line["loss"]) for line in run.train][1] == (20, 1.0)
    assert len(run.train) == 3


def test_the_untrained_net_is_not_the_best(tmp_path):
    lines = [validation_line(0, 0.7), validation_line(5, 0.6), validation_line(9, 0.65)]
    assert read_run(tiny_sets.write_run(tmp_path / "r", lines)).best_line("lfw")["step"] == 9


def test_the_checkpoint_of_the_best_step_is_found_also_under_its_plain_name(tmp_path):
    run = tiny_sets.write_run(tmp_path / "r", [validation_line(5, 0.6), validation_line(9, 0.5)])
    assert read_run(run).checkpoint is None
    os.makedirs(os.path.join(run, "ckpt"))
    prefix = os.path.join(run, "ckpt", "InsightFace_iter_5.ckpt")
    open(prefix + ".index", "w").close()
    assert read_run(run).checkpoint == prefix


def test_a_step_without_one_of_the_sets_is_not_the_best(tmp_path):
    lines = [validation_line(5, 0.9), validation_line(9, 0.6), validation_line(9, 0.6, "cfp_fp")]
    assert read_run(tiny_sets.write_run(tmp_path / "r", lines)).best_step == 9


def test_a_run_without_metrics_has_no_best_step(tmp_path):
    run = read_run(tiny_sets.write_run(tmp_path / "r", []))
    assert run.best_step is None and run.last_step == 0 and run.seconds == 0.0
