"""IJB-B / IJB-C: a checkpoint, or embeddings that are there already -> 1:1 and 1:N figures.

python eval_ijb.py --ckpt_file output/run/ckpt/InsightFace_iter_90000.ckpt --data_path IJB_release
"""

import csv
import dataclasses
import json
import os
from typing import Optional, Tuple

import cv2
import numpy as np
from tqdm import tqdm

from evaluation import ijb, ijb_metadata
from evaluation.identification import fnir_figures
from faces.alignment import align
from runtime.cli import run
from runtime.flags import flag, parse_flags
from verification import plot_roc

PROTOCOLS = ("1:1", "1:N")
AT_ONCE = 4096  # rows of an embeddings file


@dataclasses.dataclass(frozen=True)
class IjbConfig:
    config: Optional[str] = flag(None, "YAML file of these flags, under the command line")
    data_path: str = flag(
        dataclasses.MISSING, "directory with meta/ and loose_crop/, or with IJBB/ and IJBC/"
    )
    subset: str = flag("IJBC", "which benchmark:", choices=ijb_metadata.SUBSETS)
    protocols: Tuple[str, ...] = flag(PROTOCOLS, "what is asked:", choices=PROTOCOLS)

    ckpt_file: Optional[str] = flag(None, "the checkpoint that embeds the images", "embeddings")
    embeddings: Optional[str] = flag(
        None, ".npy of [N, D] instead of a checkpoint, in the lists' order", "embeddings"
    )
    mirrored: Optional[str] = flag(None, ".npy of the mirrored images' [N, D]", "embeddings")
    save_embeddings: Optional[str] = flag(
        None, "directory to keep plain.npy and mirrored.npy in", "embeddings"
    )

    use_norm: bool = flag(True, "N: an embedding's length counts", "templates")
    use_detector_score: bool = flag(True, "D: the detector's score counts", "templates")
    use_flip: bool = flag(True, "F: the mirror image is added", "templates")
    all_modes: bool = flag(False, "all eight of N, D and F, in one pass", "templates")

    device: str = flag("cpu", "where the net runs, as eval_ckpt_file.py", "running")
    batch_size: int = flag(64, "images a run of the graph", "running", low=1)
    workers: int = flag(4, "threads that read and align images", "running", low=1)

    json: Optional[str] = flag(None, "file for the figures as JSON", "results")
    csv: Optional[str] = flag(None, "file for the figures as CSV, a line a figure", "results")
    plot: Optional[str] = flag(None, "image file for the ROC of 1:1", "results")

    def __post_init__(self):
        if bool(self.ckpt_file) == bool(self.embeddings):
            raise ValueError("pass either --ckpt_file CHECKPOINT or --embeddings FILE.npy.")
        if self.embeddings and self.needs_mirror and not self.mirrored:
            raise ValueError(
                "--use_flip needs --mirrored FILE.npy beside --embeddings; without one, pass "
                "--use_flip false."
            )

    @property
    def modes(self):
        if self.all_modes:
            return ijb.ALL_MODES
        return (ijb.Mode(self.use_norm, self.use_detector_score, self.use_flip),)

    @property
    def needs_mirror(self):
        return any(mode.flip for mode in self.modes)


def main(argv=None):
    config = parse_flags(IjbConfig, argv, description=__doc__.splitlines()[0])
    embedder = open_checkpoint(config) if config.ckpt_file else None
    images = ijb_metadata.read_images(config.data_path, config.subset)
    questions = read_questions(config, images)
    for path in (config.json, config.csv, config.plot):
        os.makedirs(os.path.dirname(os.path.abspath(path or ".")), exist_ok=True)
    batches = from_checkpoint(config, images, embedder) if embedder else from_files(config, images)
    templates = sum_templates(config, images, batches)
    results = {mode: judge(templates.unit(mode), questions) for mode in config.modes}
    print(table(config.subset, results))
    write_files(config, results, templates, questions)


def read_questions(config, images):
    """{protocol: its lists}, read before the net runs."""
    readers = {"1:1": ijb_metadata.read_pair_list, "1:N": ijb_metadata.read_galleries}
    return {
        protocol: readers[protocol](config.data_path, config.subset, images)
        for protocol in config.protocols
    }


def judge(templates_MD, questions):
    """{protocol: its figures} of one mode's templates."""
    figures = {}
    if "1:1" in questions:
        first_P, second_P, issame_P = questions["1:1"]
        scores_P = ijb.pair_scores(templates_MD, first_P, second_P)
        figures["1:1"] = ijb.verification_figures(scores_P, issame_P)
    if "1:N" in questions:
        first, second, probes = questions["1:N"]
        figures["1:N"] = ijb.identification_figures(templates_MD, (first, second), probes)
        figures["1:N"].update(fnir_figures(figures["1:N"]))
    return figures


