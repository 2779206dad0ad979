"""Starts a run's processes on this machine, restarts them after a loss, and ends them together.

It needs no TensorFlow: a process is a command line and an environment.
"""

import collections
import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from runtime.device import strategy
from runtime.distributed.heartbeat import status_file
from runtime.distributed.hosts import find_hosts
from runtime.distributed.watchdog import LOST
from runtime.npu import rank_table
from training.config import MultiDeviceConfig

HCCN_CONF = "/etc/hccn.conf"  # the addresses of a server's cards; the variable of that name wins
GRACE = 10.0  # seconds for the others to end by themselves, then from SIGTERM to SIGKILL
TAIL = 20  # lines of a log that are shown when its process fails

STOPPED = {128 + signal.SIGINT, 128 + signal.SIGTERM}  # exit codes of a run that was stopped


class Member(NamedTuple):
    """A process of a run."""

    argv: Sequence[str]  # the command line
    restart_args: Sequence[str]  # added to it at a restart
    environ: Optional[Mapping[str, str]]  # the whole environment; None: that of this process
    log: Optional[str]  # path of its output; None: the streams of this process
    name: str  # in messages
    heartbeat: Optional[Tuple[str, float]] = None  # its file, and the seconds it may not change


def own_command(argv: Optional[Sequence[str]] = None) -> List[str]:
    """This process's command line for a child, which must not start children of its own: the last
    flag also overrides a --supervise of the YAML file."""
    return [sys.executable] + list(sys.argv if argv is None else argv) + ["--no_supervise"]


def supervise(members: Sequence[Member], max_restarts: int, grace: float = GRACE) -> int:
    """Runs the members until all have ended; restarts all when one was lost (exit code 75) or
    killed, at most max_restarts times. Returns the exit code of the run. SIGTERM and SIGINT are
    forwarded to them, and end the run."""
    with _Group(grace) as group:
        for restarts in range(max_restarts + 1):
            name, code = group.run(members, restarted=restarts > 0)
            lost = code == LOST or code < 0
            if not lost or group.stopping:
                break
            if restarts < max_restarts:
                logging.warning(
                    "%s %s; restarting from the newest complete checkpoint, restart %d of %d",
                    name,
                    _describe(code),
                    restarts + 1,
                    max_restarts,
                )
            elif max_restarts:
                logging.error(
                    "%s %s, after %d restarts: giving up; see its log, or raise --max_restarts",
                    name,
                    _describe(code),
                    max_restarts,
                )
    return code if code >= 0 else 128 - code


class _Group:
    """Processes that start and end together, and with this one."""

    def __init__(self, grace: float) -> None:
        self.grace, self.stopping = grace, False
        self._living: Dict[subprocess.Popen, Member] = {}
        self._heartbeats: Dict[subprocess.Popen, Optional[_Heartbeat]] = {}
        self._sent: Optional[int] = None  # the last signal of _escalate

    def __enter__(self) -> "_Group":
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._forward) for number in numbers}
        return self

    def __exit__(self, *_: Any) -> None:
        self._send(signal.SIGKILL)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, members: Sequence[Member], restarted: bool) -> Tuple[str, int]:
        """(name, exit code) of the first that failed, or of the last to end where none did."""
        for member in members:
            process = _start(member, restarted)
            self._living[process] = member
            heartbeat = _Heartbeat(*member.heartbeat) if member.heartbeat else None
            self._heartbeats[process] = heartbeat
        if self.stopping:  # the signal came before the processes were there
            self._send(signal.SIGTERM)
        ended: List[Tuple[str, int]] = []
        failed_at, self._sent = None, None
        while self._living:
            for process in [process for process in self._living if process.poll() is not None]:
                member = self._living.pop(process)
                ended.append((member.name, process.returncode))
                if failed_at is None and self._has_failed(process.returncode):
                    failed_at, failed = time.monotonic(), ended[-1]
                    _show_end(member)
            if failed_at is not None:
                self._escalate(time.monotonic() - failed_at)
            for process, member in self._living.items():
                heartbeat = self._heartbeats[process]
                if heartbeat and heartbeat.has_stopped():
                    logging.warning("%s makes no progress and is killed", member.name)
                    process.kill()
            time.sleep(0.05)
        return ended[-1] if failed_at is None else failed

    def _has_failed(self, code: int) -> bool:
        """Whether an exit code is a failure. After a signal the others are still saving their
        state, and a second signal would end them without."""
        return bool(code) and not (self.stopping and code in STOPPED)

    def _escalate(self, waited: float) -> None:
        """Ends what still runs after a failure: first it may end by itself, then SIGTERM, then
        SIGKILL, each after the grace period."""
        if waited < self.grace:
            number = None
        elif waited < 2 * self.grace:
            number = signal.SIGTERM
        else:
            number = signal.SIGKILL
        if number is not None and number != self._sent:
            self._send(number)
        self._sent = number

    def _send(self, number: int) -> None:
        for process in list(self._living):
            process.send_signal(number)

    def _forward(self, number: int, _frame: Any) -> None:
        self.stopping = True
        self._send(number)


class _Heartbeat:
    """Whether a living process no longer rewrites its heartbeat's file: it was stopped, or its
    machine was."""

    def __init__(self, path: str, limit: float) -> None:
        self.path, self.limit = path, limit
        self.content, self.since, self.beats, self.due = self._read(), time.monotonic(), 0, 0.0

    def has_stopped(self) -> bool:
        now = time.monotonic()
        if now < self.due:
            return False
        self.due = now + 0.5
        content = self._read()
        if content != self.content:
            self.content, self.since, self.beats = content, now, self.beats + 1
        return self.beats > 1 and now - self.since > self.limit

    def _read(self) -> Optional[bytes]:
        try:
            with open(self.path, "rb") as stream:
                return stream.read()
        except OSError:
            return None


