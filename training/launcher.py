"""Starts a run's processes on this machine, starts them again after a loss, and ends them together.

It knows no TensorFlow and no flag but its own: a process is a command line and an environment.
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

from runtime.distributed.heartbeat import file_of
from runtime.distributed.watchdog import LOST
from runtime.npu import rank_table

HCCN_CONF = "/etc/hccn.conf"  # the addresses of a server's cards; the variable of that name wins
GRACE = 10.0  # seconds for the others to end by themselves, then from SIGTERM to SIGKILL
TAIL = 20  # lines of a log that are shown when its process fails

# words: the command line; again: what is added to it when it is started again; environ: the whole
# environment, or None for ours; log: a path for what it says, or None for our own streams; name:
# what it is called in a message; pulse: the file of its heartbeat and for how many seconds it may
# stand still, or None.
Member = collections.namedtuple("Member", "words again environ log name pulse")
Member.__new__.__defaults__ = (None,)


def own_command(argv=None):
    """This process's command line as a child's, which is not to start children of its own: the
    --supervise of a YAML file, too, is overruled."""
    return [sys.executable] + list(sys.argv if argv is None else argv) + ["--no_supervise"]


def supervise(members, max_restarts, grace=GRACE):
    """Runs the members until all have ended; starts all again when one was lost (exit code 75) or
    killed, at most max_restarts times. Returns the exit code of the run. SIGTERM and SIGINT are
    passed on to them, and end the run."""
    with _Group(grace) as group:
        for restarts in range(max_restarts + 1):
            name, code = group.run(members, again=restarts > 0)
            lost = code == LOST or code < 0
            if not lost or group.asked:
                break
            if restarts < max_restarts:
                logging.warning(
                    "%s %s; starting again from the newest whole checkpoint, restart %d of %d",
                    name,
                    _spell(code),
                    restarts + 1,
                    max_restarts,
                )
            elif max_restarts:
                logging.error(
                    "%s %s, after %d restarts: giving up; look at what it said, or raise "
                    "--max_restarts",
                    name,
                    _spell(code),
                    max_restarts,
                )
    return code if code >= 0 else 128 - code


class _Group:
    """Processes that live and end together, and with this one."""

    def __init__(self, grace):
        self.grace, self.asked = grace, False
        self._living, self._pulses = {}, {}  # process -> Member, _Pulse
        self._pressed = None  # the last signal of _press

    def __enter__(self):
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._pass_on) for number in numbers}
        return self

    def __exit__(self, *_):
        self._tell(signal.SIGKILL)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, members, again):
        """(name, exit code) of the first that failed, or of the last to end where none did."""
        for member in members:
            process = _start(member, again)
            self._living[process] = member
            self._pulses[process] = _Pulse(*member.pulse) if member.pulse else None
        if self.asked:  # before they were there to be told
            self._tell(signal.SIGTERM)
        ended, failed_at, self._pressed = [], None, None
        while self._living:
            for process in [process for process in self._living if process.poll() is not None]:
                member = self._living.pop(process)
                ended.append((member.name, process.returncode))
                if process.returncode and failed_at is None:
                    failed_at, failed = time.monotonic(), ended[-1]
                    _show_end(member)
            if failed_at is not None:
                self._press(time.monotonic() - failed_at)
            for process, member in self._living.items():
                if member.pulse and self._pulses[process].has_stopped():
                    logging.warning("%s stands still, and is ended", member.name)
                    process.kill()
            time.sleep(0.05)
        return ended[-1] if failed_at is None else failed

    def _press(self, waited):
        """Ends what still runs when one has failed: it may end by itself, is asked, is killed."""
        number = (None, signal.SIGTERM, signal.SIGKILL)[min(2, int(waited / self.grace))]
        if number != self._pressed:
            self._tell(number)
        self._pressed = number

    def _tell(self, number):
        for process in list(self._living):
            process.send_signal(number)

    def _pass_on(self, number, _frame):
        self.asked = True
        self._tell(number)


class _Pulse:
    """Whether a process that rewrote its heartbeat's file has left off, though it is there: it was
    stopped, or its machine was."""

    def __init__(self, path, limit):
        self.path, self.limit = path, limit
        self.content, self.since, self.beats, self.due = self._read(), time.monotonic(), 0, 0.0

    def has_stopped(self):
        now = time.monotonic()
        if now < self.due:
            return False
        self.due = now + 0.5
        content = self._read()
        if content != self.content:
            self.content, self.since, self.beats = content, now, self.beats + 1
        return self.beats > 1 and now - self.since > self.limit

    def _read(self):
        try:
            with open(self.path, "rb") as stream:
                return stream.read()
        except OSError:
            return None


def _start(member, again):
    """A process of its own session, so that a terminal's Ctrl-C reaches it through us, and once."""
    stream = open(member.log, "ab") if member.log else None
    try:
        return subprocess.Popen(
            list(member.words) + (list(member.again) if again else []),
            env=member.environ,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    except OSError as error:
        raise ValueError(f"{member.words[0]} cannot be started: {error.strerror}.") from None
    finally:
        if stream:
            stream.close()


def _die_with_parent():
    """Linux: the kernel kills this process when the one that started it is gone."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _show_end(member):
    """The last lines of a failed process that does not write where we do."""
    if member.log:
        with open(member.log, errors="replace") as stream:
            lines = collections.deque(stream, TAIL)
        logging.error("%s failed; the end of %s:\n%s", member.name, member.log, "".join(lines))


def _spell(code):
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}" + (": a host was lost" if code == LOST else "")


def this_host(argv=None, directory=None, index=0, limit=None):
    """The one process of this host, for `--supervise`. With several hosts: directory is that of
    --output_path, index this host's, limit --collective_timeout; a process that stands still for
    twice as long, when the others have ended, is ended too."""
    pulse = (file_of(directory, index), 2 * limit) if directory and limit else None
    return [Member(own_command(argv), ["--resume"], None, None, "the run", pulse)]


def this_server(num_devices, environ, directory, argv=None):
    """The processes of this server's Ascend cards. RANK_TABLE_FILE names the table of a run on
    several cards; without it, one of this server's first num_devices cards is written into the
    directory, where the logs go too."""
    path = environ.get("RANK_TABLE_FILE")
    os.makedirs(directory, exist_ok=True)
    if not path and num_devices == 1:
        device = int(environ.get("ASCEND_DEVICE_ID") or environ.get("DEVICE_ID") or 0)
        return npu_cards(own_command(argv), (device,), 0, 1, None, environ, directory)
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
            f"--num_devices is {num_devices}, and {path} lists {len(cards)} cards of this server."
        )
    devices, first = [card.device for card in cards], cards[0].rank
    words = own_command(argv)
    return npu_cards(words, devices, first, len(everyone), path, environ, directory)


def npu_cards(words, devices, first_rank, size, rank_table, environ, log_directory):
    """One process for each of this server's cards (their device ids), as Ascend wants it. One card
    alone has no rank table: naming one would start HCCL."""
    members = []
    for place, device in enumerate(devices):
        said = dict(
            environ,
            RANK_ID=str(first_rank + place),
            RANK_SIZE=str(size),
            DEVICE_ID=str(device),
            ASCEND_DEVICE_ID=str(device),
            DEVICE_INDEX=str(device + 8 * (first_rank // len(devices))),  # 8 cards a server
            JOB_ID=environ.get("JOB_ID", "10087"),
        )
        if size > 1:
            said["RANK_TABLE_FILE"] = os.path.abspath(rank_table)
        else:
            said.pop("RANK_TABLE_FILE", None)
        log = os.path.join(log_directory, f"train_{device}.log") if place else None
        bound = ["taskset", "-c", _cores(place, len(devices))] if environ.get("BIND_CORE") else []
        members.append(Member(bound + list(words), ["--resume"], said, log, f"card {device}"))
    return members


def _cores(place, places):
    """One card's share of this machine's cores, for taskset."""
    count = os.cpu_count()
    return f"{place * count // places}-{max(place + 1, (place + 1) * count // places) - 1}"
