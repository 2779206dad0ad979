"""A slow pipeline is seen: in the graph's own measure, in metrics.jsonl and in the log."""

import collections
import json
import time

import pytest

from evaluation.report.run_logs import read_metrics
from runtime.device import current
from runtime.tf1 import tf
from training.hooks.metrics import METRICS, WAITED, Metrics, MetricsLog, Utilization
from training.loop import StopSignal, train_loop

Step = collections.namedtuple("Step", "train accumulate scalars stop_feed")
SECONDS = 0.04  # that the pipeline takes for a batch, or the step for its work


def numbers(seconds):
    """An endless dataset whose every element takes so long."""

    def slow(number):
        time.sleep(seconds)
        return number

    numbers = tf.data.Dataset.range(1000)
    return numbers.map(lambda number: tf.py_func(slow, [number], tf.int64)).prefetch(2)


def metrics_of(folder, batch_seconds, work_seconds):
    """The last line of metrics.jsonl of a run of six steps, in two lines."""
    with tf.Graph().as_default(), tf.Session() as session, StopSignal() as stop:
        batches = tf.data.make_initializable_iterator(numbers(batch_seconds))
        element, waited = current().next_batch(batches)
        train = tf.py_func(lambda _: time.sleep(work_seconds), [element], [])
        scalars = dict({name: tf.constant(1.0) for name in METRICS}, **{WAITED: waited})
        session.run(batches.initializer)
        log = MetricsLog(str(folder / "metrics.jsonl"), batch_size=2, images=10)
        metrics = Metrics(3, log, last=6)
        train_loop(session, Step(train, (), scalars, None), (0, 6), [metrics], stop)
    return read_metrics(log.path)[-1]


def test_a_pipeline_slower_than_the_step_is_waited_for(tmp_path, caplog):
    caplog.set_level("INFO")
    line = metrics_of(tmp_path, batch_seconds=SECONDS, work_seconds=0.0)
    assert line["input_share"] > 0.7 and line["input_seconds"] > SECONDS
    assert "of the time waiting for images" in caplog.text
    whole = line["input_seconds"] + line["step_seconds"]
    assert line["images_per_second"] == pytest.approx(6 / whole, rel=0.01)


def test_a_pipeline_that_works_ahead_of_the_step_is_not(tmp_path, caplog):
    caplog.set_level("INFO")
    line = metrics_of(tmp_path, batch_seconds=0.0, work_seconds=SECONDS)
    assert line["input_share"] < 0.5 and line["step_seconds"] > 2 * SECONDS


class Spent:
    seconds = 2.0


def test_the_time_of_other_hooks_is_that_since_the_line_before(tmp_path):
    log, spent = MetricsLog(str(tmp_path / "metrics.jsonl"), 1, 10), Spent()
    metrics = Metrics(1, log, 9, others={"validation_seconds": spent})
    metrics.begin(None, 0)
    values = dict({name: 1.0 for name in METRICS}, **{WAITED: 0.5})
    metrics.after(1, values, seconds=2.0)
    spent.seconds = 2.5
    metrics.after(2, values, seconds=1.0)
    first, second = read_metrics(log.path)
    assert (first["validation_seconds"], second["validation_seconds"]) == (2.0, 0.5)
    assert (first["step_seconds"], first["input_seconds"], first["input_share"]) == (1.5, 0.5, 0.25)


def test_a_clock_that_is_set_back_does_not_turn_the_seconds_back(tmp_path, monkeypatch):
    log = MetricsLog(str(tmp_path / "metrics.jsonl"), 1, 10)
    log.write("train", 1, {})
    monkeypatch.setattr(time, "time", lambda: 0.0)
    log.write("train", 2, {})
    first, second = (line["seconds"] for line in read_metrics(log.path))
    assert 0.0 <= first <= second


def run_of(path, start, steps, seconds=0.5, **options):
    """A run of `steps` after `start`, whose metrics have a line per step."""
    log = MetricsLog(str(path), 4, 10)
    log.resume(start)
    metrics = Metrics(1, log, 9, measures_input=False, **options)
    metrics.begin(None, start)
    for step in range(start + 1, start + steps + 1):
        metrics.after(step, {name: 1.0 for name in METRICS}, seconds=seconds)
    metrics.end(start + steps)
    return read_metrics(log.path)


def test_the_rate_of_operations_is_logged_with_its_share_of_the_peak(tmp_path, caplog):
    caplog.set_level("INFO")
    options = dict(utilization=Utilization(flops=10**12, peak=8e12))
    line = run_of(tmp_path / "metrics.jsonl", 0, 1, seconds=0.5, **options)[0]
    assert (line["flops_per_second"], line["flops_share"]) == (2 * 10**12, 0.25)
    assert "2 TFLOP/s (25% of the peak)" in caplog.text


def test_without_a_peak_no_share_is_logged(tmp_path):
    options = dict(utilization=Utilization(flops=10**12))
    line = run_of(tmp_path / "metrics.jsonl", 0, 1, **options)[0]
    assert "flops_per_second" in line and "flops_share" not in line


def test_the_peak_memory_is_logged(tmp_path):
    assert run_of(tmp_path / "metrics.jsonl", 0, 1)[0]["peak_memory_gib"] > 0.0


def test_goodput_is_the_share_of_the_time_that_was_spent_in_steps(tmp_path):
    log = MetricsLog(str(tmp_path / "metrics.jsonl"), 4, 10)
    log.begun -= 100.0
    metrics = Metrics(1, log, 9, measures_input=False)
    metrics.begin(None, 0)
    for step in (1, 2):
        metrics.after(step, {name: 1.0 for name in METRICS}, seconds=25.0)
    line = read_metrics(log.path)[-1]
    assert line["goodput_share"] == pytest.approx(0.5, rel=0.1) and "lost_steps" not in line


def test_a_resumed_run_counts_the_steps_that_it_makes_again(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "metrics.jsonl"
    run_of(path, 0, 5)
    lines = [dict(line, seconds=float(line["step"])) for line in read_metrics(str(path))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    line = run_of(path, 3, 4)[-1]
    assert (line["step"], line["lost_steps"], line["lost_seconds"]) == (7, 2, 2.0)
    again = run_of(path, 6, 1)[-1]  # one more is lost, after two before
    assert again["lost_steps"] == 3
    assert "2 steps and 2 s were lost and made again" in caplog.text
