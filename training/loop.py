"""The training loop. What is shown, written, validated or saved belongs to the hooks."""

import os
import signal
import time


def train_loop(session, step, first, last, hooks, stop):
    """Makes steps first + 1 ... last, or fewer if `stop` is asked for; returns the last one made.
    A hook says by wants(number) which scalars it needs of a step: nothing else is fetched."""
    for hook in hooks:
        hook.begin(session, first)
    number = first
    while number < last and not stop.requested:
        number += 1
        wanted = {name for hook in hooks for name in hook.wants(number)}
        begun = time.perf_counter()
        for part in step.before:
            session.run(part)
        _, values = session.run((step.train, {name: step.scalars[name] for name in wanted}))
        seconds = time.perf_counter() - begun
        for hook in hooks:
            hook.after(number, values, seconds)
    for hook in hooks:
        hook.end(number)
    return number


class Stop:
    """Ctrl-C and SIGTERM ask the loop to end after its step; a second one ends the process."""

    def __init__(self):
        self.requested = None

    def __enter__(self):
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number, _frame):
        if self.requested is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.requested = signal.Signals(number).name
