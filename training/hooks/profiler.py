"""--profile START:STOP: what each operation of these steps took, and where it is read.

    python3 train_nets.py ... --profile 20:22      # then chrome://tracing, or
    python -m training.hooks.profiler output/run   # the operations that took most of the time

On a CPU or GPU TensorFlow traces the steps. An Ascend card writes its own profile of the whole run,
which CANN's msprof turns into op_summary_*.csv; both are read here.
"""

import csv
import dataclasses
import glob
import json
import logging
import os
import re
import sys

from runtime.cli import run
from runtime.flags import flag, parse_flags
from runtime.tf1 import tf
from training.hooks.base import Hook

LABEL = re.compile(r"^(.*) = ([A-Za-z0-9_>]+)\(")  # TensorFlow's: name = Kind(inputs)
MICROSECONDS = "Task Duration(us)"  # a column of op_summary_*.csv, beside "Op Name" and "OP Type"


def steps_of(text):
    """20:22 -> (20, 22), the first and the last step that are traced; None -> None."""
    if text is None:
        return None
    match = re.match(r"^(\d+):(\d+)$", text)
    first, last = (int(part) for part in match.groups()) if match else (0, 0)
    if not 1 <= first <= last:
        raise ValueError(
            f"--profile {text} is no range of steps; pass the first and the last, as in "
            "--profile 20:22."
        )
    return first, last


def npu_options(steps, directory):
    """The values of NpuOptimizer that have an Ascend card write its profile into a directory; it
    traces the whole run, of which --profile's steps are then a part. {} where steps is None."""
    if steps_of(steps) is None:
        return {}
    directory = os.path.abspath(directory)
    os.makedirs(directory, exist_ok=True)  # the adapter makes none
    said = {"output": directory, "training_trace": "on", "task_trace": "on", "hccl": "on"}
    said.update(aicpu="on", fp_point="", bp_point="", aic_metrics="PipeUtilization")
    return {"profiling_mode": True, "profiling_options": json.dumps(said)}


class Profile(Hook):
    """Traces the runs of the session that it wraps while a step of its range is made. It comes
    first among the hooks, so that what the others run after a step is not traced."""

    def __init__(self, steps, directory, summaries=None, host=0):
        """steps: as --profile says them. directory: of the traces; summaries: of TensorBoard."""
        self.steps, self.directory, self.summaries = steps_of(steps), directory, summaries
        self.host, self.runs, self.active, self.traced = host, [], False, 0
        self._tensorboard = None

    def wrap(self, session):
        """The session, each of whose runs is traced while a step of the range is made."""
        return _Traced(session, self) if self.steps else session

    def wants(self, step):
        self.active = bool(self.steps) and self.steps[0] <= step <= self.steps[1]
        return ()

    def after(self, step, values, seconds):
        if not self.active:
            return
        self.active, self.traced = False, self.traced + 1
        os.makedirs(self.directory, exist_ok=True)
        where = f"_host_{self.host}" if self.host else ""
        path = os.path.join(self.directory, f"step_{step}{where}.json")
        with open(path, "w", encoding="utf-8") as stream:
            json.dump({"traceEvents": chrome_events(self.runs)}, stream)
        if self.summaries:
            self._add_to_tensorboard(step)
        self.runs = []
        if step == self.steps[1]:
            logging.info(
                "traced: python -m training.hooks.profiler %s", os.path.dirname(self.directory)
            )

    def end(self, step):
        if self.steps and not self.traced:
            said = "%d:%d" % self.steps
            logging.warning("--profile %s: no such step was made, and nothing is traced.", said)

    def _add_to_tensorboard(self, step):
        """Its tab of graphs then shows the time and memory of each part."""
        if self._tensorboard is None:  # named apart: another writer may have this second's name
            graph = tf.get_default_graph()
            self._tensorboard = tf.summary.FileWriter(
                self.summaries, graph, filename_suffix=".profile"
            )
        self._tensorboard.add_run_metadata(self.runs[-1], f"step {step}", step)
        self._tensorboard.flush()


class _Traced:
    """A session whose runs leave their metadata with a Profile."""

    def __init__(self, session, profile):
        self._session, self._profile = session, profile

    def __getattr__(self, name):
        return getattr(self._session, name)

    def run(self, fetches, feed_dict=None):
        if not self._profile.active:
            return self._session.run(fetches, feed_dict)
        options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
        metadata = tf.RunMetadata()
        values = self._session.run(fetches, feed_dict, options=options, run_metadata=metadata)
        self._profile.runs.append(metadata)
        return values


