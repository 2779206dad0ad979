"""A file that cannot be written costs a warning, and nothing else."""

import errno

import pytest

from runtime.tf1 import tf
from training.write_errors import continue_on_write_error, is_full, reason


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        tf.errors.ResourceExhaustedError(None, None, "run/x; No space left on device\n more"),
    ],
)
def test_a_failed_write_is_a_warning_that_names_path_and_cause(error, caplog):
    with continue_on_write_error("run/metrics.jsonl"):
        raise error
    (line,) = caplog.messages
    assert line.startswith("run/metrics.jsonl could not be written (")
    assert "No space left on device" in line and "more" not in line


def test_another_error_is_not_hidden():
    with pytest.raises(KeyError), continue_on_write_error("run/metrics.jsonl"):
        raise KeyError("loss")


def test_the_reason_is_the_systems():
    assert reason(OSError(errno.EACCES, "Permission denied")) == "Permission denied"


@pytest.mark.parametrize("code, full", [(errno.ENOSPC, True), (errno.EACCES, False)])
def test_a_full_disk_is_known_from_other_errors(code, full):
    assert is_full(OSError(code, "x")) is full
