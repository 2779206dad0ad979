import errno
import os
import subprocess
import sys

import pytest

from runtime.cli import ROOT
from runtime.files import atomic_write, first_line


def test_atomic_write_replaces_the_file_when_the_block_ends(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with atomic_write(str(path), durable=True) as stream:
        stream.write("new é")
        assert path.read_text() == "old"
    assert path.read_bytes() == "new é".encode("utf-8")
    assert os.listdir(str(tmp_path)) == ["a.json"]


def test_atomic_write_keeps_the_file_when_the_block_fails(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), atomic_write(str(path), "wb") as stream:
        stream.write(b"half")
        raise KeyError("x")
    assert path.read_bytes() == b"old" and os.listdir(str(tmp_path)) == ["a.bin"]


def test_atomic_write_names_the_path_when_no_space_is_left(tmp_path):
    code = (
        "import resource, signal\n"
        "from runtime.files import atomic_write\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    with atomic_write('big.txt') as stream:\n"
        "        stream.write('x' * 5000)\n"
        "except OSError as error:\n"
        "    print(error.errno, error.filename)\n"
    )
    environ = dict(os.environ, PYTHONPATH=ROOT)
    output = subprocess.check_output([sys.executable, "-c", code], cwd=str(tmp_path), env=environ)
    assert output.decode().split() == [str(errno.EFBIG), "big.txt"]
    assert os.listdir(str(tmp_path)) == []


def test_first_line_skips_the_heading_of_tensorflow():
    error = RuntimeError("Graph execution error:\n\nNo space left on device; big.data\n\t [[node]]")
    assert first_line(error) == "No space left on device; big.data"
    assert first_line(ValueError()) == "ValueError"


def test_first_line_skips_where_tensorflow_says_that_the_node_was_defined():
    heading = (
        "Graph execution error:\n\nDetected at node 'Save' defined at (most recent call last):\n"
    )
    frames = '    File "train.py", line 7, in <module>\n'
    error = RuntimeError(heading + frames + "Node: 'Save'\nFile too large\n\t [[{{node Save}}]]")
    assert first_line(error) == "File too large"


def test_write_npz_on_a_full_disk_is_one_error_without_a_traceback(tmp_path):
    code = (
        "import gc, resource, signal\n"
        "import numpy as np\n"
        "from runtime.files import write_npz\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    write_npz('big.npz', {'a': np.zeros(9000)})\n"
        "except OSError as error:\n"
        "    print(error.filename)\n"
        "gc.collect()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=str(tmp_path), env={**os.environ, "PYTHONPATH": ROOT},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
    )  # fmt: skip
    assert done.stdout.strip() == "big.npz" and done.stderr == ""
    assert os.listdir(str(tmp_path)) == []
