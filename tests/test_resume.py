"""kill -9 at any instant, the same command again: the same bits as a run that nothing disturbed."""

import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

import train_nets
from checkpoint.writer import CheckpointWriter
from tests.test_end_to_end import ROOT, flags, last_checkpoint, numbers_of, values_of

STEPS = 12


def run_flags(small, output):
    more = ["--epoch", f"{STEPS}step", "--ckpt_interval", "2", "--validate_interval", "4"]
    more += ["--saver_maxkeep", "3", "--dropout", "0.3", "--ema", "0.9", "--resume"]
    return flags(small, str(output), *more)


@pytest.fixture(scope="module")
def undisturbed(small, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    assert train_nets.main(run_flags(small, output)) == 0
    return output


def assert_same_run(found, expected):
    whole, parts = (
        values_of(last_checkpoint(expected, STEPS)),
        values_of(last_checkpoint(found, STEPS)),
    )
    assert whole.keys() == parts.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)
    assert numbers_of(found) == numbers_of(expected)


def killed_run(small, output, when):
    """Starts the run and kills it: when(line) says at which line of its log; False if it ended."""
    words = [sys.executable, "train_nets.py"] + run_flags(small, output)
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    for line in process.stderr:
        if when(line.decode()):
            process.kill()
            break
    process.communicate()
    return process.returncode == -signal.SIGKILL


def test_a_run_killed_at_random_points_ends_in_the_same_bits(small, undisturbed, tmp_path):
    draw, kills = random.Random(5), 0
    for _ in range(3):
        at = draw.randint(1, 12)  # lines of the log after the first step
        seen = []

        def when(line, at=at, seen=seen):
            seen.append(line) if " step " in line else None
            return len(seen) >= at

        kills += killed_run(small, tmp_path, when)
    assert kills >= 2  # the others had so little left that they ended first
    assert train_nets.main(run_flags(small, tmp_path)) == 0
    assert_same_run(tmp_path, undisturbed)


def test_a_kill_while_a_checkpoint_is_written_loses_only_that_one(small, undisturbed, tmp_path):
    """The process is stopped dead between the renames: files are there, the record is not."""
    code = (
        "import os, signal, sys\n"
        "from checkpoint import writer\n"
        "real = writer.write_record\n"
        "def write_record(prefix, record):\n"
        "    if record['step'] == 6 and 'best' not in os.path.basename(prefix):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(prefix, record)\n"
        "writer.write_record = write_record\n"
        "import train_nets\n"
        "train_nets.main(sys.argv[1:])\n"
    )
    words = [sys.executable, "-c", code] + run_flags(small, tmp_path)
    done = subprocess.run(words, cwd=ROOT, stderr=subprocess.PIPE)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    assert os.path.exists(last_checkpoint(tmp_path, 6) + ".index")
    assert train_nets.main(run_flags(small, tmp_path)) == 0
    assert_same_run(tmp_path, undisturbed)


def test_a_torn_newest_checkpoint_costs_only_its_own_steps(small, undisturbed, tmp_path, caplog):
    assert train_nets.main(run_flags(small, tmp_path)[:-1] + ["--epoch", "8step"]) == 0
    data = last_checkpoint(tmp_path, 8) + ".data-00000-of-00001"
    os.truncate(data, os.path.getsize(data) // 2)
    assert train_nets.main(run_flags(small, tmp_path)) == 0
    assert "InsightFace_iter_8.ckpt is not usable" in caplog.text
    assert_same_run(tmp_path, undisturbed)


def test_a_full_disk_warns_and_training_goes_on(small, tmp_path, monkeypatch, caplog):
    real, calls = CheckpointWriter._write, []

    def write(self, session, name, record):
        calls.append(name)
        if len(calls) == 1:
            raise OSError(28, "No space left on device", name)
        return real(self, session, name, record)

    monkeypatch.setattr(CheckpointWriter, "_write", write)
    assert train_nets.main(flags(small, str(tmp_path), "--epoch", "4step")) == 0
    assert "No space left on device" in caplog.text
    assert os.path.exists(last_checkpoint(tmp_path, 4) + ".json")
