"""What happens beside the steps; each hook owns its interval.

A hook has wants(step) -> names of scalars to fetch, after(step, values, seconds), begin and end.
"""

import contextlib
import json
import logging
import os
import time

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from evaluation.report.run_logs import read_metrics
from evaluation.report.writer import write_report
from evaluation.verification_set import evaluate_set
from runtime.distributed.ranks import SINGLE
from runtime.distributed.watchdog import NO_WATCHDOG
from runtime.tf1 import tf

STEPS = logging.getLogger("steps")  # of the lines that a bar makes needless
WAITED = "input_seconds"
SLOW_INPUT = 0.1  # the share of a step from which on the log says that it waits for images
HUGE = 1e15  # a number of an embedding whose square float32 does not hold for long
SHOWN = ("loss", "accuracy", "learning_rate")
METRICS = (
    "loss",
    "inference_loss",
    "decay_loss",
    "accuracy",
    "accuracy_margin",
    "learning_rate",
)


class Hook:
    """Does nothing; the base of the others."""

    interval = None

    def due(self, step):
        """Whether this step is one of the hook's."""
        return self.interval is not None and step % self.interval == 0

    def begin(self, session, step):
        pass

    def wants(self, step):
        return ()

    def after(self, step, values, seconds):
        pass

    def end(self, step):
        pass


class MetricsLog:
    """metrics.jsonl: a line is there whole or not at all, and a resumed run goes on in it.
    path: None where another process writes it."""

    def __init__(self, path, batch_size, images):
        self.path, self.batch_size, self.images = path, batch_size, images
        self.seconds_before, self.begun = 0.0, time.perf_counter()  # no clock that is set back

    def resume(self, step):
        """Drops the lines after `step`: the run will write them again, the same."""
        if self.path is None:
            return
        kept = [line for line in read_metrics(self.path) if step and line["step"] <= step]
        self.seconds_before = max([line["seconds"] for line in kept], default=0.0)
        with open(self.path + ".tmp", "w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(line, sort_keys=True) + "\n" for line in kept)
        os.replace(self.path + ".tmp", self.path)

    def write(self, kind, step, facts):
        if self.path is None:
            return
        seen = step * self.batch_size
        line = dict(
            facts,
            kind=kind,
            step=step,
            images_seen=seen,
            epoch=round(seen / self.images, 4),
            seconds=round(self.seconds_before + time.perf_counter() - self.begun, 3),
        )
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, sort_keys=True) + "\n")


class Progress(Hook):
    """The bar on a terminal: loss, accuracy, images a second, time left. What the bar shows is then
    not said a second time, and what is said stays above it."""

    def __init__(self, interval, first, last, batch_size, shown=True):
        self.interval, self.batch_size = interval, batch_size
        quiet = None if shown else True  # None: where there is no terminal
        self.bar = tqdm(total=last, initial=first, unit="step", disable=quiet, smoothing=0.1)
        self.quiet, self.above = self.bar.disable, contextlib.ExitStack()

    def begin(self, session, step):
        if not self.quiet:
            self.above.enter_context(logging_redirect_tqdm())
            for handler in logging.getLogger().handlers:
                if not isinstance(handler, logging.FileHandler):
                    handler.addFilter(lambda record: record.name != STEPS.name)

    def wants(self, step):
        return SHOWN if not self.quiet and self.due(step) else ()

    def after(self, step, values, seconds):
        if not self.quiet and self.due(step):
            self.bar.set_postfix_str(
                f"loss {values['loss']:.3f}, accuracy {values['accuracy']:.3f}, "
                f"{self.batch_size / seconds:.0f} images/s",
                refresh=False,
            )
        self.bar.update(step - self.bar.n)

    def end(self, step):
        self.bar.close()
        self.above.close()


