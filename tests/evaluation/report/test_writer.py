"""Reports of whole runs and of what a run has written so far."""

import os
import time

import pytest

from evaluation.report import writer
from tests.evaluation import tiny_sets
from tests.evaluation.report.tiny_runs import text_of, whole_run
from tests.evaluation.tiny_sets import train_line, validation_line


def test_a_report_says_the_best_of_each_set_and_the_health(tmp_path):
    text = text_of(writer.write_report(whole_run(tmp_path / "demo")))
    assert "Training is healthy, and done." in text
    assert text.count("90.00<small> %") == 2  # 0.9 at step 600 of both sets
    assert "data:image/png;base64," in text
    assert "total_steps" in text and "Dataset" in text


@pytest.mark.parametrize(
    "lines, tail",
    [
        ([], ""),
        ([train_line(10)], '{"kind": "train", "step": 20, "lo'),
        ([validation_line(0, 0.5)], "\n\n[1, 2]\n"),
        ([train_line(10, loss=float("nan")), validation_line(10, 1.0)], "garbage"),
        ([{"kind": "train", "step": 5}, train_line(10), train_line(10)], ""),
    ],
)
def test_a_report_is_drawn_of_whatever_is_there(tmp_path, lines, tail):
    assert "</html>" in text_of(
        writer.write_report(tiny_sets.write_run(tmp_path / "r", lines, tail=tail))
    )


def test_a_report_of_half_written_files_is_drawn(tmp_path):
    run = whole_run(tmp_path / "demo")
    for name in ("config.json", "best/lfw.npz"):
        path = os.path.join(run, name)
        content = open(path, "rb").read()
        open(path, "wb").write(content[: len(content) // 2])
    assert "config.json is missing" in text_of(writer.write_report(run))


def test_a_report_of_a_long_run_takes_under_a_second(tmp_path):
    lines = [train_line(step) for step in range(20, 200000, 20)]
    lines += [validation_line(step, 0.9) for step in range(0, 200000, 2000)]
    run = tiny_sets.write_run(tmp_path / "long", lines)
    start = time.perf_counter()
    path = writer.write_report(run)
    assert time.perf_counter() - start < 3.0  # 0.3 s on a quiet machine
    assert os.path.getsize(path) < 500000