def chrome_events(runs):
    """RunMetadata of one step's runs -> the events of Chrome's trace viewer, a row for each device
    and thread; args hold the operation's name and kind."""
    events = []
    devices = sorted({device.device for run in runs for device in run.step_stats.dev_stats})
    for number, name in enumerate(devices):
        facts = dict(name="process_name", ph="M", pid=number, args={"name": name})
        events.append(facts)
    for traced in runs:
        for device in traced.step_stats.dev_stats:
            for node in device.node_stats:
                events.append(_event(devices.index(device.device), node))
    return events


def _event(number, node):
    match = LABEL.match(node.timeline_label)
    name, kind = match.groups() if match else (node.node_name, node.node_name.split(":")[-1])
    return dict(
        name=kind,
        ph="X",
        pid=number,
        tid=node.thread_id,
        ts=node.all_start_micros + node.op_start_rel_micros,
        dur=max(0, node.op_end_rel_micros - node.op_start_rel_micros),
        args={"name": name, "op": kind},
    )


@dataclasses.dataclass(frozen=True)
class ProfileConfig:
    """Flags of python -m training.hooks.profiler, after the run's directory."""

    top: int = flag(15, "rows of each table", low=1)


def main(argv=None):
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0].startswith("-"):
        config = parse_flags(ProfileConfig, words, "RUN: the --output_path of a run, first.")
        raise ValueError(
            "pass the directory of a run: python -m training.hooks.profiler output/run "
            f"--top {config.top}."
        )
    config = parse_flags(ProfileConfig, words[1:])
    rows, steps = read_profile(words[0])
    print_tables(rows, steps, config.top)
    return 0


def read_profile(directory):
    """A run's directory -> ([(kind, name, milliseconds)], how many steps they are of or None)."""
    places = [os.path.join(directory, "profile"), directory]
    for place in places:
        traces = sorted(glob.glob(os.path.join(place, "step_*[0-9].json")))
        traces = [path for path in traces if "_host_" not in path]  # the first host's speak for all
        if traces:
            return [row for path in traces for row in _from_trace(path)], len(traces)
        tables = sorted(glob.glob(os.path.join(place, "**", "op_summary*.csv"), recursive=True))
        if tables:
            return [row for path in tables for row in _from_msprof(path)], None
    cards = glob.glob(os.path.join(places[0], "PROF_*"))
    if cards:
        raise ValueError(
            f"{cards[0]} is as the card wrote it; run msprof --export=on --output={cards[0]}, "
            "which makes op_summary_*.csv of it."
        )
    raise ValueError(f"{places[0]} holds no profile; train with --profile START:STOP.")


def _from_trace(path):
    """Rows of a Chrome trace, each operation once: not again as the host's tracer saw it; and where
    a GPU reports its streams, by them, not by the time that the CPU took to start the work."""
    with open(path, encoding="utf-8") as stream:
        events = json.load(stream)["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    streams = {pid for pid, name in names.items() if "/stream:all" in name}
    gpus = {pid for pid, name in names.items() if "GPU" in name.upper()}
    left_out = {pid for pid, name in names.items() if name == "/host:CPU"}
    left_out |= gpus - streams if streams else set()
    return [
        (event["args"]["op"], event["args"]["name"], event["dur"] / 1e3)
        for event in events
        if event["ph"] == "X" and event["pid"] not in left_out
    ]


def _from_msprof(path):
    rows = []
    with open(path, encoding="utf-8-sig", newline="") as stream:
        for line in csv.DictReader(stream):
            if not {"Op Name", "OP Type", MICROSECONDS} <= set(line):
                raise ValueError(
                    f"{path} has no columns Op Name, OP Type and {MICROSECONDS}; it is no "
                    "op_summary of msprof."
                )
            took = line[MICROSECONDS].strip()
            if re.match(r"^[0-9.]+$", took):
                rows.append((line["OP Type"], line["Op Name"], float(took) / 1e3))
    return rows


def print_tables(rows, steps, top):
    """Kinds of operations, then single ones, by the time that they took."""
    per, each = (steps, "ms/step") if steps else (1, "ms")
    total = sum(took for _, _, took in rows) or 1.0
    said = f"{steps} steps traced: " if steps else ""
    print(f"{said}{total / per:.2f} {each} in operations, which overlap where threads are many")
    for title, column in (("kind", 0), ("operation", 1)):
        print(f"\n{each:>10}  share  times  {title}")
        for name, (took, count) in largest(rows, column, top):
            print(f"{took / per:10.3f} {100 * took / total:5.1f}% {count / per:6.0f}  {name}")


def largest(rows, column, top):
    """[(name, (milliseconds, times))] of a column's values, the longest first."""
    sums = {}
    for row in rows:
        took, count = sums.get(row[column], (0.0, 0))
        sums[row[column]] = took + row[2], count + 1
    return sorted(sums.items(), key=lambda item: -item[1][0])[:top]


if __name__ == "__main__":
    run(main)
