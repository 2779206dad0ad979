"""The files of a run, as a report needs them.

A missing or truncated file is no error: reports are drawn while the run is still writing.
"""

import json
import os
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from evaluation.saved_pairs import SavedPairs, load
from runtime.files import read_json_object

Line = Dict[str, Any]  # of metrics.jsonl
CHECKPOINTS = ("InsightFace_iter_best_{}.ckpt", "InsightFace_iter_{}.ckpt")


class Run(NamedTuple):
    """A run's records."""

    path: str
    config: Dict[str, Any]  # config.json
    train: List[Line]  # by step
    validations: Dict[str, List[Line]]  # set -> its lines by step
    best: Dict[str, SavedPairs]  # set -> scores of the best checkpoint
    overlaps: Dict[str, int] = {}  # set -> its images that are training images too, byte for byte
    peak_memory: Optional[float] = None  # GiB of main memory so far
    shifts: Dict[str, Tuple[int, int]] = {}  # set -> pixels (down, right) from training faces

    @property
    def name(self) -> str:
        return os.path.basename(os.path.abspath(self.path))

    def section(self, name: str) -> Dict[str, Any]:
        """A part of config.json: net, training, dataset or environment."""
        part = self.config.get(name)
        return part if isinstance(part, dict) else {}

    @property
    def last_step(self) -> int:
        lines = [lines[-1] for lines in [self.train, *self.validations.values()] if lines]
        return max([line["step"] for line in lines], default=0)

    @property
    def seconds(self) -> float:
        """Training time so far, over all resumptions."""
        lines = [lines[-1] for lines in [self.train, *self.validations.values()] if lines]
        return max([float(line.get("seconds", 0.0)) for line in lines], default=0.0)

    @property
    def synthetic(self) -> bool:
        """Whether any metric here is of synthetic faces."""
        lines = [line for lines in self.validations.values() for line in lines]
        of_sets = any(line.get("synthetic") for line in lines)
        return of_sets or "synthetic" in json.dumps(self.section("dataset")).lower()

    @property
    def finetuned(self) -> bool:
        """Whether the weights of step 0 come from a checkpoint."""
        return bool(self.section("training").get("finetune"))

    @property
    def total_steps(self) -> Optional[int]:
        """The steps of the whole run, or None where config.json does not have them."""
        total = self.section("training").get("total_steps") or self.config.get("total_steps")
        return total if isinstance(total, int) else None

    @property
    def best_step(self) -> Optional[int]:
        """The step with the highest mean Accuracy-Flip over all sets, the first of equals; step 0
        only where no other was validated. All headline figures are of this one checkpoint."""
        sums: Dict[int, List[float]] = {}
        for lines in self.validations.values():
            for line in lines:
                sums.setdefault(line["step"], []).append(line.get("accuracy_flip", 0.0))
        most = max(map(len, sums.values()), default=0)
        means = {step: sum(some) / most for step, some in sums.items() if len(some) == most}
        trained = {step: mean for step, mean in means.items() if step > 0} or means
        return max(sorted(trained), key=lambda step: trained[step], default=None)

    def best_line(self, name: str) -> Line:
        """The set's validation at best_step; its last one where it has none there."""
        at_best = [line for line in self.validations[name] if line["step"] == self.best_step]
        return at_best[0] if at_best else self.validations[name][-1]

    @property
    def checkpoint(self) -> Optional[str]:
        """The checkpoint of best_step, if it is still there."""
        directory = self.section("training").get("ckpt_path") or os.path.join(self.path, "ckpt")
        for form in CHECKPOINTS:
            prefix = os.path.join(directory, form.format(self.best_step))
            if os.path.exists(f"{prefix}.index"):
                return prefix
        return None


def read_run(path: str) -> Run:
    """The Run in a directory."""
    if not os.path.isdir(path):
        raise ValueError(f"{path} is not a directory; pass the --output_path of a run.")
    config = read_json_object(os.path.join(path, "config.json"))
    metrics = metrics_path(path, config)
    lines = read_metrics(metrics)
    train = _by_step(line for line in lines if line.get("kind") == "train")
    validations: Dict[str, List[Line]] = {}
    for line in lines:
        if line.get("kind") == "validation" and "set" in line:
            validations.setdefault(line["set"], []).append(line)
    memory = [line["peak_memory_gib"] for line in train if "peak_memory_gib" in line]
    findings = read_json_object(os.path.join(path, "preflight.json"))
    return Run(
        path,
        config,
        train,
        {name: _by_step(some) for name, some in validations.items()},
        _best(os.path.join(path, "best"), list(validations)),
        {name: int(count) for name, count in findings.get("overlaps", {}).items()},
        max(memory, default=None),
        {name: (down, right) for name, (down, right) in findings.get("shifts", {}).items()},
    )


def metrics_path(path: str, config: Dict[str, Any]) -> str:
    """metrics.jsonl of a run, in the run or in its --log_file_path."""
    elsewhere = (config.get("training") or {}).get("log_file_path")
    inside = os.path.join(path, "logs", "metrics.jsonl")
    if elsewhere and not os.path.exists(inside):
        return os.path.join(elsewhere, "metrics.jsonl")
    return inside


def read_metrics(path: str) -> List[Line]:
    """The lines of a metrics.jsonl; one that a kill or a writer cut short is skipped."""
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


def _by_step(lines: Iterable[Line]) -> List[Line]:
    """One line per step, the last written, in order: a resumed run may repeat some."""
    return [line for _, line in sorted({line["step"]: line for line in lines}.items())]


def _best(directory: str, order: Sequence[str]) -> Dict[str, SavedPairs]:
    """Saved pairs by set, in the order in which the run validates."""
    if not os.path.isdir(directory):
        return {}
    names = sorted(entry[:-4] for entry in os.listdir(directory) if entry.endswith(".npz"))
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    loaded = {name: load(os.path.join(directory, f"{name}.npz")) for name in names}
    return {name: result for name, result in loaded.items() if result is not None}
