"""Hosts that are killed and stopped: real processes on loopback, TensorFlow's own collectives.

What happens to the survivors is asked of a graph of one sum, which starts in seconds; that a run
goes on to the same bits is asked of train_nets_mgpu.py, whose supervisors are left to themselves.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from runtime.distributed.hosts import free_addresses
from runtime.tf1 import TF2
from tests.test_end_to_end import ROOT, flags, last_checkpoint
from tests.test_resume import assert_same_run

LIMIT = 6.0  # --collective_timeout
SUM = """
import sys
from runtime.distributed.collectives import Collectives
from runtime.distributed.ranks import Ranks, open_target, prepared
from runtime.tf1 import tf
from runtime.cli import run
from runtime.distributed.watchdog import Watchdog

def main(argv):
    hosts, index, directory, limit = tuple(argv[0].split(",")), int(argv[1]), argv[2], 4.0
    ranks = Ranks(1, hosts, index)
    proto = prepared(tf.ConfigProto(), ranks)
    with Watchdog(limit, hosts, index, directory) as dog:
        target = open_target(proto, ranks)
        with tf.Graph().as_default(), tf.device(ranks.device(index)):
            total = Collectives(index, len(hosts)).sum(tf.ones([3]))
            with tf.Session(target, config=proto) as session:
                for step in range(1, 100000):
                    session.run(total)
                    dog.feed(step)
                    if step == 5:
                        print("five steps are made", flush=True)

run(main, sys.argv[1:])
"""


def start(words):
    return subprocess.Popen(
        [sys.executable] + words,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )


@pytest.mark.parametrize(
    "number, lost", [(signal.SIGKILL, 1), (signal.SIGKILL, 0), (signal.SIGSTOP, 1)]
)
def test_the_survivor_ends_with_75_and_the_name(tmp_path, number, lost):
    hosts = free_addresses(2)
    words = ["-c", SUM, ",".join(hosts)]
    both = [start(words + [str(index), str(tmp_path)]) for index in (0, 1)]
    try:
        for process in both:
            assert process.stdout.readline() == "five steps are made\n", process.stderr.read()
        both[lost].send_signal(number)
        begun = time.monotonic()
        said = both[1 - lost].communicate(timeout=60)[1]
        assert time.monotonic() - begun < 4.0 + 3.0  # the machine may be busy
        assert both[1 - lost].returncode == 75
        assert f"host {lost} ({hosts[lost]}): no progress since step" in said
        assert said.rstrip().endswith("so that a supervisor can restart.")
    finally:
        for process in both:
            process.kill()
            process.communicate()


STEPS = 24


def run_flags(small, output, hosts, index):
    """train_nets_mgpu.py on one of two hosts."""
    words = flags(small, str(output), "--epoch", f"{STEPS}step", "--ckpt_interval", "4")
    validation = words.index("--eval_db_path")
    del words[validation : validation + 2]
    words += ["--worker_hosts", ",".join(hosts), "--task_index", str(index)]
    return ["train_nets_mgpu.py"] + words + ["--collective_timeout", str(LIMIT)]


def pid_of(output, index):
    """The process that a supervisor has started, from its heartbeat."""
    with open(os.path.join(str(output), "alive", f"host_{index}")) as stream:
        return json.loads(stream.read())["pid"]


def test_a_supervised_run_ends_in_the_same_bits(small, tmp_path):
    """The leader is killed on one TensorFlow, the other host stopped on the other: each costs the
    start of two processes."""
    lost, number = (0, signal.SIGKILL) if TF2 else (1, signal.SIGSTOP)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    hosts = free_addresses(2)
    both = [start(run_flags(small, whole, hosts, index)) for index in (0, 1)]
    for process in both:
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said[-3000:]

    supervised = ["--supervise", "--max_restarts", "5"]
    both = [start(run_flags(small, broken, hosts, index) + supervised) for index in (0, 1)]
    said, waiting = [], True
    try:
        for line in both[0].stderr:  # the leader's words, its supervisor's among them
            said.append(line)
            if waiting and " step 6/" in line:
                os.kill(pid_of(broken, lost), number)
                waiting = False
        others = both[1].communicate(timeout=60)[1]
        assert [process.wait(timeout=60) for process in both] == [0, 0], others[-3000:]
    finally:
        for process in both:
            process.kill()
            process.communicate()
    its_own, survivors = ("".join(said), others)[:: 1 if lost == 0 else -1]
    assert "was ended by SIGKILL; restarting" in its_own
    assert ("makes no progress and is killed" in its_own) == (number == signal.SIGSTOP)
    assert f"host {lost} ({hosts[lost]})" in survivors
    assert "exit code 75: a host was lost; restarting" in survivors
    assert os.path.exists(last_checkpoint(broken, STEPS) + ".index")
    assert_same_run(broken, whole)
