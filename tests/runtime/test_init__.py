"""Importing `runtime` makes Ctrl-C and a missing package during later imports one line."""

import subprocess
import sys

import pytest

from runtime.cli import ROOT


@pytest.mark.parametrize(
    "line, start",
    [
        ("raise KeyboardInterrupt", "interrupted."),
        ("raise ModuleNotFoundError('x', name='tqdm')", "error: tqdm is not installed for"),
    ],
)
def test_an_error_of_later_imports_is_one_line(line, start):
    done = subprocess.run(
        [sys.executable, "-c", f"import runtime\n{line}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    assert done.returncode != 0 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith(start)


def test_a_hook_of_someone_else_stays():
    code = "import sys\nsys.excepthook = mine = lambda *_: None\nimport runtime\n"
    done = subprocess.run([sys.executable, "-c", code + "assert sys.excepthook is mine"], cwd=ROOT)
    assert done.returncode == 0