class Metrics(Hook):
    """A line of metrics.jsonl every interval, and of the log: what the loss is, and where the time
    since the line before went. others: name -> hook, whose time is told beside that of the steps.
    waits: whether a step tells how long it waited for its images."""

    def __init__(self, interval, log, batch_size, last, others=None, waits=True):
        self.interval, self.log, self.batch_size, self.last = interval, log, batch_size, last
        self.others, self.always = others or {}, (WAITED,) if waits else ()
        self.spent = {name: 0.0 for name in self.others}  # the first line tells the start's too

    def begin(self, session, step):
        self.before, self.seconds, self.waited = step, 0.0, 0.0

    def due(self, step):
        return super().due(step) or step == self.last

    def wants(self, step):
        return METRICS + self.always if self.due(step) else self.always

    def after(self, step, values, seconds):
        self.seconds += seconds
        self.waited += min(float(values.get(WAITED, 0.0)), seconds)
        if not self.due(step):
            return
        facts = {name: float(values[name]) for name in METRICS}
        rate = self.batch_size * (step - self.before) / self.seconds
        share = self.waited / self.seconds
        self.log.write("train", step, dict(facts, images_per_second=round(rate, 2), **self.times()))
        STEPS.info(
            "step %d/%d, loss %.4f (margin loss %.4f, decay %.4f), accuracy %.4f, "
            "learning rate %.3g, %.1f images/s%s",
            step,
            self.last,
            *(facts[name] for name in ("loss", "inference_loss", "decay_loss", "accuracy")),
            facts["learning_rate"],
            rate,
            f", {share:.0%} of the time waiting for images" if share >= SLOW_INPUT else "",
        )
        self.begin(None, step)
        self.spent = {name: hook.seconds for name, hook in self.others.items()}

    def times(self):
        """Seconds since the line before: of the steps, of them waiting for images, and of the
        other hooks."""
        times = {name: hook.seconds - self.spent[name] for name, hook in self.others.items()}
        times["step_seconds"] = self.seconds - self.waited
        if self.always:
            times.update(input_seconds=self.waited, input_share=self.waited / self.seconds)
        return {name: round(number, 4) for name, number in times.items()}


class DamagedRecords(Hook):
    """Counts the damaged records that --on_error skip passed over; too many end the run."""

    def __init__(self, on_error, most):
        self.skipping, self.most, self.names = on_error == "skip", most, []

    def wants(self, step):
        return ("damaged",) if self.skipping else ()

    def after(self, step, values, seconds):
        found = values["damaged"].decode().splitlines() if self.skipping else []
        self.names += found
        for name in found:
            logging.warning("step %d: passed over %s", step, name)
        if len(self.names) > self.most:
            raise ValueError(
                f"{len(self.names)} damaged records by step {step}, the last of them {found[-1]}; "
                "convert the data again, or raise --max_errors."
            )

    def end(self, step):
        if self.names:
            logging.warning("%d damaged records were passed over.", len(self.names))


class Summaries(Hook):
    """TensorBoard scalars, as plain protos: no summary op in the graph. directory: None where
    another process writes them."""

    def __init__(self, interval, directory):
        self.interval = interval
        self.writer = tf.summary.FileWriter(directory) if directory else None

    def begin(self, session, step):
        if self.writer is None:
            return
        started = tf.SessionLog(status=tf.SessionLog.START)  # TensorBoard drops what came after
        self.writer.add_session_log(started, step)

    def wants(self, step):
        return METRICS if self.due(step) else ()

    def after(self, step, values, seconds):
        if self.due(step):
            self.add(step, {name: values[name] for name in METRICS})

    def add(self, step, scalars):
        if self.writer is None:
            return
        points = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self.writer.add_summary(tf.Summary(value=points), step)
        self.writer.flush()

    def end(self, step):
        if self.writer is not None:
            self.writer.close()


class Overflow(Exception):  # noqa: N818
    """Embeddings whose squares float32 cannot hold."""


