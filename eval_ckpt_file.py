"""Evaluates checkpoints and exported models on .bin sets: a table, JSON, CSV, ROC images.

python eval_ckpt_file.py --ckpt_path output/demo/ckpt --eval_db_path datasets/demo
"""

import dataclasses
import itertools
import json
import logging
import os
import shutil
import sys
from typing import Any, Iterator, List, Optional, Sequence, Tuple

from tqdm import tqdm

from checkpoint.format import find_checkpoints, read_record, step_of
from evaluation.calibration import KINDS, cross_validate
from evaluation.groups import group_lines, read_groups
from evaluation.quality import NORM, quality_lines
from evaluation.report.model_page import Extras, write_model_pages
from evaluation.report.pair_errors import write_pairs_report
from evaluation.report.rates import SetExtras
from evaluation.result_table import Row, notes, table, write_csv
from evaluation.set_figures import groups_of, own_measures, quality_measures
from evaluation.thresholds import set_thresholds, write_thresholds
from evaluation.verification_set import NetFunction, SetResult, VerificationSet, find_sets
from inference.backends.base import ModelOptions
from inference.embedder import Embedder
from inference.model_files import BACKENDS, PRECISIONS, is_exported, read_metadata
from inference.preprocessing import from_flags
from runtime.cli import run
from runtime.files import atomic_write
from runtime.flags import DEVICES, flag, parse_flags
from verification import plot_roc, roc_curve

Results = List[Tuple[str, SetResult]]  # of each checkpoint and set


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    config: Optional[str] = flag(None, "YAML file of these flags, under the command line")
    ckpt_path: Optional[str] = flag(
        None, "directory of checkpoints, all are evaluated; or an exported model", "checkpoints"
    )
    ckpt_file: Optional[str] = flag(
        None, "one checkpoint, up to .ckpt; or the prefix of --ckpt_index_list", "checkpoints"
    )
    ckpt_index_list: Tuple[str, ...] = flag(
        (), "suffixes of --ckpt_file, one per checkpoint", "checkpoints"
    )
    net_depth: Optional[int] = flag(
        None, "compared with the depth in the checkpoint's record", "checkpoints"
    )
    num_output: Optional[int] = flag(
        None, "ignored: evaluation builds no classification head", "checkpoints"
    )

    eval_db_path: str = flag(dataclasses.MISSING, "directory of the .bin sets", "sets")
    eval_datasets: Tuple[str, ...] = flag(
        (), "names of the sets (default: every .bin in the directory)", "sets"
    )
    image_size: Tuple[int, ...] = flag(
        (), "compared with the image size in the checkpoint's record", "sets"
    )
    folds: int = flag(
        10, "contiguous folds; the threshold is chosen on the other folds", "sets", low=1
    )

    backend: Optional[str] = flag(
        None,
        "runtime (default: the first installed):",
        "exported models",
        choices=tuple(BACKENDS),
    )
    threads: Optional[int] = flag(None, "CPU threads (default: all)", "exported models", low=1)
    precision: str = flag("fp32", "arithmetic:", "exported models", choices=PRECISIONS)
    pixels: Optional[str] = flag(
        None,
        "channel order of a model without metadata:",
        "exported models",
        choices=("RGB", "BGR"),
    )
    mean: Tuple[float, ...] = flag((), "its mean, one value or three", "exported models")
    scale: Optional[float] = flag(
        None, "its divisor: (x - mean) / scale", "exported models", above=0
    )

    device: str = flag("cpu", "device that runs the network:", "running", choices=DEVICES)
    batch_size: int = flag(64, "images per run of the graph", "running", low=1)

    json: Optional[str] = flag(None, "JSON file to write the table to, as a list", "results")
    csv: Optional[str] = flag(None, "CSV file to write the table to", "results")
    plot: Optional[str] = flag(None, "directory to write a ROC image per set to", "results")
    prior: Optional[float] = flag(
        None,
        "also print how well cosines calibrate to probabilities, at this prior of a genuine pair",
        "results",
        above=0.0,
        below=1.0,
    )
    thresholds: Optional[str] = flag(
        None,
        "directory to write <checkpoint>/thresholds.json to: FNMR at each FMR, with intervals",
        "results",
    )
    report: Optional[str] = flag(
        None,
        "directory to write <checkpoint>/report.html to: curves, operating points, calibration, "
        "quality, groups",
        "results",
    )
    groups: Optional[str] = flag(
        None,
        "CSV path,group or identity,group: print FMR and FNMR of each group at one threshold",
        "results",
    )
    groups_fmr: float = flag(
        1e-3, "FMR of all pairs at that threshold", "results", above=0.0, below=1.0
    )
    quality: bool = flag(
        False,
        "print how embedding norm, sharpness, contrast and brightness predict false non-matches",
        "results",
    )
    pairs_report: Optional[str] = flag(
        None,
        "directory to write every pair's score, the hardest pairs and the errors per identity to",
        "results",
    )


def main(argv: Optional[Sequence[str]] = None) -> None:
    evaluate(parse_flags(EvalConfig, argv, description=__doc__.splitlines()[0]))