def sum_templates(config, images, batches):
    """Every image's embeddings, (plain, mirrored) batches in the lists' order, into the sums of
    its template."""
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


def from_files(config, images):
    """(plain, mirrored) of --embeddings and --mirrored, a few thousand rows at a time."""
    paths = [config.embeddings] + ([config.mirrored] if config.needs_mirror else [])
    arrays = [_open_rows(path, len(images.names)) for path in paths]
    if len({array.shape[1] for array in arrays}) > 1:
        raise ValueError(f"{config.mirrored} has rows of another length than {config.embeddings}.")
    for start in range(0, len(images.names), AT_ONCE):
        parts = [np.array(array[start : start + AT_ONCE], np.float32) for array in arrays]
        yield (parts + [None])[:2]


def _open_rows(path, count):
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        raise ValueError(f"{path} is not an .npy file of plain numbers.") from None
    if array.ndim != 2 or len(array) != count:
        raise ValueError(
            f"{path} has shape {list(array.shape)}, but the lists name {count} images; pass one "
            "row an image, in the lists' order."
        )
    return array


def open_checkpoint(config):
    """The Embedder of --ckpt_file; a checkpoint or device that is not there ends here."""
    # TensorFlow is not needed for --embeddings
    from inference.backends.checkpoint import CheckpointEmbedder

    return CheckpointEmbedder(config.ckpt_file, config.device, config.batch_size)


def from_checkpoint(config, images, embedder):
    """(plain, mirrored) of the net, a batch at a time; images are prefetched and aligned."""
    from inference.batches import pad_batch, prefetch

    directory = ijb_metadata.image_directory(config.data_path, config.subset)
    check_files(directory, images.names)
    with embedder:
        keep = _keeper(config, len(images.names), embedder.spec.embedding_size)

        def load(start):
            return load_batch(directory, images, start, config.batch_size, embedder.image_size)

        starts = range(0, len(images.names), config.batch_size)
        for start, batch in zip(starts, prefetch(load, starts, config.workers)):
            both = embedder.embed_batch(pad_batch(batch, config.batch_size))
            plain_BD, mirrored_BD = (part[: len(batch)] for part in both)
            keep(start, plain_BD, mirrored_BD)
            yield plain_BD, mirrored_BD


def check_files(directory, names):
    """Every image of the lists must be there before the net runs over the first."""
    if not os.path.isdir(directory):
        raise ValueError(f"{directory} is not there; it holds the images that the lists name.")
    there = set(os.listdir(directory))
    missing = [name for name in names if name not in there]
    if missing:
        raise ValueError(
            f"{os.path.join(directory, missing[0])} is not there ({len(missing)} of {len(names)} "
            "images of the lists are missing); unpack the release again."
        )


def load_batch(directory, images, start, batch_size, image_size):
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


def _keeper(config, count, width):
    """A function that stores a batch's embeddings, if --save_embeddings asks for it."""
    if not config.save_embeddings:
        return lambda start, plain_BD, mirrored_BD: None
    os.makedirs(config.save_embeddings, exist_ok=True)
    files = [
        np.lib.format.open_memmap(
            os.path.join(config.save_embeddings, f"{name}.npy"), "w+", np.float32, (count, width)
        )
        for name in ("plain", "mirrored")
    ]

    def keep(start, *parts):
        for stored, part_BD in zip(files, parts):
            stored[start : start + len(part_BD)] = part_BD

    return keep


def table(subset, results):
    """What a person reads: a line a mode for each protocol."""
    parts = []
    for protocol, title in (("1:1", "TAR at FAR"), ("1:N", "of probes identified")):
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


def flat(figures):
    """Nested figures -> {short name: number}; thresholds are for the JSON only."""
    line = {}
    for name, value in figures.items():
        if name in SHORT:
            line.update({SHORT[name].format(key): one for key, one in value.items()})
        elif name not in ("thresholds", "fnir_interval"):
            line[name] = value
    return line


def write_files(config, results, templates, questions):
    """What --json, --csv and --plot ask for."""
    if config.json:
        named = {ijb.mode_name(mode): figures for mode, figures in results.items()}
        with open(config.json, "w", encoding="utf-8") as stream:
            json.dump({"subset": config.subset, "modes": named}, stream, indent=2)
    if config.csv:
        with open(config.csv, "w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["subset", "mode", "protocol", "figure", "value"])
            writer.writerows(_csv_rows(config.subset, results))
    if config.plot and "1:1" in questions:
        first_P, second_P, issame_P = questions["1:1"]
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
