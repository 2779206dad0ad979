"""A file per host in the run's shared directory, rewritten every second: who lives, at which step.

It needs no port, and it stops with its process whether that was killed, stopped or cut off. Readers
compare contents and their own clock's time, never time stamps: hosts' clocks need not agree.
"""

import collections
import json
import os
import socket
import threading
import time
import uuid
import zlib

SIZE = 4096  # bytes of a file: rewritten in place, so that no reader on NFS keeps an old inode

# What is seen of a host. life: of its process; step: last made; doing: see Heartbeat.say; met: of
# the lives it has met; since: when this content was first read; read: when last; changes: how often
Seen = collections.namedtuple("Seen", "life step doing met since read changes content")


def file_of(directory, index):
    """Where a host of the run in this directory writes."""
    return os.path.join(directory, "alive", f"host_{index}")


class Heartbeat:
    """Writes this host's file and reads the others'. Only its own thread touches the disk: who asks
    `seen` is never held up by a file server that does not answer."""

    def __init__(self, directory, index, count, interval):
        self.directory, self.index, self.interval = directory, index, interval
        self.others = [i for i in range(count) if i != index]
        self.life, self.rival = uuid.uuid4().hex[:12], None
        self.seen = {}  # index -> Seen
        self.met = {}  # index -> life of the process that we run with
        self.all_at_once = True  # else one other host a beat: 64 hosts are no load on the disk
        self._said = dict(step=0, doing="gathering", met=None)
        self._beats, self._turn, self._end = 0, 0, threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self):
        """Begins to write; refuses where a process with the same index already does."""
        os.makedirs(os.path.dirname(file_of(self.directory, self.index)), exist_ok=True)
        self._refuse_second()
        self._beat()
        self._thread.start()

    def say(self, **facts):
        """What the next beat says: step, doing (gathering, starting, steps, a pause's name, ended
        or `failed: why`), met."""
        self._said = dict(self._said, **facts)

    def stop(self, doing):
        """Says a last word, on disk when this returns (or the disk does not answer), and ends."""
        self.say(doing=doing)
        self._end.set()
        self._thread.join(5.0)

    def silence(self, index):
        """Seconds for which a host's file was read and had not changed; None if it is not there."""
        seen = self.seen.get(index)
        return None if seen is None else seen.read - seen.since

    def gather(self, limit):
        """Waits until all hosts have met: each has seen the same processes alive, none of which is
        still in a run before this one. Returns the hosts that did not come within `limit` s."""
        end = time.monotonic() + limit
        while time.monotonic() < end and self.rival is None:
            here = [i for i in self.others if self._is_here(i)]
            if len(here) == len(self.others):
                self.met = {i: self.seen[i].life for i in self.others}
                lives = sorted([self.life] + list(self.met.values()))
                self.say(met=zlib.crc32(" ".join(lives).encode()))
                if all(self.seen[i].met == self._said["met"] for i in self.others):
                    self.all_at_once = False
                    return []
            time.sleep(self.interval / 4)
        return [i for i in self.others if not self._is_here(i)] or self.others

    def _is_here(self, index):
        """Whether a host gathers with us, or has met us already and gone on."""
        seen, met = self.seen.get(index), self._said["met"]
        if seen is None or not seen.changes:  # a file that no process writes any more
            return False
        return seen.doing == "gathering" or (met is not None and seen.met == met)

    def _run(self):
        while not self._end.wait(self.interval):
            self._try()
        self._try()

    def _try(self):
        try:
            self._beat()
        except OSError:  # a disk that fails for a moment; what cannot be read stays unread
            pass

    def _beat(self):
        """One round: is the file still ours, write it, read the others'."""
        if self._beats:
            owner = _read(file_of(self.directory, self.index))
            if owner and owner["life"] != self.life:
                self.rival = owner
                return
        self._beats += 1
        facts = dict(self._said, life=self.life, beat=self._beats)
        _write(
            file_of(self.directory, self.index),
            dict(facts, pid=os.getpid(), machine=socket.gethostname()),
        )
        self._turn += 1
        turn = self.others[self._turn % len(self.others) :][:1] if self.others else []
        for index in self.others if self.all_at_once else turn:
            self._look(index)

    def _look(self, index):
        facts, now = _read(file_of(self.directory, index)), time.monotonic()
        if facts is None:
            return
        before = self.seen.get(index)
        if before and before.content == facts:
            self.seen[index] = before._replace(read=now)
            return
        changes = before.changes + 1 if before and before.life == facts["life"] else 0
        said = [facts[name] for name in ("life", "step", "doing", "met")]
        self.seen[index] = Seen(*said, since=now, read=now, changes=changes, content=facts)

    def _refuse_second(self):
        """A file that changes while nobody should write it has a writer: another process."""
        before = _read(file_of(self.directory, self.index))
        if before is None:
            return
        time.sleep(2.5 * self.interval)
        after = _read(file_of(self.directory, self.index))
        if after is not None and after != before:
            raise ValueError(self.two_of_one(after))

    def two_of_one(self, rival):
        return (
            f"two processes run as host {self.index}: this one, and process {rival['pid']} on "
            f"{rival['machine']}; end one, and give each host a --task_index of its own."
        )


def _write(path, facts):
    text = json.dumps(dict(facts, doing=facts["doing"][:500])).ljust(SIZE - 1) + "\n"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as stream:
        stream.write(text.encode("ascii"))


def _read(path):
    """The facts of a file; None if it is not there, or is read in the midst of being written."""
    try:
        with open(path, "rb") as stream:
            facts = json.loads(stream.read().decode("ascii"))
            return facts if {"life", "step", "doing", "met"} <= set(facts) else None
    except (OSError, ValueError, TypeError):
        return None
