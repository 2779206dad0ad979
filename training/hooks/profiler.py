"""--profile FIRST:LAST: the time of each operation of these steps, as traces of Chrome's format.

On a CPU or GPU TensorFlow traces the steps. An Ascend card writes its own profile of the whole run.
tools/profile.py prints both.
"""

import json
import logging
import os
import re
from typing import Any, Dict, Iterable, List, Optional, Tuple

from runtime.files import atomic_write
from runtime.tf1 import tf
from training.hooks.base import Hook
from training.write_errors import continue_on_write_error

LABEL = re.compile(r"^(.*) = ([A-Za-z0-9_>]+)\(")  # TensorFlow's: name = Kind(inputs)


def steps_of(text: Optional[str]) -> Optional[Tuple[int, int]]:
    """20:22 -> (20, 22), the first and the last step to trace; None -> None."""
    if text is None:
        return None
    match = re.match(r"^(\d+):(\d+)$", text)
    first, last = (int(part) for part in match.groups()) if match else (0, 0)
    if not 1 <= first <= last:
        raise ValueError(
            f"--profile {text} is not a range of steps; pass the first and the last, as in "
            "--profile 20:22."
        )
    return first, last


class Profile(Hook):
    """Traces the runs of the session that it wraps while a step of its range is made. It comes
    first among the hooks, so that what the others run after a step is not traced."""

    def __init__(
        self,
        steps: Optional[str],
        directory: str,
        summaries: Optional[str] = None,
        host: int = 0,
    ) -> None:
        """steps: as in --profile. directory: of the traces. summaries: directory of TensorBoard."""
        self.steps, self.directory, self.summaries = steps_of(steps), directory, summaries
        self.host, self.active, self.traced = host, False, 0
        self.runs: List[Any] = []
        self._tensorboard: Optional[tf.summary.FileWriter] = None

    def wrap(self, session: tf.Session) -> Any:
        """The session, each of whose runs is traced while a step of the range is made."""
        return _Traced(session, self) if self.steps else session

    def wants(self, step: int) -> Iterable[str]:
        self.active = self.steps is not None and self.steps[0] <= step <= self.steps[1]
        return ()

    def after(self, step: int, values: Dict[str, Any], seconds: float) -> None:
        if not self.active:
            return
        self.active, self.traced = False, self.traced + 1
        suffix = f"_host_{self.host}" if self.host else ""
        path = os.path.join(self.directory, f"step_{step}{suffix}.json")
        with continue_on_write_error(path):
            os.makedirs(self.directory, exist_ok=True)
            with atomic_write(path) as stream:
                json.dump({"traceEvents": chrome_events(self.runs)}, stream)
            if self.summaries:
                self._add_to_tensorboard(step)
        self.runs = []
        if self.steps is not None and step == self.steps[1]:
            logging.info("traced: python -m tools.profile %s", os.path.dirname(self.directory))

    def end(self, step: int) -> None:
        if self.steps and not self.traced:
            steps = "%d:%d" % self.steps
            logging.warning("--profile %s: no such step was made, and nothing is traced.", steps)

    def _add_to_tensorboard(self, step: int) -> None:
        """TensorBoard's graph tab then shows the time and memory of each operation."""
        if self._tensorboard is None:  # named apart: another writer may have this second's name
            graph = tf.get_default_graph()
            self._tensorboard = tf.summary.FileWriter(
                self.summaries, graph, filename_suffix=".profile"
            )
        self._tensorboard.add_run_metadata(self.runs[-1], f"step {step}", step)
        self._tensorboard.flush()


class _Traced:
    """A session whose runs add their metadata to a Profile."""

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


def chrome_events(runs: List[Any]) -> List[Dict[str, Any]]:
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


def _event(number: int, node: Any) -> Dict[str, Any]:
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
