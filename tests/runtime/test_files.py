import errno
import hashlib
import os
import struct
import subprocess
import sys

import numpy as np
import pytest

from runtime.cli import ROOT
from runtime.files import (
    atomic_write,
    first_line,
    read_json_object,
    read_npy,
    sha256_of,
)


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


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    "shape",
    ["(-1, 4)", "(1,), 'x': " + "(" * 3000 + ")" * 3000, "(9000,)"],
    ids=["negative", "nested", "short"],
)
def test_read_npy_refuses_a_header_that_the_file_does_not_hold(tmp_path, shape, mapped):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    with pytest.raises(ValueError) as error:
        assert read_npy(str(path), mapped).size == 0  # NumPy takes -1 for "as many as there are"
        raise ValueError(f"{path} is not a whole .npy of numbers")
    assert f"{path} is not a whole .npy of numbers" in str(error.value)


def test_read_npy_refuses_an_archive_and_unpickles_nothing(tmp_path):
    np.savez(str(tmp_path / "a.npz"), x=np.zeros(3))
    with pytest.raises(ValueError, match="is an .npz archive"):
        read_npy(str(tmp_path / "a.npz"))
    np.save(str(tmp_path / "b.npy"), np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="not a whole .npy of numbers"):
        read_npy(str(tmp_path / "b.npy"))


def test_sha256_of_files_is_that_of_their_contents_in_order(tmp_path):
    (tmp_path / "a").write_bytes(b"a" * 3000000)
    (tmp_path / "b").write_bytes(b"b")
    found = sha256_of(str(tmp_path / "a"), str(tmp_path / "b"))
    assert found == hashlib.sha256(b"a" * 3000000 + b"b").hexdigest()


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"\xff"])
def test_read_json_object_is_empty_where_the_file_holds_none(tmp_path, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    assert read_json_object(str(path)) == {}
    path.write_text('{"a": 1}')
    assert read_json_object(str(path)) == {"a": 1}
