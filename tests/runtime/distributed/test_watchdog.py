"""Real processes that share a directory; a step that waits for ever stands for a collective."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from runtime.cli import ROOT
from runtime.distributed.watchdog import Watchdog

LIMIT = 1.5
WAIT = "time.sleep(60)"
HOSTS = ("10.0.0.1:2222", "10.0.0.2:2222")

HOST = """
import logging, os, sys, time
from runtime.cli import run
from runtime.distributed.watchdog import Watchdog
from runtime.cli import ROOT

class Unavailable(Exception):
    error_code = 14

def main(argv):
    index, limit, directory, then = int(argv[0]), float(argv[1]), argv[2], argv[3]
    with Watchdog(limit, {hosts!r}, index, directory) as watchdog:
        for step in (1, 2, 3)[: 0 if "BEFORE" in then else 3]:
            watchdog.feed(step)
        print("made 3 steps", flush=True)
        exec(then)
    print("ended", flush=True)

run(main, sys.argv[1:])
"""


def host(index, directory, then, limit=LIMIT, hosts=HOSTS):
    """A process that makes three steps with the others, and then what it is told."""
    words = [sys.executable, "-c", HOST.format(hosts=hosts), str(index), str(limit)]
    return subprocess.Popen(
        words + [str(directory), then],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )


def end_of(process):
    """(exit code, what it said) of a process that must end by itself."""
    try:
        said = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.parametrize("number, lost", [(signal.SIGKILL, 0), (signal.SIGSTOP, 1)])
def test_a_host_that_is_killed_or_stopped_is_named_within_the_limit(tmp_path, number, lost):
    both = [host(index, tmp_path, WAIT) for index in (0, 1)]
    assert all(process.stdout.readline() == "made 3 steps\n" for process in both)
    both[lost].send_signal(number)
    begun = time.monotonic()
    code, said = end_of(both[1 - lost])
    both[lost].kill()
    both[lost].communicate()
    assert time.monotonic() - begun < LIMIT + 2.0  # the rest: the machine is busy
    assert code == 75
    assert re.match(
        rf"host {lost} \({HOSTS[lost]}\): no progress since step 3 for \d s; ending with exit "
        "code 75 so that a supervisor can restart.\n$",
        said,
    )


def test_the_dead_one_of_three_is_named_by_both_others(tmp_path):
    hosts = HOSTS + ("10.0.0.3:2222",)
    three = [host(index, tmp_path, WAIT, hosts=hosts) for index in range(3)]
    assert all(process.stdout.readline() for process in three)
    three[1].kill()
    three[1].communicate()
    for process in (three[0], three[2]):
        code, said = end_of(process)
        assert code == 75 and said.startswith("host 1 (10.0.0.2:2222): no progress since step 3")
        assert said.count("host ") == 1


def test_a_host_that_fails_says_why_to_the_others(tmp_path):
    both = [
        host(0, tmp_path, WAIT, limit=30),
        host(1, tmp_path, "raise ValueError('x')"),
    ]
    code, said = end_of(both[0])
    assert code == 75 and "host 1 (10.0.0.2:2222) ended at step 3: failed: x" in said
    assert end_of(both[1]) == (2, "error: x\n")


def test_a_mistake_before_the_first_step_is_no_loss(tmp_path):
    """Each host finds that the flags differ; the one that finds it later is not to be restarted."""
    late = "time.sleep(60)  # BEFORE"
    both = [host(0, tmp_path, late), host(1, tmp_path, "raise ValueError('x')  # BEFORE")]
    code, said = end_of(both[0])
    assert code == 2 and "host 1 (10.0.0.2:2222) ended before the first step" in said
    assert "restart" not in said
    assert end_of(both[1]) == (2, "error: x\n")


def test_tensorflows_own_error_gets_the_name_of_the_host(tmp_path):
    limit = 4.0
    both = [host(0, tmp_path, "time.sleep(0.5); raise Unavailable('Socket closed')", limit)]
    both += [host(1, tmp_path, "os.kill(os.getpid(), 9)", limit)]
    begun = time.monotonic()
    code, said = end_of(both[0])
    assert code == 75 and said.startswith("host 1 (10.0.0.2:2222): no progress since step 3")
    assert end_of(both[1])[0] == -signal.SIGKILL
    assert time.monotonic() - begun < limit


def test_tensorflows_own_error_ends_with_75_when_all_hosts_live(tmp_path):
    then = "raise Unavailable('Socket closed')"
    both = [host(0, tmp_path, then), host(1, tmp_path, f"time.sleep({2 * LIMIT})")]
    code, said = end_of(both[0])
    assert code == 75 and "host 0 (10.0.0.1:2222): Socket closed" in said
    both[1].kill()
    both[1].communicate()


def test_hosts_that_wait_for_each_other_blame_no_one(tmp_path):
    both = [host(index, tmp_path, WAIT) for index in (0, 1)]
    for process in both:
        code, said = end_of(process)
        assert code == 75
        # the first to end may be seen as silent by a second one that is late
        assert (
            "no host has made progress since step 3" in said or "no progress since step 3" in said
        )


def test_a_long_checkpoint_elsewhere_is_waited_for(tmp_path):
    long = f"with watchdog.pause('a checkpoint'): time.sleep({1.6 * LIMIT})"
    both = [host(0, tmp_path, long), host(1, tmp_path, f"time.sleep({1.5 * LIMIT})")]
    assert [end_of(process) for process in both] == [(0, ""), (0, "")]


def test_all_start_again_where_one_was_started_again(tmp_path):
    """The old process of host 0 waits for the old one of host 1, and must not meet the new one."""
    old = [host(index, tmp_path, WAIT, limit=3.0) for index in (0, 1)]
    assert all(process.stdout.readline() for process in old)
    old[1].kill()
    old[1].communicate()
    anew = [host(1, tmp_path, "", limit=3.0)]
    code, said = end_of(old[0])
    assert code == 75 and "host 1 (10.0.0.2:2222) was restarted after step 3" in said
    anew.append(host(0, tmp_path, "", limit=3.0))
    assert [end_of(process) for process in anew] == [(0, ""), (0, "")]


def test_a_host_that_does_not_come_is_named(tmp_path):
    code, said = end_of(host(0, tmp_path, "", limit=0.05))
    assert code == 2
    assert "host 1 (10.0.0.2:2222) did not start within 0.5 s" in said and "Traceback" not in said


def test_a_second_process_with_the_same_index_is_refused(tmp_path):
    both = [host(index, tmp_path, "time.sleep(2)", limit=5.0) for index in (0, 1)]
    assert all(process.stdout.readline() for process in both)
    code, said = end_of(host(1, tmp_path, "", limit=5.0))
    assert code == 2 and f"this one, and process {both[1].pid} on" in said
    assert [end_of(process) for process in both] == [(0, ""), (0, "")]  # not disturbed


def test_one_host_has_nothing_to_watch(tmp_path):
    with Watchdog(0.01, (), 0, str(tmp_path)) as watchdog:
        watchdog.feed(1)
        time.sleep(0.1)
        with watchdog.pause("a validation"):
            pass
    assert not os.listdir(str(tmp_path))
