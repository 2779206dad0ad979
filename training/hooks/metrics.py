"""Metrics of the steps: metrics.jsonl, the log, the progress bar and TensorBoard."""

import contextlib
import datetime
import json
import logging
import os
import time
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from evaluation.report.run_logs import read_metrics
from runtime.files import atomic_write
from runtime.host import peak_memory
from runtime.tf1 import tf
from training.hooks.base import Hook
from training.write_errors import continue_on_write_error

STEPS = logging.getLogger("steps")  # of the lines that a progress bar replaces
WAITED = "input_seconds"
SLOW_INPUT = 0.1  # from this share of a step on, the log reports the time spent on input
SHOWN = ("loss", "accuracy", "learning_rate")
METRICS = (
    "loss",
    "inference_loss",
    "decay_loss",
    "accuracy",
    "accuracy_margin",
    "learning_rate",
)


class Utilization(NamedTuple):
    """What a step computes, for the log's rates."""

    flops: int = 0  # floating-point operations of a step, of all devices; 0 where not counted
    peak: Optional[float] = None  # FLOP/s of all devices; None where it is not known

    def rates(self, steps: int, seconds: float) -> Dict[str, float]:
        """Achieved FLOP/s, and its share of the peak, where they are known."""
        if not self.flops:
            return {}
        achieved = self.flops * steps / seconds
        rates = {"flops_per_second": round(achieved)}
        if self.peak:
            rates["flops_share"] = round(achieved / self.peak, 4)
        return rates


UNKNOWN = Utilization()


