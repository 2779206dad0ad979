"""Validation: accuracy on each verification set, the best checkpoint and the report."""

import logging
import os
import time
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from checkpoint.writer import CheckpointWriter
from evaluation.report.writer import write_report
from evaluation.verification_set import NetFunction, OpenSets, SetResult
from runtime.distributed.ranks import Ranks
from runtime.tf1 import tf
from training.hooks.base import Hook, RunContext
from training.hooks.metrics import MetricsLog, Summaries
from training.write_errors import continue_on_write_error

HUGE = 1e15  # an embedding's component whose square is near the end of float32


class Overflow(Exception):  # noqa: N818
    """Embeddings whose squares float32 cannot hold."""


class Evaluator:
    """Evaluates sets with the graph of a step. images_per_rank: of one evaluation batch."""

    def __init__(self, ops: Any, image_size: Tuple[int, int], images_per_rank: int, ranks: Ranks):
        self.images_BHWC, self.embeddings = ops.images_BHWC, (ops.plain_BD, ops.mirrored_BD)
        self.image_size, self.batch_size = image_size, images_per_rank * ranks.size
        first, last = ranks.local[0], ranks.local[-1] + 1
        self.share = slice(first * images_per_rank, last * images_per_rank)
        self.sets = OpenSets()

    def evaluate(self, session: tf.Session, name: str, path: str) -> SetResult:
        """The result of a set; all ranks get all embeddings. Raises Overflow."""

        def embed_batch(images_BHWC: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
            both = session.run(self.embeddings, {self.images_BHWC: images_BHWC[self.share]})
            if not all(np.abs(part_BD).max() < HUGE for part_BD in both):
                raise Overflow()
            return both

        net = NetFunction(embed_batch, self.image_size, self.batch_size)
        return self.sets.open(path).evaluate(net)._replace(name=name)


class Outputs(NamedTuple):
    """Where a validation writes."""

    log: MetricsLog
    summaries: Summaries
    writer: CheckpointWriter
    run_directory: str  # of report.html and best/*.npz


class Validation(Hook):
    """Validates every interval, at the start of a new run and at the end; keeps the best
    checkpoint and redraws the report. sets: name -> path. best: the highest accuracies so far,
    from the record of the checkpoint that is resumed."""

    def __init__(
        self,
        interval: int,
        sets: Mapping[str, str],
        evaluator: Evaluator,
        outputs: Outputs,
        run: RunContext,
        best: Optional[Mapping[str, float]] = None,
    ) -> None:
        self.interval, self.sets, self.run = interval, dict(sets), run
        self.evaluator, self.outputs = evaluator, outputs
        self.best = dict(best or {})  # "mean" -> the mean over sets, and each set's own highest
        self.start = "untrained"  # what the weights are before the first step
        self.seconds = 0.0  # spent on validations so far

    def due(self, step: int) -> bool:
        return bool(self.sets) and (super().due(step) or step == self.run.last)

    def begin(self, session: tf.Session, step: int) -> None:
        self.session = session
        if step == 0 and self.sets:
            self.validate(0)

    def after(self, step: int, values: Dict[str, Any], seconds: float) -> None:
        if self.due(step):
            self.validate(step)

    def end(self, step: int) -> None:
        if self.run.ranks.leads and not self.sets:  # else it was drawn by the last validation
            self._write_report()

    def validate(self, step: int) -> None:
        begun = time.perf_counter()
        with self.run.watchdog.pause("a validation"):
            found = {name: self._evaluate(name, step) for name in self.sets}
        results = {name: result for name, result in found.items() if result is not None}
        if results:
            self._record(step, results)
        self.seconds += time.perf_counter() - begun

    def _record(self, step: int, results: Dict[str, SetResult]) -> None:
        rows = {name: result.row() for name, result in results.items()}
        for name, row in rows.items():
            self.outputs.log.write("validation", step, row)
            self.outputs.summaries.add(step, _accuracies(name, row))
            self.best[name] = max(self.best.get(name, 0.0), row["accuracy_flip"] if step else 0.0)
            if self.run.ranks.leads:
                self._log_row(step, name, row)
        mean = sum(row["accuracy_flip"] for row in rows.values()) / len(rows)
        if step and mean > self.best.get("mean", 0.0):
            self.best["mean"] = mean
            self._save_best(step, results)
        if self.run.ranks.leads:
            self._write_report()

    def _log_row(self, step: int, name: str, row: Mapping[str, Any]) -> None:
        logging.info(
            "step %d, %s: accuracy %.4f +- %.4f, with mirror %.4f +- %.4f (%s), threshold %.2f",
            step,
            name,
            *(row[key] for key in ("accuracy", "accuracy_std")),
            *(row[key] for key in ("accuracy_flip", "accuracy_flip_std")),
            f"highest so far {self.best[name]:.4f}" if step else self.start,
            row["threshold"],
        )

    def _evaluate(self, name: str, step: int) -> Optional[SetResult]:
        """The set's result, or None where embeddings exceed float32: a deep net that is not yet
        normalized by the moving statistics that it will have after some steps."""
        try:
            return self.evaluator.evaluate(self.session, name, self.sets[name])
        except Overflow:
            logging.warning(
                "step %d, %s: not evaluated, as embeddings overflow before the moving statistics "
                "have followed enough batches.",
                step,
                name,
            )
            return None

    def _save_best(self, step: int, results: Dict[str, SetResult]) -> None:
        seen = step * self.run.batch_size
        with self.run.watchdog.pause("a checkpoint"):
            self.outputs.writer.save_best(self.session, step, images_seen=seen, best=self.best)
        if not self.run.ranks.leads:
            return
        directory = os.path.join(self.outputs.run_directory, "best")
        for name, result in results.items():
            path = os.path.join(directory, f"{name}.npz")
            with continue_on_write_error(path):
                os.makedirs(directory, exist_ok=True)
                result.save(path, step=step)

    def _write_report(self) -> None:
        path = os.path.join(self.outputs.run_directory, "report.html")
        with continue_on_write_error(path):
            write_report(self.outputs.run_directory)


def _accuracies(name: str, row: Mapping[str, Any]) -> Dict[str, float]:
    keys = ("accuracy", "accuracy_flip", "threshold")
    return {f"{name}/{key}": row[key] for key in keys}
