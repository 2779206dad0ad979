"""The time to the first step, by what it was spent on: one line of the log."""

import logging
import os
import time
from typing import Any, Dict

from runtime.tf1 import tf
from training.hooks.base import Hook


class Startup(Hook):
    """Each done(what) ends a part of the start-up; the first step ends the last. It is the last
    hook: what the others do before the first step is a part of its own."""

    def __init__(self) -> None:
        self.parts = [("import", _process_seconds())]
        self.last = time.perf_counter()

    def done(self, what: str) -> None:
        now = time.perf_counter()
        self.parts.append((what, now - self.last))
        self.last = now

    def begin(self, session: tf.Session, step: int) -> None:
        self.done("first validation")

    def after(self, step: int, values: Dict[str, Any], seconds: float) -> None:
        if self.parts:
            self.done("first step")
            parts = ", ".join(f"{what} {spent:.1f}" for what, spent in self.parts)
            total = sum(spent for _, spent in self.parts)
            logging.info("first step after %.1f s: %s.", total, parts)
            self.parts = []


def _process_seconds() -> float:
    """The age of this process in seconds, on Linux; else 0."""
    try:
        with open("/proc/self/stat") as stat, open("/proc/uptime") as uptime:
            ticks = int(stat.read().rpartition(")")[2].split()[19])
            return float(uptime.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0