class MetricsLog:
    """metrics.jsonl, which a resumed run continues. A line is written completely or not at all;
    lines that a full disk refuses are written with a later one.
    path: None where another process writes the file."""

    def __init__(self, path: Optional[str], batch_size: int, images: int) -> None:
        self.path, self.batch_size, self.images = path, batch_size, images
        self.seconds_before = 0.0
        self.lost_seconds, self.lost_steps = 0.0, 0  # of steps that a resumed run makes again
        self.in_steps = 0.0  # seconds spent in steps, without those that were lost
        self.begun = time.perf_counter()  # a clock that cannot be set back
        self._pending: List[str] = []

    def resume(self, step: int) -> None:
        """Drops the lines after `step`: the run will write them again, with the same values."""
        if self.path is None:
            return
        found = read_metrics(self.path) if step else []
        kept = [line for line in found if line["step"] <= step]
        self.seconds_before = max([line["seconds"] for line in kept], default=0.0)
        self._count_lost(found, step)
        self.in_steps = sum(line.get("step_seconds", 0.0) for line in kept)
        with atomic_write(self.path) as stream:
            stream.writelines(json.dumps(line, sort_keys=True) + "\n" for line in kept)

    def _count_lost(self, found: List[Dict[str, Any]], step: int) -> None:
        """Adds what was done after the checkpoint of `step` to what earlier resumptions lost."""
        before = max([line.get("lost_seconds", 0.0) for line in found], default=0.0)
        ended = max([line["seconds"] for line in found], default=0.0)
        self.lost_seconds = round(before + max(0.0, ended - self.seconds_before), 3)
        made = max([line["step"] for line in found], default=step)
        lost = max([line.get("lost_steps", 0) for line in found], default=0)
        self.lost_steps = lost + max(0, made - step)

    @property
    def seconds(self) -> float:
        """Seconds of training so far, over all resumptions, without lost ones."""
        return self.seconds_before + time.perf_counter() - self.begun

    def goodput(self) -> Dict[str, Any]:
        """The share of the time that was spent in steps which count, and what was lost."""
        whole = self.seconds + self.lost_seconds
        found: Dict[str, Any] = {"goodput_share": round(self.in_steps / whole, 4)}
        if self.lost_steps:
            found.update(lost_seconds=self.lost_seconds, lost_steps=self.lost_steps)
        return found

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Appends a line of `kind` (train or validation)."""
        if self.path is None:
            return
        seen = step * self.batch_size
        line = dict(
            values,
            kind=kind,
            step=step,
            images_seen=seen,
            epoch=self.epoch(step),
            seconds=round(self.seconds, 3),
        )
        self._pending.append(json.dumps(line, sort_keys=True) + "\n")
        with continue_on_write_error(self.path):
            _append(self.path, "".join(self._pending))
            self._pending = []

    def epoch(self, step: int) -> float:
        """The epochs that `step` steps are."""
        return round(step * self.batch_size / self.images, 4)


def _append(path: str, text: str) -> None:
    """Appends all of the text, or leaves the file as it was."""
    with open(path, "ab") as stream:
        size = stream.tell()
        try:
            stream.write(text.encode("utf-8"))
            stream.flush()
        except OSError:
            os.truncate(path, size)
            raise


class Progress(Hook):
    """The progress bar on a terminal: loss, accuracy, images per second, time left. The log lines
    that repeat it are then hidden, and other lines are printed above it."""

    def __init__(
        self, interval: int, first: int, last: int, batch_size: int, shown: bool = True
    ) -> None:
        self.interval, self.batch_size = interval, batch_size
        disable = None if shown else True  # None: where there is no terminal
        self.bar = tqdm(total=last, initial=first, unit="step", disable=disable, smoothing=0.1)
        self.quiet, self.above = self.bar.disable, contextlib.ExitStack()

    def begin(self, session: tf.Session, step: int) -> None:
        if not self.quiet:
            self.above.enter_context(logging_redirect_tqdm())
            for handler in logging.getLogger().handlers:
                if not isinstance(handler, logging.FileHandler):
                    handler.addFilter(lambda record: record.name != STEPS.name)

    def wants(self, step: int) -> Iterable[str]:
        return SHOWN if not self.quiet and self.due(step) else ()

    def after(self, step: int, values: Dict[str, Any], seconds: float) -> None:
        if not self.quiet and self.due(step):
            self.bar.set_postfix_str(
                f"loss {values['loss']:.3f}, accuracy {values['accuracy']:.3f}, "
                f"{self.batch_size / seconds:.0f} images/s",
                refresh=False,
            )
        self.bar.update(step - self.bar.n)

    def end(self, step: int) -> None:
        self.bar.close()
        self.above.close()


class Metrics(Hook):
    """A line of metrics.jsonl and of the log every interval: the loss, and what the time since the
    line before was spent on. others: name -> hook with `seconds`, whose time is logged too.
    measures_input: whether a step has the scalar input_seconds."""

    def __init__(
        self,
        interval: int,
        log: MetricsLog,
        last: int,
        others: Optional[Mapping[str, Any]] = None,
        measures_input: bool = True,
        utilization: Utilization = UNKNOWN,
    ) -> None:
        self.utilization = utilization
        self.interval, self.log, self.last = interval, log, last
        self.batch_size, self.others = log.batch_size, dict(others or {})
        self.always = (WAITED,) if measures_input else ()
        self.spent = {name: 0.0 for name in self.others}  # so the first line has the start's too
        self._clock: Optional[float] = None  # when the first step had ended
        self._first = 0

    def begin(self, session: Optional[tf.Session], step: int) -> None:
        self._start, self._before = step, self.log.in_steps
        self._reset(step)

    def _reset(self, step: int) -> None:
        self.before, self.seconds, self.waited = step, 0.0, 0.0

    def due(self, step: int) -> bool:
        return super().due(step) or step == self.last

    def wants(self, step: int) -> Iterable[str]:
        return METRICS + self.always if self.due(step) else self.always

    def after(self, step: int, values: Dict[str, Any], seconds: float) -> None:
        self.seconds += seconds
        self.waited += min(float(values.get(WAITED, 0.0)), seconds)
        if self._clock is None:  # the first step also compiles and allocates
            self._clock, self._first = time.perf_counter(), step
        if not self.due(step):
            return
        numbers = {name: float(values[name]) for name in METRICS}
        rate = self.batch_size * (step - self.before) / self.seconds
        share = self.waited / self.seconds
        times = self.times()
        self.log.in_steps += times["step_seconds"]
        rates = self.utilization.rates(step - self.before, self.seconds)
        self.log.write(
            "train",
            step,
            dict(
                numbers,
                images_per_second=round(rate, 2),
                **times,
                **rates,
                **_memory(),
                **self.log.goodput(),
            ),
        )
        STEPS.info(
            "step %d/%d, epoch %.2f, loss %.4f (margin loss %.4f, decay %.4f), accuracy %.4f, "
            "learning rate %.3g, %.1f images/s%s%s%s",
            step,
            self.last,
            self.log.epoch(step),
            *(numbers[name] for name in ("loss", "inference_loss", "decay_loss", "accuracy")),
            numbers["learning_rate"],
            rate,
            _spell_rates(rates),
            f", {share:.0%} of the time waiting for images" if share >= SLOW_INPUT else "",
            self._time_left(step),
        )
        self._reset(step)
        self.spent = {name: hook.seconds for name, hook in self.others.items()}

    def end(self, step: int) -> None:
        """One line about the whole run: the time in steps, and what was lost."""
        if self.log.path is None or step == self._start:
            return
        log = self.log
        goodput = log.goodput()
        lost = (
            f"; {log.lost_steps} steps and {log.lost_seconds:.0f} s were lost and made again"
            if log.lost_steps
            else ""
        )
        rates = self.utilization.rates(step - self._start, max(log.in_steps - self._before, 1e-9))
        logging.info(
            "goodput: %.0f%% of %.0f s in steps%s%s.",
            100 * goodput["goodput_share"],
            log.seconds + log.lost_seconds,
            _spell_rates(rates),
            lost,
        )

    def _time_left(self, step: int) -> str:
        """`, 1:02:03 left`, from the mean since the first step, validations included."""
        made = step - self._first
        if not made or self._clock is None or step >= self.last:
            return ""
        seconds = (time.perf_counter() - self._clock) / made * (self.last - step)
        return f", {datetime.timedelta(seconds=int(seconds))} left"

    def times(self) -> Dict[str, float]:
        """Seconds since the line before: of the steps, of the wait for images in them, and of the
        other hooks."""
        times = {name: hook.seconds - self.spent[name] for name, hook in self.others.items()}
        times["step_seconds"] = self.seconds - self.waited
        if self.always:
            times.update(input_seconds=self.waited, input_share=self.waited / self.seconds)
        return {name: round(value, 4) for name, value in times.items()}


def _memory() -> Dict[str, float]:
    """The most main memory that this process has used so far."""
    peak = peak_memory()
    return {} if peak is None else {"peak_memory_gib": round(peak, 3)}


def _spell_rates(rates: Mapping[str, float]) -> str:
    """`, 41.2 TFLOP/s (26% of the peak)`, or less where less is known."""
    if "flops_per_second" not in rates:
        return ""
    achieved = rates["flops_per_second"] / 1e12
    share = f" ({rates['flops_share']:.0%} of the peak)" if "flops_share" in rates else ""
    return f", {achieved:.3g} TFLOP/s{share}"


class Summaries(Hook):
    """TensorBoard scalars as plain protos: no summary op in the graph. directory: None where
    another process writes them."""

    def __init__(self, interval: int, directory: Optional[str]) -> None:
        self.interval, self.directory = interval, directory
        self.writer = tf.summary.FileWriter(directory) if directory else None

    def begin(self, session: tf.Session, step: int) -> None:
        if self.writer is None:
            return
        started = tf.SessionLog(status=tf.SessionLog.START)  # TensorBoard drops what came after
        self.writer.add_session_log(started, step)

    def wants(self, step: int) -> Iterable[str]:
        return METRICS if self.due(step) else ()

    def after(self, step: int, values: Dict[str, Any], seconds: float) -> None:
        if self.due(step):
            self.add(step, {name: values[name] for name in METRICS})

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes points now. A writer whose disk was full once is not used again: TensorFlow's
        thread behind it has ended."""
        if self.writer is None:
            return
        points = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        written = False
        with continue_on_write_error(str(self.directory)):
            self.writer.add_summary(tf.Summary(value=points), step)
            self.writer.flush()
            written = True
        if not written:
            self.writer = None

    def end(self, step: int) -> None:
        if self.writer is not None:
            with continue_on_write_error(str(self.directory)):
                self.writer.close()