class Validation(Hook):
    """Accuracy on each set every interval and at the end; the best is kept, the report redrawn."""

    def __init__(
        self, step, plan, config, log, summaries, writer, best=None, ranks=SINGLE, dog=NO_WATCHDOG
    ):
        self.interval, self.last, self.step = plan.validate_steps, plan.total_steps, step
        self.ranks, self.dog = ranks, dog
        self.plan, self.config = plan, config
        self.log, self.summaries, self.writer = log, summaries, writer
        self.best = dict(best or {})  # "mean" -> the mean over sets, and each set's own highest
        self.seconds = 0.0  # spent on it so far

    def due(self, step):
        return bool(self.plan.sets) and (super().due(step) or step == self.last)

    def begin(self, session, step):
        self.session = session
        if step == 0 and self.plan.sets:
            self.validate(0)

    def after(self, step, values, seconds):
        if self.due(step):
            self.validate(step)

    def validate(self, step):
        begun = time.perf_counter()
        with self.dog.pause("a validation"):
            found = {name: self._evaluate(name, step) for name in self.plan.sets}
        results = {name: result for name, result in found.items() if result is not None}
        if results:
            self._record(step, results)
        self.seconds += time.perf_counter() - begun

    def _record(self, step, results):
        rows = {name: result.row() for name, result in results.items()}
        for name, row in rows.items():
            self.log.write("validation", step, row)
            self.summaries.add(step, _accuracies(name, row))
            highest = max(self.best.get(name, 0.0), row["accuracy_flip"] if step else 0.0)
            self.best[name] = highest
            highest_so_far = f"highest so far {highest:.4f}" if step else "untrained"
            if not self.ranks.leads:
                continue
            logging.info(
                "step %d, %s: accuracy %.4f +- %.4f, with mirror %.4f +- %.4f (%s), threshold %.2f",
                step,
                name,
                *(row[key] for key in ("accuracy", "accuracy_std")),
                *(row[key] for key in ("accuracy_flip", "accuracy_flip_std")),
                highest_so_far,
                row["threshold"],
            )
        mean = sum(row["accuracy_flip"] for row in rows.values()) / len(rows)
        if step and mean > self.best.get("mean", 0.0):
            self.best["mean"] = mean
            self._keep_best(step, results)
        if self.ranks.leads:
            write_report(self.config.output_path)

    def _evaluate(self, name, step):
        """SetResult, or None where the net's numbers are beyond float32: a deep net that is not yet
        normalised by the moving statistics it will have after some steps."""
        try:
            return self._result(name)
        except Overflow:
            logging.warning(
                "step %d, %s: not judged, as embeddings overflow before the moving statistics have "
                "followed enough batches.",
                step,
                name,
            )
            return None

    def _result(self, name):
        each = self.config.eval_batch_size  # of a rank; all get all embeddings
        first, last = self.ranks.local[0] * each, (self.ranks.local[-1] + 1) * each

        def embed_batch(images_BHWC):
            feed = {self.step.images_BHWC: images_BHWC[first:last]}
            both = self.session.run((self.step.plain_BD, self.step.mirrored_BD), feed)
            if not all(np.abs(part_BD).max() < HUGE for part_BD in both):
                raise Overflow()
            return both

        return evaluate_set(
            embed_batch,
            self.plan.sets[name],
            name,
            tuple(self.plan.spec.image_size),
            each * self.ranks.size,
        )

    def _keep_best(self, step, results):
        seen = step * self.config.batch_size
        with self.dog.pause("a checkpoint"):
            self.writer.save_best(self.session, step, images_seen=seen, best=self.best)
        if not self.ranks.leads:
            return
        directory = os.path.join(self.config.output_path, "best")
        os.makedirs(directory, exist_ok=True)
        for name, result in results.items():
            result.save(os.path.join(directory, f"{name}.npz"), step=step)


def _accuracies(name, row):
    keys = ("accuracy", "accuracy_flip", "threshold")
    return {f"{name}/{key}": row[key] for key in keys}


class Checkpoints(Hook):
    """A checkpoint every interval and at the end. It comes after Validation, so that a resumed
    run repeats no validation and misses none."""

    def __init__(self, interval, writer, batch_size, validation, dog=NO_WATCHDOG):
        self.interval, self.writer, self.dog = interval, writer, dog
        self.batch_size, self.validation = batch_size, validation
        self.saved, self.seconds = None, 0.0

    def begin(self, session, step):
        self.session, self.saved = session, step

    def after(self, step, values, seconds):
        if self.due(step):
            self._save(step)

    def end(self, step):
        if step != self.saved:
            self._save(step)

    def _save(self, step):
        seen = step * self.batch_size
        begun = time.perf_counter()
        with self.dog.pause("a checkpoint"):
            best = self.validation.best
            prefix = self.writer.save(self.session, step, images_seen=seen, best=best)
        self.seconds += time.perf_counter() - begun
        if prefix:
            self.saved = step
            if self.writer.ranks.leads:
                logging.info("step %d: saved %s", step, prefix)