def evaluate(config: EvalConfig) -> None:
    """Evaluates every model of the flags on every set; prints the table and writes the files."""
    prefixes = checkpoints(config)
    paths = find_sets(config.eval_db_path, config.eval_datasets or None)
    check_flags(config, prefixes)
    sets = [VerificationSet.open(path, config.folds) for path in paths.values()]
    for pairs in sets if config.groups else ():
        read_groups(config.groups or "", pairs.image_names(), pairs.identity_N)  # checks them
    _make_directories(config)
    results = list(evaluate_all(config, prefixes, sets))
    rows = [row(prefix, result) for prefix, result in results]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print("\n".join(text for text in (table(rows, width), notes(rows)) if text))
    write_files(config, rows, results)
    if config.prior is not None:
        print("\n".join(calibration_lines(results, sets, config.prior)))
    if config.thresholds:
        write_all_thresholds(config.thresholds, results, sets)
    extras = write_extras(config, results, sets)
    if config.report:
        write_model_pages(config.report, results, extras)
    for (prefix, result), pairs in zip(results, itertools.cycle(sets)):
        if config.pairs_report:
            directory = os.path.join(config.pairs_report, os.path.basename(prefix))
            title = f"{os.path.basename(prefix)} on {result.name}"
            print(write_pairs_report(directory, result, pairs, title))


def checkpoints(config: EvalConfig) -> List[str]:
    """The checkpoints that the flags name, by step."""
    if bool(config.ckpt_path) == bool(config.ckpt_file):
        raise ValueError("pass either --ckpt_path DIRECTORY or --ckpt_file CHECKPOINT.")
    if is_exported(config.ckpt_path or config.ckpt_file or ""):
        return [config.ckpt_path or config.ckpt_file or ""]
    if config.ckpt_path and not os.path.isdir(config.ckpt_path):
        raise ValueError(
            f"--ckpt_path {config.ckpt_path} is not a directory; pass a run's ckpt directory, or "
            "one checkpoint as --ckpt_file."
        )
    if config.ckpt_index_list and not config.ckpt_file:
        raise ValueError(
            "--ckpt_index_list needs --ckpt_file, the prefix that its suffixes extend."
        )
    base = config.ckpt_path or config.ckpt_file or ""
    paths = [base]
    if config.ckpt_index_list:
        paths = [base + ending for ending in config.ckpt_index_list]
    exported = _exported_in(config.ckpt_path) if config.ckpt_path else []
    return exported or [prefix for path in paths for prefix in find_checkpoints(path)]


def _exported_in(directory: str) -> List[str]:
    """The exported models of a directory that holds no checkpoint."""
    paths = sorted(os.path.join(directory, name) for name in os.listdir(directory))
    if any(path.endswith(".index") for path in paths):
        return []
    return [path for path in paths if is_exported(path)]


def check_flags(config: EvalConfig, prefixes: Sequence[str]) -> None:
    """Flags of InsightFace_TF that a checkpoint's record replaces must agree with it."""
    for prefix in prefixes:
        if is_exported(prefix):
            continue
        from checkpoint.reader import spec_of  # loads TensorFlow

        spec = spec_of(prefix)
        if config.net_depth not in (None, spec.net_depth):
            raise ValueError(
                f"{prefix} holds a net of depth {spec.net_depth}, not --net_depth "
                f"{config.net_depth}; omit --net_depth."
            )
        if config.image_size and tuple(config.image_size) != tuple(spec.image_size):
            raise ValueError(
                f"{prefix} takes images of {' x '.join(map(str, spec.image_size))}, not "
                f"--image_size {' '.join(map(str, config.image_size))}; omit --image_size."
            )
    if config.num_output is not None:
        logging.warning("--num_output is ignored: evaluation builds no classification head.")


def evaluate_all(
    config: EvalConfig, prefixes: Sequence[str], sets: Sequence[VerificationSet]
) -> Iterator[Tuple[str, SetResult]]:
    """(model, SetResult) of every model and set."""
    for path in filter(is_exported, prefixes):
        yield from _evaluate_exported(config, path, sets)
    found = [prefix for prefix in prefixes if not is_exported(prefix)]
    if found:
        yield from _evaluate_checkpoints(config, found, sets)


def _evaluate_exported(
    config: EvalConfig, path: str, sets: Sequence[VerificationSet]
) -> Iterator[Tuple[str, SetResult]]:
    options = ModelOptions(config.threads, config.precision, config.device)
    given = from_flags(config.pixels, config.mean, config.scale)
    with Embedder(path, config.backend, options, given) as embedder:
        if config.image_size and tuple(config.image_size) != embedder.image_size:
            raise ValueError(
                f"{path} takes images of {' x '.join(map(str, embedder.image_size))}, not "
                f"--image_size {' '.join(map(str, config.image_size))}; omit --image_size."
            )
        net = NetFunction(embedder.embed_batch, embedder.image_size, config.batch_size)
        for pairs in sets:
            yield path, _evaluate(net, path, pairs)


