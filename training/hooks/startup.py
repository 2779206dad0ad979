"""How long a run took to its first step, and on what: one line of the log."""

import logging
import os
import time

from training.hooks.base import Hook


class Startup(Hook):
    """Each done(what) ends a part of the start; the first step ends the last. To be the last hook:
    what the others do before the first step is a part of its own."""

    def __init__(self):
        self.parts = [("import", _process_seconds())]
        self.last = time.perf_counter()

    def done(self, what):
        now = time.perf_counter()
        self.parts.append((what, now - self.last))
        self.last = now

    def begin(self, session, step):
        self.done("first validation")

    def after(self, step, values, seconds):
        if self.parts:
            self.done("first step")
            told = ", ".join(f"{what} {spent:.1f}" for what, spent in self.parts)
            total = sum(spent for _, spent in self.parts)
            logging.info("first step after %.1f s: %s.", total, told)
            self.parts = []


def _process_seconds():
    """How long ago this process began, where the system tells (Linux); else 0."""
    try:
        with open("/proc/self/stat") as stat, open("/proc/uptime") as uptime:
            ticks = int(stat.read().rpartition(")")[2].split()[19])
            return float(uptime.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0
