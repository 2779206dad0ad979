"""Evaluates a checkpoint or saved embeddings on IJB-B or IJB-C: 1:1 and 1:N figures.

python eval_ijb.py --ckpt_file output/run/ckpt/InsightFace_iter_90000.ckpt --data_path IJB_release
"""

import csv
import dataclasses
import json
import os
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import cv2
import numpy as np
from tqdm import tqdm

from evaluation import ijb, ijb_metadata
from evaluation.identification import fnir_figures
from faces.alignment import align
from runtime.cli import run
from runtime.files import atomic_write, read_npy
from runtime.flags import flag, parse_flags
from verification import plot_roc

PROTOCOLS = ("1:1", "1:N")
ROWS = 4096  # of a block of an embeddings file

Lists = Dict[str, Any]  # {protocol: its lists}
Figures = Dict[str, Dict[str, Any]]  # {protocol: its figures}
Batch = Tuple[np.ndarray, Optional[np.ndarray]]  # float32 [B, D] of the images, of mirrored ones


@dataclasses.dataclass(frozen=True)
class IjbConfig:
    config: Optional[str] = flag(None, "YAML file of flags; the command line overrides it")
    data_path: str = flag(
        dataclasses.MISSING, "directory with meta/ and loose_crop/, or with IJBB/ and IJBC/"
    )
    subset: str = flag("IJBC", "benchmark:", choices=ijb_metadata.SUBSETS)
    protocols: Tuple[str, ...] = flag(PROTOCOLS, "protocols:", choices=PROTOCOLS)

    ckpt_file: Optional[str] = flag(None, "checkpoint that embeds the images", "embeddings")
    embeddings: Optional[str] = flag(
        None, ".npy file [N, D] in the order of the lists, instead of a checkpoint", "embeddings"
    )
    mirrored: Optional[str] = flag(None, ".npy file [N, D] of the mirrored images", "embeddings")
    save_embeddings: Optional[str] = flag(
        None, "directory for plain.npy and mirrored.npy", "embeddings"
    )

    use_norm: bool = flag(True, "N: weight images by the norm of their embedding", "templates")
    use_detector_score: bool = flag(True, "D: weight images by the detector's score", "templates")
    use_flip: bool = flag(True, "F: add the embedding of the mirrored image", "templates")
    all_modes: bool = flag(False, "all eight combinations of N, D and F, in one pass", "templates")

    device: str = flag("cpu", "device of the network, as in eval_ckpt_file.py", "running")
    batch_size: int = flag(64, "images per run of the graph", "running", low=1)
    workers: int = flag(4, "threads that read and align images", "running", low=1)

    json: Optional[str] = flag(None, "output file of the figures, JSON", "results")
    csv: Optional[str] = flag(
        None, "output file of the figures, CSV with a line per figure", "results"
    )
    plot: Optional[str] = flag(None, "output image of the 1:1 ROC curves", "results")

    def __post_init__(self) -> None:
        if bool(self.ckpt_file) == bool(self.embeddings):
            raise ValueError("pass either --ckpt_file CHECKPOINT or --embeddings FILE.npy.")
        if self.embeddings and self.needs_mirror and not self.mirrored:
            raise ValueError(
                "--use_flip needs --mirrored FILE.npy together with --embeddings; without it, "
                "pass --use_flip false."
            )

    @property
    def modes(self) -> Tuple[ijb.Mode, ...]:
        """The modes of the templates to evaluate."""
        if self.all_modes:
            return ijb.ALL_MODES
        return (ijb.Mode(self.use_norm, self.use_detector_score, self.use_flip),)

    @property
    def needs_mirror(self) -> bool:
        """Whether a mode uses the mirrored images."""
        return any(mode.flip for mode in self.modes)


def main(argv: Optional[Sequence[str]] = None) -> None:
    config = parse_flags(IjbConfig, argv, description=__doc__.splitlines()[0])
    embedder = open_checkpoint(config) if config.ckpt_file else None
    images = ijb_metadata.read_images(config.data_path, config.subset)
    lists = read_lists(config, images)
    for path in (config.json, config.csv, config.plot):
        os.makedirs(os.path.dirname(os.path.abspath(path or ".")), exist_ok=True)
    batches = from_checkpoint(config, images, embedder) if embedder else from_files(config, images)
    templates = sum_templates(config, images, batches)
    results = {mode: evaluate(templates.unit(mode), lists) for mode in config.modes}
    print(table(config.subset, results))
    write_files(config, results, templates, lists)


