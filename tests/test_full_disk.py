"""A disk that is full: training continues, ends with a code that is not 0, and names the cause."""

import os
import resource
import subprocess
import sys

import pytest

import train_nets
from evaluation.report.run_logs import read_metrics
from tests.test_end_to_end import ROOT, flags

NOT_SAVED = 75


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(kilobytes) -> a directory on a file system of that size; skips without mount."""
    mounted = []

    def mount(kilobytes):
        path = tmp_path / f"disk_{kilobytes}"
        path.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(path)]
        try:
            done = subprocess.run(words, stderr=subprocess.DEVNULL)
        except OSError:
            pytest.skip("there is no mount command")
        if done.returncode:
            pytest.skip("this user may not mount a file system")
        mounted.append(str(path))
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", path], check=True)


def trained(small, output, *more, limit=None):
    """(exit code, standard error) of train_nets.py. limit: bytes of the largest file it may write,
    as the kernel enforces it."""

    def restrict():
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    words = [sys.executable, "train_nets.py"] + flags(small, str(output), *more)
    done = subprocess.run(
        words, cwd=ROOT, stderr=subprocess.PIPE, preexec_fn=restrict, universal_newlines=True
    )
    return done.returncode, done.stderr


def test_a_run_that_could_not_save_its_state_fails_and_names_the_cause(small, tmp_path):
    code, text = trained(small, tmp_path / "run", "--epoch", "3step", limit=500000)
    assert code == NOT_SAVED, text
    last = text.splitlines()[-1]
    assert last.startswith("error: the state of step 3 could not be saved to ")
    assert "File too large" in last and "MB needed" in last and "--resume" in last
    assert "Traceback" not in text and "trained to step" not in text


def test_a_full_disk_is_named_and_the_run_resumes_when_there_is_room(small, small_disk, tmp_path):
    disk = small_disk(1200)
    code, text = trained(small, disk / "run", "--epoch", "3step")
    assert code == NOT_SAVED, text
    assert "No space left on device" in text.splitlines()[-1]
    assert "Graph execution error" not in text and "Traceback" not in text
    assert train_nets.main(flags(small, str(tmp_path / "room"), "--epoch", "3step")) == 0


def test_a_disk_that_fills_during_the_run_costs_no_step(small, small_disk, tmp_path):
    """Metrics, summaries, best pairs and report fail, too: checkpoints are elsewhere."""
    disk = small_disk(64)
    ckpt = str(tmp_path / "ckpt")
    more = ["--epoch", "4step", "--ckpt_path", ckpt, "--summary_path", str(tmp_path / "summary")]
    code, text = trained(small, disk / "run", *more)
    assert code == 0, text
    assert "report.html could not be written (No space left on device)" in text
    assert "Traceback" not in text and "Logging error" not in text
    assert os.path.exists(os.path.join(ckpt, "InsightFace_iter_4.ckpt.json"))


def test_lines_that_a_full_disk_refused_are_written_later(small, tmp_path):
    """metrics.jsonl by itself: refused lines wait for the next that can be written."""
    from training.hooks.metrics import MetricsLog

    path = tmp_path / "logs" / "metrics.jsonl"
    log = MetricsLog(str(path), 1, 10)
    log.write("train", 1, {"loss": 2.0})  # the directory is not there yet
    path.parent.mkdir()
    log.write("train", 2, {"loss": 1.0})
    assert [line["step"] for line in read_metrics(str(path))] == [1, 2]
