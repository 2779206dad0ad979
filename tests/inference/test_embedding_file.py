import os
import subprocess
import sys

import numpy as np
import pytest

from inference.embedding_file import EmbeddingFile, check_output, npy_header
from tests.test_architecture import ROOT

ROWS = np.random.RandomState(0).randn(6, 3).astype(np.float32)
IDENTITY = {"model": "a", "flip": False}


def open_file(path, images=6, identity=None, named=True):
    return EmbeddingFile(str(path), (images, 3), identity or IDENTITY, named)


def append(file, start, stop, failed=()):
    names = [f"{row}.jpg" for row in range(start, stop)]
    file.append(ROWS[start:stop], names, stop - start + len(failed), list(failed))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.npy"


def test_rows_and_names_are_written(path, tmp_path):
    with open_file(path) as file:
        append(file, 0, 4)
        append(file, 4, 6)
        assert file.finish() == 6
    np.testing.assert_array_equal(np.load(str(path)), ROWS)
    assert (tmp_path / "out_names.txt").read_text() == "".join(f"{i}.jpg\n" for i in range(6))
    assert sorted(os.listdir(str(tmp_path))) == ["out.npy", "out_names.txt"]


def test_an_unfinished_file_has_another_name(path):
    with open_file(path) as file:
        append(file, 0, 4)
    assert not path.exists()


def test_the_next_run_continues_behind_the_last_batch(path):
    with open_file(path) as file:
        append(file, 0, 4)
    with open_file(path) as file:
        assert file.progress.images == 4
        append(file, 4, 6)
        file.finish()
    np.testing.assert_array_equal(np.load(str(path)), ROWS)


def test_a_cut_off_line_of_the_journal_is_dropped(path, tmp_path):
    with open_file(path) as file:
        append(file, 0, 2)
        append(file, 2, 4)
    journal = tmp_path / "out.npy.journal"
    journal.write_bytes(journal.read_bytes()[:-5])
    with open_file(path) as file:
        assert file.progress.images == 2
        append(file, 2, 6)
        file.finish()
    np.testing.assert_array_equal(np.load(str(path)), ROWS)
    assert len((tmp_path / "out_names.txt").read_text().split()) == 6


def test_rows_that_never_reached_the_disk_are_embedded_again(path, tmp_path):
    with open_file(path) as file:
        append(file, 0, 2)
        append(file, 2, 4)
    with open(str(tmp_path / "out.npy.partial"), "r+b") as stream:
        stream.seek(-4 * 3 * 3, os.SEEK_END)  # the row with index 3
        stream.write(b"\0\0\0\0")
    with open_file(path) as file:
        assert file.progress.images == 2


def test_unreadable_images_leave_no_row(path, tmp_path):
    with open_file(path, images=6) as file:
        append(file, 0, 4, failed=[("x.jpg", "it is broken")])
        append(file, 4, 5)
        assert file.finish() == 5
    np.testing.assert_array_equal(np.load(str(path)), ROWS[:5])
    assert (tmp_path / "out_errors.txt").read_text() == "x.jpg\tit is broken\n"


def test_unreadable_images_are_remembered_by_a_resumed_run(path):
    with open_file(path) as file:
        append(file, 0, 2, failed=[("x.jpg", "it is broken")])
    with open_file(path) as file:
        assert file.progress.failed == (("x.jpg", "it is broken"),)


def test_no_readable_image_leaves_no_file(path, tmp_path):
    with open_file(path, images=1) as file:
        file.append(ROWS[:0], [], 1, [("x.jpg", "it is broken")])
        with pytest.raises(ValueError, match="none of 1 images could be read.*it is broken"):
            file.finish()
    assert os.listdir(str(tmp_path)) == []


def test_a_journal_of_another_run_is_refused(path):
    with open_file(path) as file:
        append(file, 0, 2)
    with pytest.raises(ValueError, match="unfinished run with another flip; repeat"):
        open_file(path, identity={"model": "a", "flip": True}).__enter__()


def test_a_second_writer_is_refused(path):
    pytest.importorskip("fcntl", reason="locks files")
    with open_file(path) as file:
        append(file, 0, 2)
        with pytest.raises(ValueError, match="is being written by another process"):
            open_file(path).__enter__()


def test_a_full_disk_ends_the_run_before_the_work(path):
    """A limit on the size of files stands for the disk."""
    pytest.importorskip("resource", reason="limits the size of files")
    code = (
        "import resource, sys\n"
        "from inference.embedding_file import EmbeddingFile\n"
        "from runtime.cli import run\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        f"run(lambda _: EmbeddingFile({str(path)!r}, (1000, 512), {{}}, False).__enter__())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert b"out.npy: File too large (2,048,128 bytes)." in done.stderr
    assert os.listdir(os.path.dirname(str(path))) == []


def test_a_killed_process_loses_no_batch_that_it_stored(path):
    code = (
        "import os, signal, numpy as np\n"
        "from inference.embedding_file import EmbeddingFile\n"
        f"file = EmbeddingFile({str(path)!r}, (6, 3), "
        "{'model': 'a', 'flip': False}, False).__enter__()\n"
        "file.append(np.ones((4, 3), np.float32), [], 4, [])\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT)
    with open_file(path, named=False) as file:
        assert file.progress.images == 4
        append(file, 4, 6)
        file.finish()
    assert np.load(str(path))[:4].min() == 1.0


@pytest.mark.parametrize("rows", [1, 10**12])
def test_the_header_has_one_length(rows):
    assert len(npy_header(rows, 512)) == 128


@pytest.mark.parametrize(
    "name, message", [("out.txt", "must end in .npy"), ("no/out.npy", "is in no directory")]
)
def test_an_output_that_cannot_be_written_is_refused(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        check_output(str(tmp_path / name))


def test_a_run_that_fails_before_its_first_batch_leaves_nothing(path, tmp_path):
    with pytest.raises(ValueError), open_file(path):
        raise ValueError("the first image cannot be read")
    assert os.listdir(str(tmp_path)) == []
