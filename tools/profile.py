"""Prints the operations that took most of the time in a run with --profile FIRST:LAST:

    python3 train_nets.py ... --profile 20:22
    python -m tools.profile output/run

Traces of TensorFlow open in chrome://tracing too. An Ascend card's profile is read from the
op_summary_*.csv that CANN's msprof makes of it.
"""

import csv
import dataclasses
import glob
import json
import os
import re
import sys
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from runtime.cli import run
from runtime.flags import flag, parse_flags

MICROSECONDS = "Task Duration(us)"  # a column of op_summary_*.csv, with "Op Name" and "OP Type"


class Row(NamedTuple):
    """One execution of an operation."""

    kind: str
    name: str
    milliseconds: float


@dataclasses.dataclass(frozen=True)
class ProfileConfig:
    """Flags of python -m tools.profile, after the run's directory."""

    top: int = flag(15, "rows of each table", low=1)


def main(argv: Optional[Sequence[str]] = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0].startswith("-"):
        config = parse_flags(ProfileConfig, words, "RUN: the --output_path of a run, first.")
        raise ValueError(
            f"pass the directory of a run: python -m tools.profile output/run --top {config.top}."
        )
    config = parse_flags(ProfileConfig, words[1:])
    rows, steps = read_profile(words[0])
    print_tables(rows, steps, config.top)
    return 0


def read_profile(directory: str) -> Tuple[List[Row], Optional[int]]:
    """A run's directory -> (rows, number of steps that they are of or None)."""
    places = [os.path.join(directory, "profile"), directory]
    for place in places:
        traces = sorted(glob.glob(os.path.join(place, "step_*[0-9].json")))
        traces = [path for path in traces if "_host_" not in path]  # the first host's are enough
        if traces:
            return [row for path in traces for row in _from_trace(path)], len(traces)
        tables = sorted(glob.glob(os.path.join(place, "**", "op_summary*.csv"), recursive=True))
        if tables:
            return [row for path in tables for row in _from_msprof(path)], None
    cards = glob.glob(os.path.join(places[0], "PROF_*"))
    if cards:
        raise ValueError(
            f"{cards[0]} is not exported yet; run msprof --export=on --output={cards[0]}, "
            "which writes op_summary_*.csv."
        )
    raise ValueError(f"{places[0]} has no profile; train with --profile FIRST:LAST.")


def _from_trace(path: str) -> List[Row]:
    """Rows of a Chrome trace, each operation once: not again as the host's tracer saw it; and where
    a GPU reports its streams, by them, not by the time that the CPU took to start the work."""
    with open(path, encoding="utf-8") as stream:
        events = json.load(stream)["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    streams = {pid for pid, name in names.items() if "/stream:all" in name}
    gpus = {pid for pid, name in names.items() if "GPU" in name.upper()}
    omitted = {pid for pid, name in names.items() if name == "/host:CPU"}
    omitted |= gpus - streams if streams else set()
    return [
        Row(event["args"]["op"], event["args"]["name"], event["dur"] / 1e3)
        for event in events
        if event["ph"] == "X" and event["pid"] not in omitted
    ]


def _from_msprof(path: str) -> List[Row]:
    rows = []
    with open(path, encoding="utf-8-sig", newline="") as stream:
        for line in csv.DictReader(stream):
            if not {"Op Name", "OP Type", MICROSECONDS} <= set(line):
                raise ValueError(
                    f"{path} has no columns Op Name, OP Type and {MICROSECONDS}; it is not an "
                    "op_summary of msprof."
                )
            took = line[MICROSECONDS].strip()
            if re.match(r"^[0-9.]+$", took):
                rows.append(Row(line["OP Type"], line["Op Name"], float(took) / 1e3))
    return rows


def print_tables(rows: Sequence[Row], steps: Optional[int], top: int) -> None:
    """Kinds of operations, then single ones, by the time that they took."""
    per, each = (steps, "ms/step") if steps else (1, "ms")
    total = sum(took for _, _, took in rows) or 1.0
    traced = f"{steps} steps traced: " if steps else ""
    print(f"{traced}{total / per:.2f} {each} in operations, which overlap in several threads")
    for title, column in (("kind", 0), ("operation", 1)):
        print(f"\n{each:>10}  share  times  {title}")
        for name, (took, count) in largest(rows, column, top):
            print(f"{took / per:10.3f} {100 * took / total:5.1f}% {count / per:6.0f}  {name}")


def largest(rows: Sequence[Row], column: int, top: int) -> List[Tuple[Any, Tuple[float, int]]]:
    """[(name, (milliseconds, times))] of a column's values, the longest first."""
    sums: Dict[Any, Tuple[float, int]] = {}
    for row in rows:
        took, count = sums.get(row[column], (0.0, 0))
        sums[row[column]] = took + row[2], count + 1
    return sorted(sums.items(), key=lambda item: -item[1][0])[:top]


if __name__ == "__main__":
    run(main)
