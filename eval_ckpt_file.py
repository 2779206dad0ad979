"""Checkpoints or exported models x .bin sets -> a table, and the same as JSON, CSV and plots.

python eval_ckpt_file.py --ckpt_path output/demo/ckpt --eval_db_path datasets/demo
"""

import csv
import dataclasses
import json
import logging
import os
from typing import Optional, Tuple

from tqdm import tqdm

from evaluation.report.pair_errors import write_pairs_report
from evaluation.verification_set import check_set, evaluate_set, find_sets
from inference.backends.base import ModelOptions
from inference.embedder import Embedder
from inference.model_files import BACKENDS, PRECISIONS, is_exported, read_metadata
from inference.preprocessing import from_flags
from runtime.cli import run
from runtime.flags import flag, parse_flags
from verification import plot_roc, roc_curve

DEVICES = ("cpu", "gpu", "npu")  # runtime.session has them, and loads TensorFlow
SHOWN_FAR = "0.001"
HEADINGS = (
    "checkpoint",
    "set",
    "Accuracy",
    "Accuracy-Flip",
    "95 % interval",
    "threshold",
    "TAR@FAR=1e-3",
)


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    config: Optional[str] = flag(None, "YAML file of these flags, under the command line")
    ckpt_path: Optional[str] = flag(
        None, "directory of checkpoints, all evaluated; or an exported model", "checkpoints"
    )
    ckpt_file: Optional[str] = flag(
        None, "one checkpoint, up to .ckpt; or what --ckpt_index_list is added to", "checkpoints"
    )
    ckpt_index_list: Tuple[str, ...] = flag(
        (), "endings of --ckpt_file, one for each checkpoint", "checkpoints"
    )
    net_depth: Optional[int] = flag(
        None, "only checked: the checkpoint says its depth", "checkpoints"
    )
    num_output: Optional[int] = flag(None, "ignored: no head is built to evaluate", "checkpoints")

    eval_db_path: str = flag(dataclasses.MISSING, "directory of the .bin sets", "sets")
    eval_datasets: Tuple[str, ...] = flag((), "sets by name (default: every .bin there)", "sets")
    image_size: Tuple[int, ...] = flag((), "only checked: the checkpoint says its size", "sets")
    folds: int = flag(10, "contiguous folds; the threshold comes from the others", "sets", low=1)

    backend: Optional[str] = flag(
        None, "default the fastest installed:", "exported models", choices=tuple(BACKENDS)
    )
    threads: Optional[int] = flag(None, "default: all cores", "exported models", low=1)
    precision: str = flag("fp32", "arithmetic:", "exported models", choices=PRECISIONS)
    pixels: Optional[str] = flag(
        None, "of a model without metadata:", "exported models", choices=("RGB", "BGR")
    )
    mean: Tuple[float, ...] = flag((), "and its mean, one value or three", "exported models")
    scale: Optional[float] = flag(
        None, "and its divisor: (x - mean) / scale", "exported models", above=0
    )

    device: str = flag("cpu", "where the net runs:", "running", choices=DEVICES)
    batch_size: int = flag(64, "images a run of the graph", "running", low=1)

    json: Optional[str] = flag(None, "file for the table as a JSON list", "results")
    csv: Optional[str] = flag(None, "file for the table as CSV", "results")
    plot: Optional[str] = flag(None, "directory for a ROC image of each set", "results")
    pairs_report: Optional[str] = flag(
        None, "directory for every pair's score, the hardest pairs and errors a person", "results"
    )


def main(argv=None):
    evaluate(parse_flags(EvalConfig, argv, description=__doc__.splitlines()[0]))


def evaluate(config):
    """Evaluates every model of the flags on every set; prints the table and writes the files."""
    prefixes = checkpoints(config)
    sets = find_sets(config.eval_db_path, config.eval_datasets or None)
    check_flags(config, prefixes)
    for path in sets.values():
        check_set(path, config.folds)
    _make_directories(config)
    results = list(evaluate_all(config, prefixes, sets))
    rows = [row(prefix, result) for prefix, result in results]
    print("\n".join(text for text in (table(rows), notes(rows)) if text))
    write_files(config, rows, results)
    for prefix, result in results if config.pairs_report else ():
        directory = os.path.join(config.pairs_report, os.path.basename(prefix))
        title = f"{os.path.basename(prefix)} on {result.name}"
        print(write_pairs_report(directory, result, sets[result.name], title))


