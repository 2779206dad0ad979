"""A slow pipeline is seen: in the graph's own measure, in metrics.jsonl and in the log."""

import collections
import time

import pytest

from evaluation.report.run_logs import read_metrics
from runtime.device import current
from runtime.tf1 import tf
from training.hooks.metrics import METRICS, WAITED, Metrics, MetricsLog
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
    assert line["input_share"] > 0.7 and line["input_seconds"] > 2 * SECONDS
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
