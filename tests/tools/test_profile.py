"""Sums of a recorded trace and of msprof's table, computed by hand."""

import json

import pytest

from tools.profile import Row, largest, main, read_profile


def write_trace(directory, step, operations, process="/job:localhost/device:CPU:0"):
    events = [{"ph": "M", "pid": 1, "args": {"name": process}}]
    events += [{"ph": "M", "pid": 2, "args": {"name": "/host:CPU"}}]
    for kind, name, microseconds in operations:
        args = {"op": kind, "name": name}
        events.append({"ph": "X", "pid": 1, "dur": microseconds, "args": args})
        events.append({"ph": "X", "pid": 2, "dur": microseconds, "args": args})  # seen twice
    directory.mkdir(exist_ok=True)
    (directory / f"step_{step}.json").write_text(json.dumps({"traceEvents": events}))


def test_an_operation_of_a_trace_counts_once(tmp_path):
    write_trace(tmp_path / "profile", 3, [("Conv2D", "a/conv", 1500)])
    write_trace(tmp_path / "profile", 4, [("Conv2D", "a/conv", 500), ("Relu", "a/relu", 250)])
    rows, steps = read_profile(str(tmp_path))
    assert steps == 2
    assert rows == [
        Row("Conv2D", "a/conv", 1.5),
        Row("Conv2D", "a/conv", 0.5),
        Row("Relu", "a/relu", 0.25),
    ]


def test_largest_sums_by_kind_and_keeps_the_longest():
    rows = [Row("Relu", "r", 0.5), Row("Conv2D", "x", 2.0), Row("Relu", "s", 1.0)]
    assert largest(rows, 0, 1) == [("Conv2D", (2.0, 1))]
    assert largest(rows, 0, 5) == [("Conv2D", (2.0, 1)), ("Relu", (1.5, 2))]


def test_the_tables_divide_by_the_number_of_steps(tmp_path, capsys):
    for step in (3, 4):
        write_trace(tmp_path / "profile", step, [("Conv2D", "a/conv", 1000)])
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("2 steps traced: 1.00 ms/step")
    assert "     1.000 100.0%      1  Conv2D" in printed


def test_msprofs_table_is_read_and_another_is_refused(tmp_path):
    table = tmp_path / "op_summary_0.csv"
    table.write_text("Op Name,OP Type,Task Duration(us)\nconv1,Conv2D,2500\nskipped,AI_CPU,N/A\n")
    assert read_profile(str(tmp_path)) == ([Row("Conv2D", "conv1", 2.5)], None)
    table.write_text("Name,Time\nconv1,2500\n")
    with pytest.raises(ValueError, match="is not an op_summary of msprof"):
        read_profile(str(tmp_path))


def test_a_run_without_a_profile_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="has no profile; train with --profile FIRST:LAST"):
        main([str(tmp_path)])
    with pytest.raises(ValueError, match="pass the directory of a run"):
        main([])
