"""Ends this process when another host is lost: TensorFlow may wait for it forever.

TensorFlow 1.15 hangs in a collective after its peer is lost, and its own timeouts do not apply;
2.x raises an error, but hangs where the peer exists and does not respond. A thread that counts
seconds works on both.
"""

import contextlib
import logging
import os
import sys
import threading
import time
from typing import Any, Iterator, List, Optional, Sequence

from runtime.cli import USER_MISTAKE
from runtime.distributed.heartbeat import Heartbeat, HostState
from runtime.files import first_line

LOST = 75  # exit code: a host was lost; a supervisor may restart the run (EX_TEMPFAIL)
# Times the limit: for all hosts to start, the first step (which compiles), a validation, a
# checkpoint. They take minutes where a step takes seconds.
PATIENCE = 10
# Beats per limit, at most one a second: a lost host misses several within every share below.
BEATS_PER_LIMIT = 12
PEER_CODES = {4, 10, 14}  # of tf.errors: DeadlineExceeded, Aborted, Unavailable: of a peer alone
OWN_OR_PEER_CODES = {1, 13}  # Cancelled, Internal: of a peer, or a fault of our own

# A host counts as silent when its file has been read without a change for this share of the limit.
# In steps: all files are read on every beat from READ_ALL of the limit on, before that one per
# beat. At the limit a file has thus been observed for half the limit, less a beat or so (1/12),
# and the share must be less than that for a lost host to be named on time.
READ_ALL = 0.5
SILENT_IN_STEPS = 0.4
# After TensorFlow's own error this thread has NAME_WAIT of the limit to find the lost host: three
# missed beats must be enough.
SILENT_AFTER_ERROR = 0.25
NAME_WAIT = 0.5
# While a host starts, validates or saves, a busy disk may delay its file: the whole limit.
SILENT_WHEN_BUSY = 1.0


