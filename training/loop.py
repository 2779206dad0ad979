"""The training loop. What is shown, written, validated or saved belongs to the hooks."""

import os
import signal
import time

# Scalars that each part of a batch has for itself: how those of a step's parts become one.
OF_PARTS = {
    "input_seconds": sum,
    "damaged": lambda names: b"\n".join(name for name in names if name),
}


def train_loop(session, step, first, last, hooks, stop, turns=1):
    """Makes steps first + 1 ... last, or fewer if `stop` is asked for; returns the last one made.
    A hook says by wants(number) which scalars it needs of a step: nothing else is fetched.
    turns: how many steps step.train makes at a time; all intervals are multiples of it."""
    for hook in hooks:
        hook.begin(session, first)
    number = first
    while number < last and not stop.requested:
        number += turns
        wanted = {name for hook in hooks for name in hook.wants(number)}
        begun = time.perf_counter()
        values = make_step(session, step, wanted, stop)
        seconds = time.perf_counter() - begun
        for hook in hooks:
            hook.after(number, values, seconds)
    for hook in hooks:
        hook.end(number)
    return number


def make_step(session, step, wanted, stop=None):
    """Makes one step; returns the wanted scalars of it. With several processes, they agree in it
    whether it is the last: all of them must make the same steps."""
    feed = {}
    if step.asked is not None:
        feed, wanted = {step.asked: stop.asked is not None}, set(wanted) | {"asked"}
    shown = {name: step.scalars[name] for name in wanted}
    of_parts = {name: shown[name] for name in wanted if name in OF_PARTS}
    found = [session.run((part, of_parts))[1] for part in step.before]
    values = session.run((step.train, shown), feed)[1]
    if values.get("asked"):
        stop.requested = stop.asked or "another host"
    for name in of_parts:
        values[name] = OF_PARTS[name]([part[name] for part in found] + [values[name]])
    return values


class StopSignal:
    """Ctrl-C and SIGTERM ask the loop to end after its step; a second one ends the process.
    asked: the signal that came; requested: what ends the loop. together: whether other processes
    have to agree first, in a step."""

    def __init__(self, together=False):
        self.asked = self.requested = None
        self.together = together

    def __enter__(self):
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number, _frame):
        if self.asked is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.asked = signal.Signals(number).name
        if not self.together:
            self.requested = self.asked