def read_lists(config: IjbConfig, images: ijb_metadata.Images) -> Lists:
    """{protocol: its lists}, read before the network runs."""
    readers: Dict[str, Callable[..., Any]] = {
        "1:1": ijb_metadata.read_pair_list,
        "1:N": ijb_metadata.read_galleries,
    }
    return {
        protocol: readers[protocol](config.data_path, config.subset, images)
        for protocol in config.protocols
    }


def evaluate(templates_MD: np.ndarray, lists: Lists) -> Figures:
    """{protocol: its figures} of the templates of one mode."""
    figures = {}
    if "1:1" in lists:
        first_P, second_P, issame_P = lists["1:1"]
        scores_P = ijb.pair_scores(templates_MD, first_P, second_P)
        figures["1:1"] = ijb.verification_figures(scores_P, issame_P)
    if "1:N" in lists:
        first, second, probes = lists["1:N"]
        figures["1:N"] = ijb.identification_figures(templates_MD, (first, second), probes)
        figures["1:N"].update(fnir_figures(figures["1:N"]))
    return figures


def sum_templates(
    config: IjbConfig, images: ijb_metadata.Images, batches: Iterator[Batch]
) -> ijb.Templates:
    """(plain, mirrored) batches in the order of the lists -> the templates of all modes."""
    templates = ijb.Templates(
        images.template_N,
        images.weight_N,
        images.scores_N,
        len(images.template_ids),
        config.modes,
    )
    with tqdm(total=len(images.names), unit="image", disable=None) as bar:
        for plain_BD, mirrored_BD in batches:
            templates.add(plain_BD, mirrored_BD)
            bar.update(len(plain_BD))
    return templates


def from_files(config: IjbConfig, images: ijb_metadata.Images) -> Iterator[Batch]:
    """(plain, mirrored) of --embeddings and --mirrored, in blocks of ROWS rows."""
    paths = [str(config.embeddings)] + ([str(config.mirrored)] if config.needs_mirror else [])
    arrays = [_open_rows(path, len(images.names)) for path in paths]
    if len({array.shape[1] for array in arrays}) > 1:
        raise ValueError(
            f"{config.mirrored} and {config.embeddings} have different embedding dimensions; pass "
            "files of one model."
        )
    for start in range(0, len(images.names), ROWS):
        parts = [np.array(array[start : start + ROWS], np.float32) for array in arrays]
        yield parts[0], parts[1] if len(parts) > 1 else None


def _open_rows(path, count):
    array = read_npy(path, mapped=True)
    if array.ndim != 2 or len(array) != count:
        raise ValueError(
            f"{path} has shape {list(array.shape)}, but the lists have {count} images; pass one "
            "row per image, in the order of the lists."
        )
    return array


def open_checkpoint(config: IjbConfig) -> Any:
    """The embedder of --ckpt_file; checks that the checkpoint and the device exist."""
    assert config.ckpt_file is not None
    # Imported here: --embeddings needs no TensorFlow.
    from inference.backends.checkpoint import CheckpointEmbedder

    return CheckpointEmbedder(config.ckpt_file, config.device, config.batch_size)


def from_checkpoint(
    config: IjbConfig, images: ijb_metadata.Images, embedder: Any
) -> Iterator[Batch]:
    """(plain, mirrored) batches of the network; images are prefetched and aligned."""
    from inference.batches import pad_batch, prefetch

    directory = ijb_metadata.image_directory(config.data_path, config.subset)
    check_files(directory, images.names)
    with embedder:
        save = _saver(config, len(images.names), embedder.spec.embedding_size)

        def load(start):
            return load_batch(directory, images, start, config.batch_size, embedder.image_size)

        starts = range(0, len(images.names), config.batch_size)
        for start, batch in zip(starts, prefetch(load, starts, config.workers)):
            both = embedder.embed_batch(pad_batch(batch, config.batch_size))
            plain_BD, mirrored_BD = (part[: len(batch)] for part in both)
            save(start, plain_BD, mirrored_BD)
            yield plain_BD, mirrored_BD


def check_files(directory: str, names: List[str]) -> None:
    """Requires every image of the lists, before the network runs."""
    if not os.path.isdir(directory):
        raise ValueError(f"{directory} does not exist; it must hold the images of the lists.")
    existing = set(os.listdir(directory))
    missing = [name for name in names if name not in existing]
    if missing:
        raise ValueError(
            f"{os.path.join(directory, missing[0])} does not exist ({len(missing)} of {len(names)} "
            "images of the lists are missing); unpack the release again."
        )