class Watchdog:
    """with Watchdog(60, hosts.addresses, hosts.index, output) as watchdog: watchdog.feed(step) ...
    Entering it waits for all hosts. directory: shared by all hosts. With at most one address it
    does nothing. A beat that the disk fails to write is not a lost host: silent hosts are looked
    for only when no step completes for `limit` seconds."""

    def __init__(
        self, limit: float, hosts: Sequence[str], index: int, directory: Optional[str]
    ) -> None:
        self.limit, self.hosts, self.index = float(limit), tuple(hosts), index
        self.beat: Any = None  # a Heartbeat where there are several hosts
        if len(self.hosts) > 1:
            assert directory is not None
            interval = min(1.0, self.limit / BEATS_PER_LIMIT)
            self.beat = Heartbeat(directory, index, len(self.hosts), interval)
        self._step, self._fed = 0, time.monotonic()
        self._pause: Optional[str] = "starting"  # name of what takes long; None in steps
        self._error: Optional[BaseException] = None
        self._end = threading.Event()

    def __enter__(self) -> "Watchdog":
        if self.beat:
            self.beat.start()
            self._wait_for_hosts()
            self._fed = time.monotonic()
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def feed(self, step: int) -> None:
        """After each step: all hosts are alive, since each took part in it."""
        self._step, self._pause, self._fed = step, None, time.monotonic()
        if self.beat:
            self.beat.publish(step=step, phase="steps")

    @contextlib.contextmanager
    def pause(self, name: str) -> Iterator[None]:
        """Allows PATIENCE times the limit inside, here and at the hosts that wait for this one;
        name: for messages, as `a checkpoint`."""
        before = self._pause  # "starting" until the first step has completed
        self._set_pause(name)
        yield
        self._set_pause(before)

    def _set_pause(self, name: Optional[str]) -> None:
        self._pause, self._fed = name, time.monotonic()
        if self.beat:
            self.beat.publish(phase=name or "steps")

    def __exit__(self, kind: object, error: Optional[BaseException], _trace: object) -> None:
        if not self.beat:
            return
        code = getattr(error, "error_code", None)
        if error is not None and code in PEER_CODES | OWN_OR_PEER_CODES:
            self._wait_for_name(error)
            if code in PEER_CODES:
                self._exit(f"host {self._name(self.index)}: {first_line(error)}")
        self._end.set()
        failed = error is not None and not isinstance(error, SystemExit)
        self.beat.stop(f"failed: {first_line(error)}" if failed and error else "ended")

    def _wait_for_hosts(self) -> None:
        missing = self.beat.gather(PATIENCE * self.limit)
        if self.beat.duplicate:
            raise ValueError(self.beat.duplicate_message(self.beat.duplicate))
        if missing:
            names = ", ".join(self._name(i) for i in missing)
            raise ValueError(
                f"host {names} did not start within {PATIENCE * self.limit:g} s: it has written "
                f"nothing to {self.beat.directory}/alive; start its process, with an output "
                "directory that all hosts share."
            )
        self.beat.publish(phase="starting")

    def _watch(self) -> None:
        """Reads memory only, so that a disk that hangs does not block this thread."""
        while not self._end.wait(min(0.2, self.beat.interval / 2)):
            late = time.monotonic() - self._fed
            self.beat.read_all = late > READ_ALL * self.limit or self._error is not None
            if self.beat.duplicate:
                self._exit(self.beat.duplicate_message(self.beat.duplicate), code=USER_MISTAKE)
            self._exit_if_a_host_failed()
            sentence = self._restarted() or self._overdue(late)
            if sentence:
                self._exit(sentence)

    def _exit_if_a_host_failed(self) -> None:
        """Before the first step a failure is a mistake in the flags, which this process may find as
        well: it gets the time to print its own message, and a restart would not help."""
        for index, seen in sorted(self.beat.seen.items()):
            if not seen.phase.startswith("failed"):
                continue
            name = f"host {self._name(index)} ended"
            if self._step:
                self._exit(f"{name} at step {seen.step}: {seen.phase}")
            elif time.monotonic() - seen.since > min(5.0, self.limit / 2):
                self._exit(f"{name} before the first step: {seen.phase}", code=USER_MISTAKE)

    def _restarted(self) -> Optional[str]:
        """The sentence about a host with another process than at the start of this run."""
        for index, seen in sorted(self.beat.seen.items()):
            if seen.process != self.beat.peers[index]:
                return f"host {self._name(index)} was restarted after step {self._step}"
        return None

    def _overdue(self, late: float) -> Optional[str]:
        """The sentence about the hosts that delay a step for too long; None if it is on time."""
        if late < self.limit and self._error is None:
            return None
        silent = self._silent()
        if silent:
            return self._no_progress(silent, late)
        if late < self.limit:
            return None
        others = self.beat.seen.values()
        busy = self._pause or any(s.phase not in ("steps", "ended") for s in others)
        if busy and late < PATIENCE * self.limit:
            return None
        return self._no_progress(self._behind(), late)

    def _silent(self) -> List[int]:
        """Hosts with a file that was read repeatedly and has not changed."""
        if self._error is not None:
            share = SILENT_AFTER_ERROR
        elif self._pause:
            share = SILENT_WHEN_BUSY
        else:
            share = SILENT_IN_STEPS
        enough = share * self.limit
        return [i for i in self.beat.others if (self.beat.seconds_unchanged(i) or 0.0) >= enough]

    def _behind(self) -> List[int]:
        """Of hosts that are all alive, those that the others wait for."""
        seen = self.beat.seen
        ended = [i for i in seen if seen[i].phase == "ended"]
        steps = [seen[i].step for i in seen] + [self._step]
        slow = [i for i in seen if seen[i].step < max(steps)]
        busy = [i for i in seen if seen[i].phase != "steps"]
        return ended or slow or busy

    def _no_progress(self, indices: List[int], late: float) -> str:
        if not indices:
            return (
                f"no host has made progress since step {self._step} for {late:.0f} s, but all are "
                "alive: the network between them, a disk or a device hangs"
            )
        return f"{', '.join(self._state(i) for i in indices)} for {late:.0f} s"

    def _state(self, index: int) -> str:
        """The last known state of a host."""
        seen: HostState = self.beat.seen[index]
        name = self._name(index)
        if seen.phase == "ended":
            return f"host {name} ended after step {seen.step}; this host waits for it"
        step = max(seen.step, self._step)  # it took part in each step that completed here
        pause = f" ({seen.phase})" if seen.phase != "steps" and seen.step == step else ""
        return f"host {name}: no progress since step {step}{pause}"

    def _wait_for_name(self, error: BaseException) -> None:
        """Gives the watching thread time to find the host behind TensorFlow's error; that thread
        then ends the process."""
        self._error = error
        time.sleep(NAME_WAIT * self.limit)

    def _name(self, index: int) -> str:
        return f"{index} ({self.hosts[index]})"

    def _exit(self, sentence: str, code: int = LOST) -> None:
        restart = " so that a supervisor can restart." if code == LOST else ""
        exit_now(f"{sentence}; ending with exit code {code}{restart}", code)


NO_WATCHDOG = Watchdog(60.0, (), 0, None)  # of a run on one host


def exit_now(sentence: str, code: int) -> None:
    """Logs a sentence and ends the process immediately, even if its other threads are blocked."""
    logger = threading.Thread(target=_log, args=(sentence,), daemon=True)
    logger.start()
    logger.join(2.0)
    if logger.is_alive():  # the file of a log handler hangs, or the main thread holds its lock
        os.write(2, (sentence + "\n").encode())
    os._exit(code)


def _log(sentence: str) -> None:
    logging.error("%s", sentence)
    for handler in logging.getLogger().handlers:
        handler.flush()
    sys.stdout.flush()
