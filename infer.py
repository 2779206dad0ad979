"""Runs exported models and checkpoints: embeddings, accuracy, speed, the Ascend guide's files.

python infer.py embed --model model.onnx --images aligned/ --output embeddings.npy
python infer.py evaluate --model model.onnx --eval_db_path datasets/
python infer.py benchmark --model model.onnx --backend openvino --precision fp32 bf16

--model is an .onnx, an OpenVINO .xml, a .tflite, a SavedModel's directory, a frozen .pb, an .om, or
a checkpoint, up to .ckpt.
"""

import dataclasses
import json
import logging
import os
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
from tqdm import tqdm

from inference.backends.base import ModelOptions
from inference.embedder import Embedder
from inference.fastest_backend import fastest_backend
from inference.model_files import BACKENDS, PRECISIONS
from inference.preprocessing import CHANNEL_ORDERS, from_flags
from runtime.cli import run
from runtime.flags import DEVICES, flag, parse_command

STARS = "*" * 50
DATED = "%Y_%m_%d-%H_%M_%S"  # how ais_bench names the directory of a run


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What every verb that loads a model takes."""

    model: str = flag(
        dataclasses.MISSING,
        "model file, or a checkpoint up to .ckpt",
        "model",
        alias=("ckpt_file",),
    )
    backend: Optional[str] = flag(
        None, "runtime (default: the fastest installed):", "model", choices=tuple(BACKENDS)
    )
    threads: Optional[int] = flag(None, "CPU threads (default: all cores)", "model", low=1)
    device: str = flag("cpu", "where to run:", "model", choices=DEVICES)
    pixels: Optional[str] = flag(
        None, "channel order of a model without metadata:", "model", choices=CHANNEL_ORDERS
    )
    mean: Tuple[float, ...] = flag((), "and its pixel mean, one value or three", "model")
    scale: Optional[float] = flag(None, "and its divisor: (x - mean) / scale", "model", above=0)


@dataclasses.dataclass(frozen=True)
class PrecisionConfig(ModelConfig):
    """What every verb that runs a model in one precision takes."""

    precision: str = flag("fp32", "arithmetic:", "model", choices=PRECISIONS)


@dataclasses.dataclass(frozen=True)
class EmbedConfig(PrecisionConfig):
    """Images -> one embedding each, in the order of their names (or of the file's rows).

    python infer.py embed --model model.onnx --images aligned/ --output embeddings.npy

    Channel order and scale are the model's own; the embeddings are not normalised unless the model
    does so. A run that was killed is resumed by the same command."""

    images: str = flag(
        dataclasses.MISSING,
        "directory of aligned images, .npy of uint8 RGB [N, H, W, 3], .bin set, TFRecord shards, "
        "or a list (.txt: one path a line; .lst)",
    )
    output: str = flag(dataclasses.MISSING, "the .npy to write: float32 [N, D]")
    recursive: bool = flag(False, "embed the images of sub-directories too")
    flip: bool = flag(False, "add the mirrored image's embedding, as Accuracy-Flip does")
    batch_size: Optional[int] = flag(None, "images in one run (default: measured)", low=1)
    on_error: str = flag(
        "stop",
        "an unreadable image: stop, skip its row, or a row of NaN:",
        choices=("stop", "skip", "nan"),
    )


@dataclasses.dataclass(frozen=True)
class PreprocessConfig:
    """A .bin set -> {i}.bin, {i}_flip.bin and <info_path>_list.npy, as the Ascend guide has them.

    python infer.py preprocess --data_path data/lfw.bin --info_path data/lfw

    Each tensor is float32 [3, H, W]. --pixels, --mean and --scale, or --model, are for other models
    than the guide's."""

    file_type: str = flag("jpg", "what the set holds:", choices=("jpg",))
    data_path: str = flag("./data/lfw.bin", "the .bin set")
    info_path: str = flag("./data/lfw", "directory for {i}.bin and {i}_flip.bin")
    width: int = flag(112, "pixels", low=1)
    height: int = flag(112, "pixels", low=1)
    file_format: str = flag("bin", "bytes alone, or NumPy files:", choices=("bin", "npy"))
    model: Optional[str] = flag(
        None, "model with metadata; default the guide's BGR, (v / 255 - 0.5) / 0.5"
    )
    pixels: Optional[str] = flag(None, "channel order:", choices=CHANNEL_ORDERS)
    mean: Tuple[float, ...] = flag((), "pixel mean, one value or three")
    scale: Optional[float] = flag(None, "divisor: (x - mean) / scale", above=0)


@dataclasses.dataclass(frozen=True)
class RunConfig(PrecisionConfig):
    """Tensors -> result files as ais_bench writes them, with its flags; needs no card.

    python infer.py run --model model.onnx --input data/lfw --output result"""

    input: str = flag(dataclasses.MISSING, "directory of .bin or .npy tensors")
    output: str = flag(dataclasses.MISSING, "directory for a directory of this run's results")
    output_dirname: Optional[str] = flag(None, "its name (default: date and time)")
    outfmt: str = flag("TXT", "files of the results:", choices=("TXT", "BIN", "NPY"))
    batchsize: int = flag(1, "tensors in one run, where the model leaves it open", low=1)


@dataclasses.dataclass(frozen=True)
class PostprocessConfig:
    """Result files and a list of pairs -> accuracy and threshold, as the Ascend guide prints them.

    python infer.py postprocess --result result --data_path data/lfw_list.npy

    The digits are those of eval_ckpt_file.py's Accuracy-Flip."""

    result: str = flag(
        "./result/dumpOutput_device0", "directory of {i}_0.txt, .bin or .npy, or the one above it"
    )
    data_path: str = flag("./data/lfw_list.npy", "bool [P], whether a pair is of one person")
    folds: int = flag(10, "contiguous folds; the threshold comes from the others", low=1)


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(PrecisionConfig):
    """A model and .bin sets -> the table of eval_ckpt_file.py.

    python infer.py evaluate --model model.onnx --eval_db_path datasets/"""

    eval_db_path: str = flag(dataclasses.MISSING, "directory of the .bin sets")
    eval_datasets: Tuple[str, ...] = flag((), "sets by name (default: every .bin there)")
    folds: int = flag(10, "contiguous folds; the threshold comes from the others", low=1)
    json: Optional[str] = flag(None, "file for the table as a JSON list")
    csv: Optional[str] = flag(None, "file for the table as CSV")


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig(ModelConfig):
    """Images/s, latency and memory by batch size, and the accuracy of each precision.

    python infer.py benchmark --model model.onnx --precision fp32 bf16 --eval_db_path datasets/"""

    precision: Tuple[str, ...] = flag(
        ("fp32",), "arithmetic, one or more:", "model", choices=PRECISIONS
    )
    batch_sizes: Tuple[int, ...] = flag((1, 4, 8, 16, 32, 64), "images in one run", low=1)
    seconds: float = flag(3.0, "time for each batch size", above=0)
    eval_db_path: Optional[str] = flag(
        None, "directory of .bin sets: adds the accuracy of each precision"
    )
    eval_datasets: Tuple[str, ...] = flag((), "sets by name (default: every .bin there)")
    json: Optional[str] = flag(None, "file for the table as a JSON list")
    markdown: Optional[str] = flag(None, "file for the table as Markdown")


def main(argv: Optional[List[str]] = None) -> None:
    """Runs the verb that argv starts with."""
    verb, config = parse_command(COMMANDS, argv, __doc__ or "")
    VERBS[verb](config)


def open_model(config: Any, precision: str, batch_size: Optional[int] = None) -> Embedder:
    """The Embedder of the model's flags."""
    options = ModelOptions(config.threads, precision, config.device, batch_size)
    given = from_flags(config.pixels, config.mean, config.scale)
    backend = config.backend or fastest_backend(config.model, options)
    return Embedder(config.model, backend, options, given)


def embed(config: EmbedConfig) -> None:
    """Embeds a source of images into an .npy."""
    from inference.embedding_file import check_output
    from inference.embedding_run import BATCH, EmbedPlan, embed_source
    from inference.sources import open_source

    check_output(config.output)
    with open_model(config, config.precision, config.batch_size) as embedder:
        source = open_source(
            config.images, embedder.image_size, config.recursive, config.on_error != "stop"
        )
        plan = EmbedPlan(config.flip, config.on_error, config.batch_size or BATCH)
        with tqdm(total=source.images, unit="image", disable=None) as bar:
            result = embed_source(embedder, source, config.output, plan, bar.update)
    print(f"{config.output}: {result.rows} embeddings of {result.dimension} numbers.")
    if source.ignored:
        logging.warning("%d files are not images: %s", len(source.ignored), _first(source.ignored))
    if result.failed:
        names = [name for name, _ in result.failed]
        logging.warning(
            "%d of %d images could not be read (%s); %s_errors.txt has the reasons.",
            len(names),
            source.images,
            _first(names),
            config.output[: -len(".npy")],
        )


def preprocess(config: PreprocessConfig) -> None:
    """Writes a .bin set as tensors and the list of its pairs."""
    from data.eval_data_reader import read_pairs
    from inference.tensor_files import GUIDE, TensorForm, tables_of, write_pair_list, write_tensors

    chosen = _scaled_preprocessing(config)
    form = GUIDE if chosen is None else TensorForm(chosen.channel_order, tables_of(chosen))
    assert config.file_type == "jpg", "the flag has one choice"
    form = form._replace(size=(config.height, config.width), file_format=config.file_format)
    images = len(read_pairs(config.data_path)[0])
    with tqdm(total=images, unit="image", disable=None) as bar:
        issame_P = write_tensors(config.data_path, config.info_path, form, bar.update)
    pair_list = f"{config.info_path.rstrip('/')}_list.npy"
    write_pair_list(pair_list, issame_P)
    print(
        f"success load data: {images} images as {2 * images} tensors in {config.info_path}, "
        f"{len(issame_P)} pairs in {pair_list}."
    )


def _scaled_preprocessing(config: PreprocessConfig) -> Any:
    """The preprocessing of --model, or of the flags; None for the guide's own."""
    given = from_flags(config.pixels, config.mean, config.scale)
    if config.model is None:
        return given
    with Embedder(config.model, given=given) as model:
        if model.input_dtype == "uint8":
            raise ValueError(
                f"{config.model} takes uint8 images and scales them itself, so it needs no "
                "tensors; pass the .bin set to infer.py evaluate."
            )
        if (config.height, config.width) != model.image_size:
            raise ValueError(
                f"{config.model} takes images of {model.image_size[0]}x{model.image_size[1]}, not "
                f"{config.height}x{config.width}; pass --height and --width."
            )
        return model.preprocessing


def run_tensors(config: RunConfig) -> None:
    """Runs a model on files of tensors."""
    from inference import tensor_files

    tensors = tensor_files.open_tensors(config.input)
    with open_model(config, config.precision) as embedder:
        batch = embedder.input_shape[0] or config.batchsize
        directory = os.path.join(config.output, config.output_dirname or time.strftime(DATED))
        embedder.warm_up()
        with tqdm(total=len(tensors.names), unit="tensor", disable=None) as bar:
            seconds = tensor_files.run_tensors(
                embedder, tensors, directory, config.outfmt.lower(), batch, bar.update
            )
    mean_ms = 1e3 * float(np.mean(seconds))
    print(f"{directory}: {len(tensors.names)} results.")
    print(
        f"[INFO] throughput 1000*batchsize.mean({batch})/NPU_compute_time.mean({mean_ms}): "
        f"{1e3 * batch / mean_ms}"
    )


def postprocess(config: PostprocessConfig) -> None:
    """Prints the accuracy of a directory of results."""
    import verification
    from inference.tensor_files import read_pair_list, read_results, results_directory

    issame_P = read_pair_list(config.data_path)
    directory = results_directory(config.result)
    plain_ND, mirrored_ND = read_results(directory, 2 * len(issame_P))
    result = verification.evaluate(plain_ND, issame_P, config.folds, mirrored_ND)
    print(STARS)
    print(f"accuracy: {result.accuracy}")
    print(f"best_thresholds: {result.threshold}")
    print(STARS)


def evaluate(config: EvaluateConfig) -> None:
    """Prints the table of eval_ckpt_file.py."""
    import eval_ckpt_file

    options = ModelOptions(config.threads, config.precision, config.device)
    eval_ckpt_file.evaluate(
        eval_ckpt_file.EvalConfig(
            ckpt_file=config.model,
            eval_db_path=config.eval_db_path,
            eval_datasets=config.eval_datasets,
            folds=config.folds,
            backend=config.backend or fastest_backend(config.model, options),
            threads=config.threads,
            precision=config.precision,
            device=config.device,
            pixels=config.pixels,
            mean=config.mean,
            scale=config.scale,
            json=config.json,
            csv=config.csv,
        )
    )


def benchmark(config: BenchmarkConfig) -> None:
    """Times batches of each precision and prints the table."""
    from inference.benchmark import markdown_table, time_batches

    timings, accuracies = [], {}
    for precision in config.precision:
        with open_model(config, precision) as embedder:
            timings += time_batches(
                embedder,
                config.batch_sizes,
                config.seconds,
                lambda timing: print(timing.guide_line(), flush=True),
            )
            if config.eval_db_path is not None:
                accuracies[precision] = _accuracies(config, embedder)
    if not timings:
        raise ValueError(
            f"{config.model} has the fixed batch size {embedder.input_shape[0]}, which "
            "--batch_sizes does not name; pass it."
        )
    shown = {
        precision: ", ".join(f"{name} {value:.5f}" for name, value in found.items())
        for precision, found in accuracies.items()
    }
    table = markdown_table(timings, shown)
    print(f"\n{table}")
    _write_benchmark(config, table, timings, accuracies)


def _accuracies(config: BenchmarkConfig, embedder: Embedder) -> Dict[str, float]:
    """{set: Accuracy-Flip}."""
    from evaluation.verification_set import evaluate_set, find_sets

    sets = find_sets(config.eval_db_path, config.eval_datasets or None)
    return {
        name: evaluate_set(embedder.embed_batch, path, name, embedder.image_size, 64).flip.accuracy
        for name, path in sets.items()
    }


def _write_benchmark(
    config: BenchmarkConfig, table: str, timings: List[Any], accuracies: Dict[str, Any]
) -> None:
    from runtime.files import atomic_write

    if config.markdown is not None:
        with atomic_write(config.markdown) as stream:
            stream.write(table + "\n")
    if config.json is not None:
        rows = [
            dict(timing._asdict(), accuracy=accuracies.get(timing.precision)) for timing in timings
        ]
        with atomic_write(config.json) as stream:
            json.dump(rows, stream, indent=2)


def _first(names: Any) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


COMMANDS = {
    "preprocess": PreprocessConfig,
    "embed": EmbedConfig,
    "run": RunConfig,
    "postprocess": PostprocessConfig,
    "evaluate": EvaluateConfig,
    "benchmark": BenchmarkConfig,
}
VERBS: Dict[str, Callable[[Any], None]] = {
    "preprocess": preprocess,
    "embed": embed,
    "run": run_tensors,
    "postprocess": postprocess,
    "evaluate": evaluate,
    "benchmark": benchmark,
}


if __name__ == "__main__":
    run(main)
