"""A status file per host in the run's shared directory, rewritten every second: phase and step.

It needs no port, and its updates stop when the process is killed, stopped or disconnected. Readers
compare contents against their own clock, never time stamps: the hosts' clocks need not agree.
"""

import json
import os
import socket
import threading
import time
import uuid
import zlib
from typing import Any, Dict, List, NamedTuple, Optional

# Bytes of a file. It is rewritten in place with a constant size, not replaced: an NFS client keeps
# reading the old inode of a replaced file.
SIZE = 4096
FIELDS = ("process", "step", "phase", "group")  # of each file; HostState starts with the same

Status = Dict[str, Any]  # the content of a file


class HostState(NamedTuple):
    """The last observation of another host."""

    process: str  # random id of its process
    step: int  # last completed step
    phase: str  # see Heartbeat.publish
    group: Optional[int]  # checksum of the processes that it has found
    since: float  # when this content was first read
    read: float  # when it was last read
    changes: int  # how often the content has changed
    content: Status  # of the file


def status_file(directory: str, index: int) -> str:
    """The path of a host's status file, for the run in this directory."""
    return os.path.join(directory, "alive", f"host_{index}")


class Heartbeat:
    """Writes this host's status file and reads those of the others. Only its own thread accesses
    the disk, so that a file server that hangs does not block readers of `seen`."""

    def __init__(self, directory: str, index: int, count: int, interval: float) -> None:
        self.directory, self.index, self.interval = directory, index, interval
        self.others = [i for i in range(count) if i != index]
        self.process = uuid.uuid4().hex[:12]
        self.duplicate: Optional[Status] = None  # status of another process with our index
        self.seen: Dict[int, HostState] = {}  # by index of the host
        self.peers: Dict[int, str] = {}  # index -> process of the hosts that form this run
        self.read_all = True  # else one other host per beat: 64 hosts must not load the disk
        self._status: Status = dict(step=0, phase="gathering", group=None)
        self._beats, self._turn, self._end = 0, 0, threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Starts to write; fails where another process with the same index does."""
        os.makedirs(os.path.dirname(status_file(self.directory, self.index)), exist_ok=True)
        self._check_is_only_process()
        self._beat()
        self._thread.start()

    def publish(self, **fields: Any) -> None:
        """Fields of the next beat: step, phase (gathering, starting, steps, the name of a pause,
        ended or `failed: reason`), group."""
        self._status = dict(self._status, **fields)

    def stop(self, phase: str) -> None:
        """Writes a final phase and ends the thread; it is on disk on return, unless the disk does
        not respond."""
        self.publish(phase=phase)
        self._end.set()
        self._thread.join(5.0)

    def seconds_unchanged(self, index: int) -> Optional[float]:
        """For how long a host's file has been read without a change; None if there is no file."""
        seen = self.seen.get(index)
        return None if seen is None else seen.read - seen.since

    def gather(self, limit: float) -> List[int]:
        """Waits until all hosts have found the same live processes, none of which belongs to an
        earlier run. Returns the hosts that are missing after `limit` seconds."""
        end = time.monotonic() + limit
        while time.monotonic() < end and self.duplicate is None:
            here = [i for i in self.others if self._is_here(i)]
            if len(here) == len(self.others):
                self.peers = {i: self.seen[i].process for i in self.others}
                processes = sorted([self.process] + list(self.peers.values()))
                self.publish(group=zlib.crc32(" ".join(processes).encode()))
                if all(self.seen[i].group == self._status["group"] for i in self.others):
                    self.read_all = False
                    return []
            time.sleep(self.interval / 4)
        return [i for i in self.others if not self._is_here(i)] or self.others

    def duplicate_message(self, other: Status) -> str:
        """The sentence about two processes with the same index."""
        return (
            f"two processes run as host {self.index}: this one, and process {other['pid']} on "
            f"{other['machine']}; end one, or give each host a --task_index of its own."
        )

    def _is_here(self, index: int) -> bool:
        """Whether a host is gathering, or has found our group and already started."""
        seen, group = self.seen.get(index), self._status["group"]
        if seen is None or not seen.changes:  # a file that no process updates
            return False
        return seen.phase == "gathering" or (group is not None and seen.group == group)

    def _run(self) -> None:
        while not self._end.wait(self.interval):
            self._try_beat()
        self._try_beat()

    def _try_beat(self) -> None:
        try:
            self._beat()
        except OSError:  # the disk fails for a moment; the next beat tries again
            pass

    def _beat(self) -> None:
        """Checks that the file is still ours, writes it, reads those of the others."""
        if self._beats:
            owner = _read(status_file(self.directory, self.index))
            if owner and owner["process"] != self.process:
                self.duplicate = owner
                return
        self._beats += 1
        status = dict(self._status, process=self.process, beat=self._beats)
        _write(
            status_file(self.directory, self.index),
            dict(status, pid=os.getpid(), machine=socket.gethostname()),
        )
        self._turn += 1
        turn = self.others[self._turn % len(self.others) :][:1] if self.others else []
        for index in self.others if self.read_all else turn:
            self._observe(index)

    def _observe(self, index: int) -> None:
        status, now = _read(status_file(self.directory, index)), time.monotonic()
        if status is None:
            return
        before = self.seen.get(index)
        if before and before.content == status:
            self.seen[index] = before._replace(read=now)
            return
        same_process = before is not None and before.process == status["process"]
        changes = before.changes + 1 if before is not None and same_process else 0
        fields = {name: status[name] for name in FIELDS}
        self.seen[index] = HostState(since=now, read=now, changes=changes, content=status, **fields)

    def _check_is_only_process(self) -> None:
        """Our file must not change before we write it: else another process owns it."""
        before = _read(status_file(self.directory, self.index))
        if before is None:
            return
        time.sleep(2.5 * self.interval)  # at least two beats of the other process
        after = _read(status_file(self.directory, self.index))
        if after is not None and after != before:
            raise ValueError(self.duplicate_message(after))


def _write(path: str, status: Status) -> None:
    text = json.dumps(dict(status, phase=status["phase"][:500])).ljust(SIZE - 1) + "\n"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as stream:
        stream.write(text.encode("ascii"))


def _read(path: str) -> Optional[Status]:
    """The content of a file; None if it does not exist, or is read while it is being written."""
    try:
        with open(path, "rb") as stream:
            status = json.loads(stream.read().decode("ascii"))
            return status if set(FIELDS) <= set(status) else None
    except (OSError, ValueError, TypeError):
        return None
