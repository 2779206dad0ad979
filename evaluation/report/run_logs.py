"""A run's directory -> what a report is drawn from; a file that is missing or cut short is no
error, as reports are drawn while the run is still writing."""

import dataclasses
import json
import os
from typing import Dict, List

from evaluation.saved_pairs import SavedPairs, load


@dataclasses.dataclass(frozen=True)
class Run:
    """config: config.json. train: its lines by step. validations: set -> its lines by step.
    best: set -> what was saved of the best checkpoint's pairs."""

    path: str
    config: dict
    train: List[dict]
    validations: Dict[str, List[dict]]
    best: Dict[str, SavedPairs]

    @property
    def name(self):
        return os.path.basename(os.path.abspath(self.path))

    def section(self, name):
        """A part of config.json: net, training, dataset or environment."""
        part = self.config.get(name)
        return part if isinstance(part, dict) else {}

    @property
    def last_step(self):
        lines = [lines[-1] for lines in [self.train, *self.validations.values()] if lines]
        return max([line["step"] for line in lines], default=0)

    @property
    def synthetic(self):
        """Whether any number here is about drawn people."""
        told = any(line.get("synthetic") for lines in self.validations.values() for line in lines)
        return told or "synthetic" in json.dumps(self.section("dataset")).lower()

    @property
    def total_steps(self):
        """The steps the run is to make, or None where config.json does not say."""
        total = self.section("training").get("total_steps") or self.config.get("total_steps")
        return total if isinstance(total, int) else None

    def best_line(self, name):
        """The validation with the set's highest Accuracy-Flip, the first of equals; the untrained
        net only where no other was judged."""
        lines = self.validations[name]
        trained = [line for line in lines if line["step"] > 0] or lines
        return max(trained, key=lambda line: line.get("accuracy_flip", 0.0))


def read_run(path):
    """The Run in a directory."""
    if not os.path.isdir(path):
        raise ValueError(f"{path} is not a directory; pass the --output_path of a run.")
    config = _json(os.path.join(path, "config.json"))
    lines = read_metrics(metrics_path(path, config))
    train = _by_step(line for line in lines if line.get("kind") == "train")
    validations = {}
    for line in lines:
        if line.get("kind") == "validation" and "set" in line:
            validations.setdefault(line["set"], []).append(line)
    return Run(
        path,
        config,
        train,
        {name: _by_step(some) for name, some in validations.items()},
        _best(os.path.join(path, "best"), list(validations)),
    )


def metrics_path(path, config):
    """metrics.jsonl of a run, also where --log_file_path put it elsewhere."""
    elsewhere = (config.get("training") or {}).get("log_file_path")
    inside = os.path.join(path, "logs", "metrics.jsonl")
    if elsewhere and not os.path.exists(inside):
        return os.path.join(elsewhere, "metrics.jsonl")
    return inside


def read_metrics(path):
    """The whole lines of a metrics.jsonl; one that a kill or a writer cut short is passed over."""
    lines = []
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as stream:
            for text in stream:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict) and isinstance(line.get("step"), int):
                    lines.append(line)
    return lines


def _by_step(lines):
    """One line a step, the last written, in order: a resumed run may repeat some."""
    return [line for _, line in sorted({line["step"]: line for line in lines}.items())]


def _best(directory, order):
    """Saved pairs by set, in the order in which the run validates."""
    if not os.path.isdir(directory):
        return {}
    names = sorted(entry[:-4] for entry in os.listdir(directory) if entry.endswith(".npz"))
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    loaded = {name: load(os.path.join(directory, f"{name}.npz")) for name in names}
    return {name: result for name, result in loaded.items() if result is not None}


def _json(path):
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
