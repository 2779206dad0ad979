"""The lock on a run's directory."""

import os
import subprocess
import sys

import pytest

from training.output_lock import lock_output_directory

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HOLD = (
    "import sys; from training.output_lock import lock_output_directory\n"
    "with lock_output_directory(sys.argv[1]):\n"
    "    print('locked', flush=True); sys.stdin.read()\n"
)


def test_a_directory_in_use_is_refused_and_the_holder_named(tmp_path):
    with lock_output_directory(str(tmp_path)):
        with pytest.raises(ValueError) as error:
            with lock_output_directory(str(tmp_path)):
                pass
    assert f"{tmp_path} is in use by another training (process {os.getpid()})" in str(error.value)


def test_a_lock_is_free_after_the_block(tmp_path):
    for _ in range(2):
        with lock_output_directory(str(tmp_path)):
            pass


def test_the_hosts_of_a_run_share_a_directory(tmp_path):
    with lock_output_directory(str(tmp_path), 0), lock_output_directory(str(tmp_path), 1):
        pass


def test_a_killed_process_holds_no_lock(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"locked\n"
    with pytest.raises(ValueError, match="in use by another training"):
        with lock_output_directory(str(tmp_path)):
            pass
    holder.kill()
    holder.communicate()
    with lock_output_directory(str(tmp_path)):
        pass