def load_batch(
    directory: str,
    images: ijb_metadata.Images,
    start: int,
    batch_size: int,
    image_size: Tuple[int, int],
) -> np.ndarray:
    """uint8 RGB [<= B, H, W, 3] of aligned faces."""
    batch = []
    for name, points in zip(
        images.names[start : start + batch_size], images.landmarks_N52[start : start + batch_size]
    ):
        image = cv2.imread(os.path.join(directory, name))
        if image is None:
            raise ValueError(f"{os.path.join(directory, name)} cannot be decoded.")
        try:
            batch.append(align(image, points, image_size, largest_misfit=None)[:, :, ::-1])
        except ValueError as error:
            raise ValueError(f"{os.path.join(directory, name)} {error}.") from None
    return np.stack(batch)


def _saver(config: IjbConfig, count: int, width: int) -> Callable[..., None]:
    """A function that writes the embeddings of a batch to --save_embeddings, if that is set."""
    if not config.save_embeddings:
        return lambda start, plain_BD, mirrored_BD: None
    os.makedirs(config.save_embeddings, exist_ok=True)
    files = [
        np.lib.format.open_memmap(
            os.path.join(config.save_embeddings, f"{name}.npy"), "w+", np.float32, (count, width)
        )
        for name in ("plain", "mirrored")
    ]

    def save(start: int, *parts: np.ndarray) -> None:
        for stored, part_BD in zip(files, parts):
            stored[start : start + len(part_BD)] = part_BD

    return save


def table(subset: str, results: Dict[ijb.Mode, Figures]) -> str:
    """The printed table: a line per mode for each protocol."""
    parts = []
    for protocol, title in (
        ("1:1", "TAR at FAR, percent"),
        ("1:N", "percent of probes identified"),
    ):
        rows = {
            ijb.mode_name(mode): flat(figures[protocol])
            for mode, figures in results.items()
            if protocol in figures
        }
        if not rows:
            continue
        names = list(next(iter(rows.values())))
        lines = [["mode"] + names]
        lines += [[mode] + [_cell(name, row[name]) for name in names] for mode, row in rows.items()]
        widths = [max(map(len, column)) for column in zip(*lines)]
        text = ["  ".join(c.rjust(w) for c, w in zip(line, widths)) for line in lines]
        parts.append("\n".join([f"{subset} {protocol}, {title}"] + text))
    return "\n\n".join(parts)


def _cell(name, value):
    return f"{value:,}" if isinstance(value, int) else f"{100 * value:.2f}"


SHORT = {"tar_at_far": "{:g}", "ranks": "rank-{:g}", "tpir_at_fpir": "FPIR {:g}"}
SHORT["open_set_tpir_at_fpir"] = "open set FPIR {:g}"
SHORT["fnir_at_fpir"] = "FNIR at FPIR {:g}"
SHORT["open_set_fnir_at_fpir"] = "open set FNIR at FPIR {:g}"


def flat(figures: Dict[str, Any]) -> Dict[str, Any]:
    """Nested figures -> {short name: number}; the thresholds are written to the JSON only."""
    line: Dict[str, Any] = {}
    for name, value in figures.items():
        if name in SHORT:
            line.update({SHORT[name].format(key): one for key, one in value.items()})
        elif name not in ("thresholds", "fnir_interval"):
            line[name] = value
    return line


def write_files(
    config: IjbConfig, results: Dict[ijb.Mode, Figures], templates: ijb.Templates, lists: Lists
) -> None:
    """Writes --json, --csv and --plot."""
    if config.json:
        named = {ijb.mode_name(mode): figures for mode, figures in results.items()}
        with atomic_write(config.json) as stream:
            json.dump({"subset": config.subset, "modes": named}, stream, indent=2)
    if config.csv:
        with atomic_write(config.csv) as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["subset", "mode", "protocol", "figure", "value"])
            writer.writerows(_csv_rows(config.subset, results))
    if config.plot and "1:1" in lists:
        first_P, second_P, issame_P = lists["1:1"]
        curves = {}
        for mode in config.modes:
            scores_P = ijb.pair_scores(templates.unit(mode), first_P, second_P)
            curves[ijb.mode_name(mode)] = ijb.curve(scores_P, issame_P)
        plot_roc(curves, config.plot)


def _csv_rows(subset, results):
    for mode, figures in results.items():
        for protocol, values in figures.items():
            for name, value in flat(values).items():
                yield [subset, ijb.mode_name(mode), protocol, name, value]


if __name__ == "__main__":
    run(main)
