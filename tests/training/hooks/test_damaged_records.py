"""Damaged records are logged, counted, and end the run when there are too many."""

import pytest

from training.hooks.damaged_records import DamagedRecords


def test_without_skip_nothing_is_fetched():
    assert list(DamagedRecords("stop", 3).wants(1)) == []
    assert list(DamagedRecords("skip", 3).wants(1)) == ["damaged"]


def test_each_record_is_logged_with_its_step(caplog):
    hook = DamagedRecords("skip", 3)
    hook.after(7, {"damaged": b"a: record 1\nb: record 2"}, 0.1)
    hook.after(8, {"damaged": b""}, 0.1)
    hook.end(8)
    assert caplog.messages == [
        "step 7: skipped a: record 1",
        "step 7: skipped b: record 2",
        "2 damaged records were skipped.",
    ]


def test_one_more_than_the_limit_ends_the_run():
    hook = DamagedRecords("skip", 2)
    hook.after(1, {"damaged": b"a: record 1\na: record 2"}, 0.1)
    with pytest.raises(ValueError, match="3 damaged records by step 2, the last of them b: record"):
        hook.after(2, {"damaged": b"b: record 9"}, 0.1)