def checkpoints(config):
    """The flags' checkpoints, each there, by step."""
    if bool(config.ckpt_path) == bool(config.ckpt_file):
        raise ValueError("pass either --ckpt_path DIRECTORY or --ckpt_file CHECKPOINT.")
    if is_exported(config.ckpt_path or config.ckpt_file):
        return [config.ckpt_path or config.ckpt_file]
    if config.ckpt_path and not os.path.isdir(config.ckpt_path):
        raise ValueError(
            f"--ckpt_path {config.ckpt_path} is not a directory; pass a run's ckpt directory, or "
            "one checkpoint as --ckpt_file."
        )
    if config.ckpt_index_list and not config.ckpt_file:
        raise ValueError("--ckpt_index_list needs the --ckpt_file that its endings are added to.")
    paths = [config.ckpt_path or config.ckpt_file]
    if config.ckpt_index_list:
        paths = [config.ckpt_file + ending for ending in config.ckpt_index_list]
    if config.ckpt_path:
        files = [os.path.join(config.ckpt_path, name) for name in os.listdir(config.ckpt_path)]
        exported = sorted(path for path in files if is_exported(path))
        if exported and not any(path.endswith(".index") for path in files):
            return exported
    from checkpoint.reader import find_checkpoints  # loads TensorFlow

    return [prefix for path in paths for prefix in find_checkpoints(path)]


def check_flags(config, prefixes):
    """Flags of the original that a checkpoint here answers itself: they must agree with it."""
    for prefix in prefixes:
        if is_exported(prefix):
            continue
        from checkpoint.reader import spec_of

        spec = spec_of(prefix)
        if config.net_depth not in (None, spec.net_depth):
            raise ValueError(
                f"{prefix} holds a net of depth {spec.net_depth}, not --net_depth "
                f"{config.net_depth}; leave --net_depth away."
            )
        if config.image_size and tuple(config.image_size) != tuple(spec.image_size):
            raise ValueError(
                f"{prefix} takes images of {' x '.join(map(str, spec.image_size))}, not "
                f"--image_size {' '.join(map(str, config.image_size))}; leave --image_size away."
            )
    if config.num_output is not None:
        logging.warning("--num_output is ignored: evaluation needs no classes.")


def evaluate_all(config, prefixes, sets):
    """(model, SetResult) of every model and set."""
    for path in filter(is_exported, prefixes):
        yield from _evaluate_exported(config, path, sets)
    checkpoints = [prefix for prefix in prefixes if not is_exported(prefix)]
    if checkpoints:
        yield from _evaluate_checkpoints(config, checkpoints, sets)


def _evaluate_exported(config, path, sets):
    options = ModelOptions(config.threads, config.precision, config.device)
    given = from_flags(config.pixels, config.mean, config.scale)
    with Embedder(path, config.backend, options, given) as embedder:
        if config.image_size and tuple(config.image_size) != embedder.image_size:
            raise ValueError(
                f"{path} takes images of {' x '.join(map(str, embedder.image_size))}, not "
                f"--image_size {' '.join(map(str, config.image_size))}; omit --image_size."
            )
        for name, set_path in sets.items():
            yield path, _evaluate(embedder, path, name, set_path, config)


def _evaluate_checkpoints(config, prefixes, sets):
    """One graph serves neighbours of one net."""
    from checkpoint.reader import spec_of
    from inference.backends.checkpoint import CheckpointEmbedder

    embedder = None
    try:
        for prefix in prefixes:
            if embedder is None or spec_of(prefix) != embedder.spec:
                if embedder is not None:
                    embedder.__exit__()
                embedder = CheckpointEmbedder(prefix, config.device, config.batch_size)
                embedder.__enter__()
            else:
                embedder.restore(prefix)
            for name, path in sets.items():
                yield prefix, _evaluate(embedder, prefix, name, path, config)
    finally:
        if embedder is not None:
            embedder.__exit__()