def _start(member: Member, restarted: bool) -> subprocess.Popen:
    """A process of its own session, so that a terminal's Ctrl-C reaches it through us, and once."""
    stream = open(member.log, "ab") if member.log else None
    try:
        return subprocess.Popen(
            list(member.argv) + (list(member.restart_args) if restarted else []),
            env=member.environ,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    except OSError as error:
        raise ValueError(f"{member.argv[0]} cannot be started: {error.strerror}.") from None
    finally:
        if stream:
            stream.close()


def _die_with_parent() -> None:
    """Linux: the kernel kills this process when the one that started it is gone."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _show_end(member: Member) -> None:
    """Logs the last lines of a failed process that writes to a file."""
    if member.log:
        with open(member.log, errors="replace") as stream:
            lines = collections.deque(stream, TAIL)
        logging.error("%s failed; the end of %s:\n%s", member.name, member.log, "".join(lines))


def _describe(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}" + (": a host was lost" if code == LOST else "")


def children_of(config: MultiDeviceConfig, environ: Mapping[str, str]) -> List[Member]:
    """The processes that this one starts and supervises; none if it is one of them."""
    several_cards = strategy(config.device).one_rank_per_process and (config.num_devices or 1) > 1
    if several_cards and "RANK_ID" not in environ:
        return this_server(config.num_devices, environ, config.directory("logs"))
    if not config.supervise:
        return []
    hosts = find_hosts(config.worker_hosts, config.task_index, environ)
    shared = config.output_path if hosts.addresses else None
    return this_host(None, shared, hosts.index, config.collective_timeout)


def this_host(
    argv: Optional[Sequence[str]] = None,
    directory: Optional[str] = None,
    index: int = 0,
    limit: Optional[float] = None,
) -> List[Member]:
    """The one process of this host, for --supervise. With several hosts: directory is that of
    --output_path, index this host's, limit --collective_timeout; a process without progress for
    twice as long is killed."""
    heartbeat = (status_file(directory, index), 2 * limit) if directory and limit else None
    return [Member(own_command(argv), ["--resume"], None, None, "the run", heartbeat)]


def this_server(
    num_devices: Optional[int],
    environ: Mapping[str, str],
    directory: str,
    argv: Optional[Sequence[str]] = None,
) -> List[Member]:
    """The processes of this server's Ascend cards. RANK_TABLE_FILE names the table of a run on
    several cards; without it, one of this server's first num_devices cards is written into the
    directory, where the logs go too."""
    path = environ.get("RANK_TABLE_FILE")
    os.makedirs(directory, exist_ok=True)
    if not path and num_devices == 1:
        device = int(environ.get("ASCEND_DEVICE_ID") or environ.get("DEVICE_ID") or 0)
        alone = ServerCards((device,), 0, 1, None)
        return npu_cards(own_command(argv), alone, environ, directory)
    if not path:
        path = os.path.join(directory, "rank_table.json")
        here = socket.gethostbyname(socket.gethostname())
        conf = environ.get("HCCN_CONF", HCCN_CONF)
        cards = rank_table.make_cards([here], range(num_devices or rank_table.CARDS), (), [conf])
        rank_table.write_table(path, cards)
    everyone = rank_table.read_table(path)
    cards = rank_table.own_cards(everyone, environ)
    if num_devices not in (None, len(cards)):
        raise ValueError(
            f"--num_devices is {num_devices}, but {path} lists {len(cards)} cards of this server."
        )
    devices = [card.device for card in cards]
    found = ServerCards(devices, cards[0].rank, len(everyone), path)
    return npu_cards(own_command(argv), found, environ, directory)


class ServerCards(NamedTuple):
    """The Ascend cards of this server in a run."""

    devices: Sequence[int]  # their device ids
    first_rank: int  # of the first of them
    size: int  # ranks of the whole run
    rank_table: Optional[str]  # its path; None for a single card


def npu_cards(
    argv: Sequence[str], cards: ServerCards, environ: Mapping[str, str], log_directory: str
) -> List[Member]:
    """One process for each card, as Ascend needs it. A single card has no rank table: naming one
    would start HCCL."""
    members, count = [], len(cards.devices)
    for place, device in enumerate(cards.devices):
        variables = dict(
            environ,
            RANK_ID=str(cards.first_rank + place),
            RANK_SIZE=str(cards.size),
            DEVICE_ID=str(device),
            ASCEND_DEVICE_ID=str(device),
            DEVICE_INDEX=str(device + 8 * (cards.first_rank // count)),  # a server has 8 cards
            JOB_ID=environ.get("JOB_ID", "10087"),
        )
        if cards.size > 1 and cards.rank_table:
            variables["RANK_TABLE_FILE"] = os.path.abspath(cards.rank_table)
        else:
            variables.pop("RANK_TABLE_FILE", None)
        log = os.path.join(log_directory, f"train_{device}.log") if place else None
        bound = ["taskset", "-c", _cores(place, count)] if environ.get("BIND_CORE") else []
        members.append(Member(bound + list(argv), ["--resume"], variables, log, f"card {device}"))
    return members


def _cores(place: int, places: int) -> str:
    """One card's share of this machine's cores, for taskset."""
    count = os.cpu_count() or 1
    return f"{place * count // places}-{max(place + 1, (place + 1) * count // places) - 1}"
