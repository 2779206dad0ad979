"""Checkpoints at an interval and at the end."""

import logging
import time
from typing import Any, Dict, Mapping, Optional

from checkpoint.writer import CheckpointWriter
from runtime.tf1 import tf
from training.hooks.base import Hook, RunContext


class Checkpoints(Hook):
    """Writes a checkpoint every `interval` steps and at the end. It comes after Validation, so that
    a resumed run repeats no validation and omits none. best: the record's highest accuracies.

    A failed write is a warning, as the next may succeed; `failure` is the reason why the state of
    the last step is not saved, after all attempts."""

    def __init__(
        self,
        interval: int,
        writer: CheckpointWriter,
        best: Mapping[str, float],
        run: RunContext,
    ) -> None:
        self.interval, self.writer, self.best, self.run = interval, writer, best, run
        self.saved: Optional[int] = None  # the last step that is on disk
        self.failure: Optional[str] = None
        self.seconds = 0.0  # spent on checkpoints so far

    def begin(self, session: tf.Session, step: int) -> None:
        self.session, self.saved = session, step

    def after(self, step: int, values: Dict[str, Any], seconds: float) -> None:
        if self.due(step):
            self._save(step)

    def end(self, step: int) -> None:
        """Saves the last state, which no later step would."""
        if step != self.saved:
            self._save(step)
        if step != self.saved:
            self.failure = self.writer.failure or "the cause is unknown"

    def _save(self, step: int) -> None:
        seen = step * self.run.batch_size
        begun = time.perf_counter()
        with self.run.watchdog.pause("a checkpoint"):
            prefix = self.writer.save(self.session, step, images_seen=seen, best=self.best)
        self.seconds += time.perf_counter() - begun
        if prefix:
            self.saved = step
            if self.run.ranks.leads:
                logging.info("step %d: saved %s", step, prefix)
