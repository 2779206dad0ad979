"""A directory appears whole or not at all."""

import os
import subprocess
import sys

import pytest

from data.convert.atomic_directory import read_state, work_directory, write_state
from runtime.cli import ROOT


def test_the_directory_appears_at_the_end_without_the_notes(tmp_path):
    target = str(tmp_path / "out")
    with work_directory(target, 1) as work:
        write_state(work, {"a": 1})
        assert read_state(work) == {"a": 1} and not os.path.exists(target)
        with open(os.path.join(work, "x"), "w") as stream:
            stream.write("x")
    assert os.listdir(target) == ["x"] and os.listdir(str(tmp_path)) == ["out"]


def test_a_users_mistake_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="mistake"), work_directory(str(tmp_path / "out"), 1):
        raise ValueError("mistake")
    assert os.listdir(str(tmp_path)) == []


def test_a_second_writer_is_refused(tmp_path):
    target = str(tmp_path / "out")
    with work_directory(target, 1):
        with pytest.raises(ValueError, match="is being written by another process"):
            with work_directory(target, 1):
                pass


def test_too_little_space_is_noticed_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="free, and up to .* are needed"):
        with work_directory(str(tmp_path / "out"), 1 << 60):
            pass
    assert os.listdir(str(tmp_path)) == []


def test_conversion_works_without_fcntl(tmp_path):
    """As on Windows; the lock is the only thing that is missing there."""
    code = (
        "import sys; sys.modules['fcntl'] = None\n"
        "import data.mx2tfrecords, data.image_folder\n"
        "from data.convert.atomic_directory import work_directory\n"
        f"with work_directory({str(tmp_path / 'out')!r}, 1): pass\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert (tmp_path / "out").is_dir()
