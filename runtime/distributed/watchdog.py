"""Ends this process when another host is lost, for TensorFlow may wait for it for ever.

TensorFlow 1.15 hangs in a collective whose peer is gone and heeds no timeout of its own; 2.x
raises, and hangs with a peer that is there and does not answer. A thread that counts seconds
works on both.
"""

import contextlib
import logging
import os
import sys
import threading
import time

from runtime.cli import USER_MISTAKE
from runtime.distributed.heartbeat import Heartbeat

LOST = 75  # exit code: a host was lost; what started us may start us again
PATIENCE = 10  # times the limit: for all hosts to come, the first step, a validation, a checkpoint
PEER_CODES = {4, 10, 14}  # of tf.errors: DeadlineExceeded, Aborted, Unavailable: of a peer alone
OWN_OR_PEER_CODES = {1, 13}  # Cancelled, Internal: of a peer, or a fault of our own


class Watchdog:
    """with Watchdog(60, hosts.addresses, hosts.index, output) as dog: dog.feed(step) ...
    Entering it waits until all hosts have come. directory: one that all hosts share. Without
    addresses, or with a single one, it does nothing. A failed beat of the disk is no lost host:
    only who gets no step done for `limit` seconds looks for one that is silent."""

    def __init__(self, limit, hosts, index, directory):
        self.limit, self.hosts, self.index = float(limit), tuple(hosts), index
        self.beat = None
        if len(self.hosts) > 1:
            interval = min(1.0, self.limit / 12)
            self.beat = Heartbeat(directory, index, len(self.hosts), interval)
        self._step, self._fed, self._busy = 0, time.monotonic(), "starting"
        self._error, self._end = None, threading.Event()

    def __enter__(self):
        if self.beat:
            self.beat.start()
            self._meet()
            self._fed = time.monotonic()
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def feed(self, step):
        """After each step: all hosts are there, for each of them took part in it."""
        self._step, self._busy, self._fed = step, None, time.monotonic()
        if self.beat:
            self.beat.say(step=step, doing="steps")

    @contextlib.contextmanager
    def pause(self, doing):
        """Allows PATIENCE times the limit within, here and at the hosts that wait for this one;
        doing: what they are told, as `a checkpoint`."""
        before = self._busy  # "starting" until the first step is made
        self._tell(doing)
        yield
        self._tell(before)

    def _tell(self, doing):
        self._busy, self._fed = doing, time.monotonic()
        if self.beat:
            self.beat.say(doing=doing or "steps")

    def __exit__(self, kind, error, _trace):
        if not self.beat:
            return
        code = getattr(error, "error_code", None)
        if code in PEER_CODES | OWN_OR_PEER_CODES:
            self._await_name(error)
            if code in PEER_CODES:
                self._leave(f"host {self._name(self.index)}: {_first_line(error)}")
        self._end.set()
        well = error is None or isinstance(error, SystemExit)
        self.beat.stop("ended" if well else f"failed: {_first_line(error)}")

    def _meet(self):
        late = self.beat.gather(PATIENCE * self.limit)
        if self.beat.rival:
            raise ValueError(self.beat.two_of_one(self.beat.rival))
        if late:
            names = ", ".join(self._name(i) for i in late)
            raise ValueError(
                f"host {names} did not come within {PATIENCE * self.limit:g} s: no sign of it in "
                f"{self.beat.directory}/alive; start its process, on a disk that all hosts share."
            )
        self.beat.say(doing="starting")

    def _watch(self):
        """Memory alone is read here: a disk that hangs does not hold this thread up."""
        while not self._end.wait(min(0.2, self.beat.interval / 2)):
            late = time.monotonic() - self._fed
            self.beat.all_at_once = late > self.limit / 2 or self._error is not None
            if self.beat.rival:
                self._leave(self.beat.two_of_one(self.beat.rival), code=USER_MISTAKE)
            self._heed_last_words()
            why = self._started_anew() or self._overdue(late)
            if why:
                self._leave(why)

    def _heed_last_words(self):
        """Ends where a host said that it fails. Before the first step that is a mistake in what the
        hosts were told, which this one may find too: it gets the time to say so itself, and no
        restart would help."""
        for index, seen in sorted(self.beat.seen.items()):
            if not seen.doing.startswith("failed"):
                continue
            name = f"host {self._name(index)} has ended"
            if self._step:
                self._leave(f"{name} at step {seen.step}: {seen.doing}")
            elif time.monotonic() - seen.since > min(5.0, self.limit / 2):
                self._leave(f"{name} before the first step: {seen.doing}", code=USER_MISTAKE)

    def _started_anew(self):
        """The sentence about a host whose process is another than the one we met."""
        anew = [i for i, seen in sorted(self.beat.seen.items()) if seen.life != self.beat.met[i]]
        if not anew:
            return None
        return f"host {self._name(anew[0])} was started anew after step {self._step}"

    def _overdue(self, late):
        """The sentence about whom a step waits for too long; None while it does not."""
        if late < self.limit and self._error is None:
            return None
        silent = self._silent()
        if silent:
            return self._has_not_moved(silent, late)
        if late < self.limit:
            return None
        others = self.beat.seen.values()
        busy = self._busy or any(s.doing not in ("steps", "ended") for s in others)
        if busy and late < PATIENCE * self.limit:
            return None
        return self._has_not_moved(self._behind(), late)

    def _silent(self):
        """Hosts whose file was read again and again and has not changed."""
        share = 0.25 if self._error is not None else 1.0 if self._busy else 0.4
        enough = share * self.limit
        return [i for i in self.beat.others if (self.beat.silence(i) or 0.0) >= enough]

    def _behind(self):
        """Of hosts that all are alive, those that hold up the others."""
        seen = self.beat.seen
        ended = [i for i in seen if seen[i].doing == "ended"]
        steps = [seen[i].step for i in seen] + [self._step]
        slow = [i for i in seen if seen[i].step < max(steps)]
        busy = [i for i in seen if seen[i].doing != "steps"]
        return ended or slow or busy

    def _has_not_moved(self, indices, late):
        if not indices:
            return (
                f"no host has moved since step {self._step} for {late:.0f} s, and all are alive: "
                "the network between them, a disk or a device hangs"
            )
        return f"{', '.join(self._stands(i) for i in indices)} for {late:.0f} s"

    def _stands(self, index):
        """Where a host was last seen."""
        seen, name = self.beat.seen[index], self._name(index)
        if seen.doing == "ended":
            return f"host {name} has ended after step {seen.step}, and is waited for"
        step = max(seen.step, self._step)  # it took part in each step that was made here
        doing = f" ({seen.doing})" if seen.doing != "steps" and seen.step == step else ""
        return f"host {name} has not moved since step {step}{doing}"

    def _await_name(self, error):
        """Gives the other thread the time to find which host TensorFlow's error is about; it ends
        the process when it has."""
        self._error = error
        time.sleep(self.limit / 2)

    def _name(self, index):
        return f"{index} ({self.hosts[index]})"

    def _leave(self, sentence, code=LOST):
        end = f"; ending with exit code {code}"
        leave(sentence + end + " so that a supervisor can restart." * (code == LOST), code)


NO_WATCHDOG = Watchdog(60.0, (), 0, None)  # of a run on one host


def leave(sentence, code):
    """Says a sentence and ends the process at once, whatever its other threads wait for."""
    said = threading.Thread(target=_say, args=(sentence,), daemon=True)
    said.start()
    said.join(2.0)
    if said.is_alive():  # a handler's file hangs, or the main thread holds its lock
        os.write(2, (sentence + "\n").encode())
    os._exit(code)


def _say(sentence):
    logging.error("%s", sentence)
    for handler in logging.getLogger().handlers:
        handler.flush()
    sys.stdout.flush()


def _first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]