def _evaluate_checkpoints(
    config: EvalConfig, prefixes: Sequence[str], sets: Sequence[VerificationSet]
) -> Iterator[Tuple[str, SetResult]]:
    """Neighbours of one network share a graph."""
    from checkpoint.reader import spec_of  # loads TensorFlow
    from inference.backends.checkpoint import CheckpointEmbedder

    for _, group in itertools.groupby(prefixes, key=spec_of):
        same_net = list(group)
        with CheckpointEmbedder(same_net[0], config.device, config.batch_size) as embedder:
            for prefix in same_net:
                if prefix != embedder.prefix:
                    embedder.restore(prefix)
                for pairs in sets:
                    yield prefix, _evaluate(embedder, prefix, pairs)


def _evaluate(embedder: Any, prefix: str, pairs: VerificationSet) -> SetResult:
    label = f"{os.path.basename(prefix)} {pairs.name}"
    total = len(pairs.images)
    with tqdm(desc=label, total=total, unit="image", disable=None, leave=False) as bar:
        if bar.disable:  # no terminal: one line per set instead of a bar
            logging.info("%s: %d images of %d pairs", label, total, len(pairs))
        return pairs.evaluate(embedder, bar.update)


def row(prefix: str, result: SetResult) -> Row:
    """One entry of the JSON list."""
    if is_exported(prefix):
        metadata = read_metadata(prefix)
        step = -1 if metadata is None else metadata.step
        return dict({"checkpoint": prefix, "step": step}, **result.row())
    step = step_of(prefix)
    if os.path.exists(f"{prefix}.json"):  # InsightFace_TF's own checkpoints have none
        step = read_record(prefix).get("step", step)
    return dict({"checkpoint": prefix, "step": step}, **result.row())


def _make_directories(config: EvalConfig) -> None:
    """Makes the results' directories before the work, so that a bad path costs no time."""
    for path in (config.json, config.csv):
        os.makedirs(os.path.dirname(os.path.abspath(path or ".")), exist_ok=True)
    for directory in (config.plot, config.pairs_report, config.thresholds, config.report):
        os.makedirs(directory or ".", exist_ok=True)


def write_files(config: EvalConfig, rows: Sequence[Row], results: Results) -> None:
    """Writes the files of --json, --csv and --plot."""
    if config.json:
        with atomic_write(config.json) as stream:
            json.dump(rows, stream, indent=2)
    if config.csv:
        write_csv(config.csv, rows)
    if config.plot:
        plot(config.plot, results)


def calibration_lines(
    results: Results, sets: Sequence[VerificationSet], prior: float
) -> Iterator[str]:
    """A line per checkpoint, set and kind of calibration."""
    identities = {pairs.name: pairs.identity_N.reshape(-1, 2) for pairs in sets}
    for prefix, result in results:
        cosine_P, of_set = 1.0 - result.distances_P / 2.0, identities[result.name]
        for kind in KINDS:
            found = cross_validate(cosine_P, result.issame_P, of_set, prior, kind)
            yield (
                f"{os.path.basename(prefix)}  {result.name}  {kind} calibration: "
                f"Cllr {found.cllr:.4f} bits (minimum {found.min_cllr:.4f}), "
                f"ECE {found.ece:.4f} at prior {prior:g}, cross-validated by identity"
            )


def write_all_thresholds(directory: str, results: Results, sets: Sequence[VerificationSet]) -> None:
    """Writes <directory>/<checkpoint>/thresholds.json for each checkpoint."""
    identities = {pairs.name: pairs.identity_N for pairs in sets}
    for prefix in dict.fromkeys(prefix for prefix, _ in results):
        path = os.path.join(directory, os.path.basename(prefix), "thresholds.json")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        found = [
            set_thresholds(result, identities[result.name])
            for other, result in results
            if other == prefix
        ]
        write_thresholds(path, os.path.basename(prefix), found)
        print(path)


def write_extras(config: EvalConfig, results: Results, sets: Sequence[VerificationSet]) -> Extras:
    """Prints what --quality and --groups compute, and returns it for the report."""
    opened, found = {pairs.name: pairs for pairs in sets}, {}
    own = {name: own_measures(pairs) for name, pairs in opened.items() if config.quality}
    for prefix, result in results:
        title = f"{os.path.basename(prefix)}  {result.name}"
        measures, groups = [], None
        if config.quality:
            measures = quality_measures(result, own[result.name])
            print("\n".join(f"{title}  {line}" for line in quality_lines(measures)))
        if config.groups:
            groups = groups_of(config.groups, config.groups_fmr, result, opened[result.name])
            print("\n".join([f"{title}  groups of {config.groups}", *group_lines(groups)]))
        of_images = [one for one in measures if one.name != NORM]  # a report always has the norm
        found[prefix, result.name] = SetExtras(of_images, groups)
    return found


def plot(directory: str, results: Results) -> None:
    """Writes <set>_roc.png with the ROC of every checkpoint."""
    for name in dict.fromkeys(result.name for _, result in results):
        curves = {
            os.path.basename(prefix): roc_curve(result.distances_P, result.issame_P)[:2]
            for prefix, result in results
            if result.name == name
        }
        plot_roc(curves, os.path.join(directory, f"{name}_roc.png"))


if __name__ == "__main__":
    run(main)
