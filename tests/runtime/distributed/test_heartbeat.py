"""Status files of hosts that are objects of one process: each has a thread of its own."""

import contextlib
import json
import os
import threading

import pytest

from runtime.distributed import heartbeat
from runtime.distributed.heartbeat import Heartbeat, status_file

INTERVAL = 0.02
LONG = 20.0  # seconds; no test waits for it


@contextlib.contextmanager
def hosts(directory, count, started=None):
    """Heartbeats of `count` hosts, of which `started` run."""
    made = [Heartbeat(str(directory), index, count, INTERVAL) for index in range(count)]
    running = made[: count if started is None else started]
    for host in running:
        host.start()
    yield made
    for host in running:
        host.stop("ended")


def gather_all(made, limit=LONG):
    """What `gather` returns on each, called at the same time."""
    found = {}
    threads = [
        threading.Thread(target=lambda host=host: found.update({host.index: host.gather(limit)}))
        for host in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_gather_returns_when_all_hosts_have_found_the_same_processes(tmp_path):
    with hosts(tmp_path, 3) as made:
        assert gather_all(made) == {0: [], 1: [], 2: []}
        assert made[0].peers == {1: made[1].process, 2: made[2].process}


def test_gather_names_the_hosts_that_are_missing(tmp_path):
    with hosts(tmp_path, 3, started=2) as made:
        assert gather_all(made[:2], limit=1.0) == {0: [2], 1: [2]}


def test_a_file_of_an_earlier_run_is_no_host(tmp_path):
    with hosts(tmp_path, 3, started=1) as made:
        killed = dict(process="a", step=0, phase="gathering", group=None)
        heartbeat._write(status_file(str(tmp_path), 1), killed)
        assert made[0].gather(0.3) == [1, 2] and made[0].seen[1].process == "a"


@pytest.mark.parametrize("text", [b"", b'{"process": "a", "st', b"[1, 2]", b'{"step": 1}'])
def test_a_file_that_is_read_while_it_is_written_is_skipped(tmp_path, text):
    with hosts(tmp_path, 2, started=1) as made:
        path = status_file(str(tmp_path), 1)
        with open(path, "wb") as stream:
            stream.write(text)
        assert made[0].gather(0.1) == [1] and not made[0].seen
        made[1].start()  # and the next content is read
        assert gather_all(made) == {0: [], 1: []}
        made[1].stop("ended")


def test_a_second_process_with_the_same_index_does_not_start(tmp_path):
    with hosts(tmp_path, 2, started=1):
        second = Heartbeat(str(tmp_path), 0, 2, 10 * INTERVAL)
        with pytest.raises(ValueError, match=f"host 0: this one, and process {os.getpid()} on"):
            second.start()


def test_a_process_that_takes_over_the_file_ends_the_gathering(tmp_path):
    with hosts(tmp_path, 2, started=1) as made:
        other = dict(process="b", step=0, phase="steps", group=None, pid=7, machine="m")
        while made[0].duplicate is None:  # our own beat may be written between
            heartbeat._write(status_file(str(tmp_path), 0), other)
        assert made[0].gather(LONG) == [1]
        assert "process 7 on m" in made[0].duplicate_message(made[0].duplicate)


def test_the_final_phase_is_on_disk_in_the_same_file(tmp_path):
    with hosts(tmp_path, 2, started=1) as made:
        path = status_file(str(tmp_path), 0)
        before = os.stat(path)
        made[0].publish(step=7)
        made[0].stop("failed: " + 10000 * "x")
        with open(path) as stream:
            status = json.loads(stream.read())
        after = os.stat(path)
    assert status["step"] == 7 and status["phase"].startswith("failed: xxx")
    assert (after.st_ino, after.st_size) == (before.st_ino, heartbeat.SIZE)
    assert before.st_size == heartbeat.SIZE


def test_a_host_without_updates_has_been_unchanged_since_its_last(tmp_path):
    with hosts(tmp_path, 2) as made:
        gather_all(made)
        assert made[0].seconds_unchanged(1) < LONG
        made[1].stop("ended")
        made[0].read_all = True
        ended = threading.Event()
        while made[0].seconds_unchanged(1) < 5 * INTERVAL:
            ended.wait(INTERVAL)
        assert made[0].seen[1].phase == "ended"


def test_a_host_without_a_file_has_no_time(tmp_path):
    assert Heartbeat(str(tmp_path), 0, 2, INTERVAL).seconds_unchanged(1) is None
