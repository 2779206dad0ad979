"""The training loop. What is logged, written, validated or saved belongs to the hooks."""

import os
import signal
import threading
import time
from typing import Any, Callable, Dict, Iterable, Optional, Sequence, Tuple

from runtime.tf1 import tf
from training.graph.step import StepOps
from training.hooks.base import Hook

# Scalars that each part of a batch has: how those of all parts become one.
OF_PARTS: Dict[str, Callable[[Any], Any]] = {
    "input_seconds": sum,
    "damaged": lambda names: b"\n".join(name for name in names if name),
}
SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPED_ELSEWHERE = 128 + signal.SIGTERM  # exit code where another host got the signal


class StopSignal:
    """Ctrl-C and SIGTERM end the loop after its step; a second one ends the process at once, even
    while TensorFlow has the main thread.

    received: the signal of this process; agreed: what ends the loop. several_hosts: whether all
    processes agree in a step before they stop, since all must make the same steps."""

    def __init__(self, several_hosts: bool = False) -> None:
        self.received: Optional[str] = None
        self.agreed: Optional[str] = None
        self.several_hosts = several_hosts

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that was stopped; 0 where none was."""
        if self.agreed is None:
            return 0
        return 128 + signal.Signals[self.received] if self.received else STOPPED_ELSEWHERE

    def __enter__(self) -> "StopSignal":
        self._before: Dict[int, Any] = {}
        # Python accepts handlers in the main thread only; a caller's thread trains without them.
        if threading.current_thread() is not threading.main_thread():
            return self
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        # Python runs handlers between two bytecodes, and so not inside session.run. The C handler
        # writes each signal to this pipe at once; a thread counts them.
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer)
        threading.Thread(target=_end_at_second, args=(self._reader,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        if not self._before:
            return
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._writer)  # which ends the thread
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: Any) -> None:
        if self.received is not None:
            _end_now(number)
        self.received = signal.Signals(number).name
        if not self.several_hosts:
            self.agreed = self.received


def _end_at_second(reader: int) -> None:
    """Ends the process at the second SIGINT or SIGTERM; returns when the pipe is closed."""
    count = 0
    with os.fdopen(reader, "rb", buffering=0) as stream:
        while True:
            numbers = stream.read(16)
            if not numbers:
                return
            for number in numbers:
                count += number in SIGNALS
                if count > 1:
                    _end_now(number)


def _end_now(number: int) -> None:
    os.write(2, b"second signal: the run ends at once, and this step is not saved.\n")
    os._exit(128 + number)


def train_loop(
    session: tf.Session,
    ops: StepOps,
    steps: Tuple[int, int],
    hooks: Sequence[Hook],
    stop: StopSignal,
    steps_per_call: int = 1,
) -> int:
    """Makes the steps first + 1 ... last of `steps`, or fewer after a stop signal; returns the last
    one made. A hook names by wants(step) the scalars that it needs: nothing else is fetched.
    steps_per_call: the steps that ops.train makes; all intervals are multiples of it."""
    step, last = steps
    for hook in hooks:
        hook.begin(session, step)
    while step < last and not stop.agreed:
        step += steps_per_call
        wanted = {name for hook in hooks for name in hook.wants(step)}
        begun = time.perf_counter()
        values = make_step(session, ops, wanted, stop)
        seconds = time.perf_counter() - begun
        for hook in hooks:
            hook.after(step, values, seconds)
    for hook in hooks:
        hook.end(step)
    return step


def make_step(
    session: tf.Session, ops: StepOps, wanted: Iterable[str], stop: Optional[StopSignal] = None
) -> Dict[str, Any]:
    """Makes one step; returns its wanted scalars. Several processes agree in it whether it is the
    last: all of them must make the same steps."""
    feed, names = {}, set(wanted)
    if ops.stop_feed is not None:
        feed = {ops.stop_feed: stop is not None and stop.received is not None}
        names.add("stop_count")
    fetches = {name: ops.scalars[name] for name in names}
    of_parts = {name: fetches[name] for name in names if name in OF_PARTS}
    partial = [session.run((part, of_parts))[1] for part in ops.accumulate]
    values = session.run((ops.train, fetches), feed)[1]
    if values.get("stop_count") and stop is not None:
        stop.agreed = stop.received or "another host"
    for name in of_parts:
        values[name] = OF_PARTS[name]([part[name] for part in partial] + [values[name]])
    return values