def _evaluate(embedder, model, name, path, config):
    label = f"{os.path.basename(model)} {name}"
    with tqdm(desc=label, unit="image", disable=None, leave=False) as bar:
        return evaluate_set(
            embedder.embed_batch,
            path,
            name,
            embedder.image_size,
            config.batch_size,
            config.folds,
            progress=bar.update,
        )


def row(prefix, result):
    """One entry of the JSON list."""
    return dict({"checkpoint": prefix, "step": _step(prefix)}, **result.row())


def _step(prefix):
    """The training step of a model; -1 where nothing records it."""
    if is_exported(prefix):
        metadata = read_metadata(prefix)
        return -1 if metadata is None else metadata.step
    from checkpoint.reader import read_record, step_of

    step = step_of(prefix)
    if os.path.exists(f"{prefix}.json"):  # InsightFace_TF's own checkpoints have none
        step = read_record(prefix).get("step", step)
    return step


def table(rows):
    """Rows -> aligned text; the highest Accuracy-Flip of each set is marked."""
    best = {}
    for entry in rows:
        best[entry["set"]] = max(best.get(entry["set"], 0.0), entry["accuracy_flip"])
    lines = [HEADINGS] + [_cells(entry, best) for entry in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines
    )


def _cells(entry, best):
    mark = " *" if entry["accuracy_flip"] == best[entry["set"]] else ""
    return (
        os.path.basename(entry["checkpoint"]),
        entry["set"],
        f"{entry['accuracy']:.5f} +- {entry['accuracy_std']:.5f}",
        f"{entry['accuracy_flip']:.5f} +- {entry['accuracy_flip_std']:.5f}{mark}",
        "{:.5f} to {:.5f}".format(*entry["accuracy_flip_interval"]),
        f"{entry['threshold']:.3f} (cosine {entry['cosine']:.3f})",
        f"{entry['tar_at_far'][SHOWN_FAR]:.5f}{_rough(entry)}",
    )


def _rough(entry):
    """Marks a rate that the set is too small for."""
    return " ~" if entry["impostor"] * float(SHOWN_FAR) < 1 else ""


def notes(rows):
    """What the table's marks mean, and which sets are of drawn people."""
    said = []
    if len(rows) > len({entry["set"] for entry in rows}):
        said.append("* the highest of its set")
    if any(_rough(entry) for entry in rows):
        said.append("~ fewer than 1,000 pairs of different people: one false accept is more")
    drawn = list(dict.fromkeys(entry["set"] for entry in rows if entry["synthetic"]))
    if drawn:
        said.append(f"synthetic faces, which say nothing about real people: {', '.join(drawn)}")
    return "\n".join(said)


def _make_directories(config):
    """The results' directories, made before the work, so that nothing is lost after it."""
    for path in (config.json, config.csv):
        os.makedirs(os.path.dirname(os.path.abspath(path or ".")), exist_ok=True)
    for directory in (config.plot, config.pairs_report):
        os.makedirs(directory or ".", exist_ok=True)


def write_files(config, rows, results):
    """What --json, --csv and --plot ask for."""
    if config.json:
        with open(config.json, "w", encoding="utf-8") as stream:
            json.dump(rows, stream, indent=2)
    if config.csv:
        write_csv(config.csv, rows)
    if config.plot:
        plot(config.plot, results)


def write_csv(path, rows):
    """One line a row; each FAR target a column of its own."""
    flat = []
    for entry in rows:
        entry = dict(entry)
        tars = entry.pop("tar_at_far")
        low, high = entry.pop("accuracy_flip_interval")
        entry.update(accuracy_flip_low=low, accuracy_flip_high=high)
        flat.append(dict(entry, **{f"tar_at_far_{far}": tar for far, tar in tars.items()}))
    names = list(dict.fromkeys(name for entry in flat for name in entry))
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(flat)


def plot(directory, results):
    """<set>_roc.png: the ROC of every checkpoint."""
    for name in dict.fromkeys(result.name for _, result in results):
        curves = {
            os.path.basename(prefix): roc_curve(result.distances_P, result.issame_P)[:2]
            for prefix, result in results
            if result.name == name
        }
        plot_roc(curves, os.path.join(directory, f"{name}_roc.png"))


if __name__ == "__main__":
    run(main)
