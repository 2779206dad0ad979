"""Which backend loads which model file, and how to install the ones that are missing."""

import contextlib
import importlib
import importlib.util
import os
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from checkpoint.format import plain_prefix
from checkpoint.model_metadata import KEY, ModelMetadata, read_manifest
from inference.backends.base import Backend, ModelOptions
from inference.onnx_file import read_onnx

SAVED_MODEL, CHECKPOINT = "SavedModel", "checkpoint"  # kinds that no suffix names
PRECISIONS = ("fp32", "bf16", "int8")


class BackendEntry(NamedTuple):
    """A row of BACKENDS."""

    class_name: str  # in inference/backends/<name>.py
    package: str  # what must be importable
    install: str  # the command that installs it
    kinds: Tuple[str, ...]  # suffixes, SAVED_MODEL or CHECKPOINT
    precisions: Tuple[str, ...]  # of PRECISIONS


# A library's default is the first that is installed; infer.py measures (fastest_backend.py).
BACKENDS: Dict[str, BackendEntry] = {
    "onnxruntime": BackendEntry(
        "OnnxRuntimeBackend", "onnxruntime", "pip install onnxruntime", (".onnx",), ("fp32", "int8")
    ),
    "openvino": BackendEntry(
        "OpenVinoBackend",
        "openvino",
        "pip install openvino",
        (".xml", ".onnx", ".tflite"),
        ("fp32", "bf16", "int8"),
    ),
    "litert": BackendEntry(
        "LiteRtBackend",
        "ai_edge_litert",
        "pip install ai-edge-litert",
        (".tflite",),
        ("fp32", "int8"),
    ),
    "tensorflow": BackendEntry(
        "TensorFlowBackend", "tensorflow", "pip install tensorflow", (SAVED_MODEL, ".pb"), ("fp32",)
    ),
    "ais_bench": BackendEntry(
        "AisBenchBackend",
        "ais_bench",
        "pip install the ais_bench and aclruntime wheels of Ascend's tools",
        (".om",),
        ("fp32",),
    ),
    "checkpoint": BackendEntry(
        "CheckpointBackend", "tensorflow", "pip install tensorflow", (CHECKPOINT,), ("fp32",)
    ),
}
SUFFIXES = (".onnx", ".xml", ".tflite", ".pb", ".om")


def model_kind(path: str) -> str:
    """The suffix of a model file, SAVED_MODEL or CHECKPOINT; nothing there is a ValueError."""
    suffix = os.path.splitext(path)[1].lower()
    if os.path.isdir(path):
        if os.path.exists(os.path.join(path, "saved_model.pb")):
            return SAVED_MODEL
        if os.path.exists(f"{checkpoint_prefix(path)}.index"):
            return CHECKPOINT
        raise ValueError(
            f"{path} is a directory without a saved_model.pb and without checkpoints; pass a model "
            "file, a SavedModel's directory or a checkpoint."
        )
    if os.path.exists(f"{checkpoint_prefix(path)}.index"):
        return CHECKPOINT
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{path} names no checkpoint and no exported model: there is no {path}.index, and a "
            f"model file ends in {', '.join(SUFFIXES)}; pass one of these, or a SavedModel's "
            "directory."
        )
    if not os.path.exists(path):
        raise ValueError(f"{path} is not there; pass a model file or a checkpoint, up to .ckpt.")
    return suffix


def is_exported(path: str) -> bool:
    """Whether a path is an exported model, and not a checkpoint or a directory of checkpoints."""
    if os.path.isdir(path):
        return os.path.exists(os.path.join(path, "saved_model.pb"))
    return os.path.splitext(path)[1].lower() in SUFFIXES and os.path.exists(path)


def checkpoint_prefix(path: str) -> str:
    """A checkpoint's prefix: of its .index file, or of the last one in a directory."""
    if os.path.isdir(path) and not is_exported(path):
        with contextlib.suppress(ValueError):  # no checkpoint in it
            return plain_prefix(path)
    return path if os.path.isdir(path) else plain_prefix(path)


def read_metadata(path: str) -> Optional[ModelMetadata]:
    """What export_model.py recorded in a model or in its manifest, None where nothing."""
    if path.lower().endswith(".onnx"):
        text = read_onnx(path).metadata.get(KEY)
        if text is not None:
            return ModelMetadata.from_json(text)
    return read_manifest(path)


def open_backend(path: str, backend: Optional[str], options: ModelOptions) -> Tuple[str, Backend]:
    """(name, loaded model) of the backend of that name, or of the first that is installed."""
    kind = model_kind(path)
    if kind == ".onnx":
        _check_onnx(path, options.precision)
    name = choose_backend(path, kind, backend, options.precision)
    module = importlib.import_module(f"inference.backends.{name}")
    factory: Callable[[str, ModelOptions], Backend] = getattr(module, BACKENDS[name].class_name)
    return name, factory(path, options)


def choose_backend(path: str, kind: str, backend: Optional[str], precision: str = "fp32") -> str:
    """The name of an installed backend that reads `kind` in `precision`."""
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"--backend {backend} is not known; choose one of {', '.join(BACKENDS)}.")
    readers = [name for name, entry in BACKENDS.items() if kind in entry.kinds]
    if backend is not None and backend not in readers:
        raise ValueError(
            f"--backend {backend} does not read {path}; pass --backend {' or '.join(readers)}."
        )
    able = [name for name in readers if precision in BACKENDS[name].precisions]
    if not able or (backend is not None and backend not in able):
        who = backend or " and ".join(readers)
        others = f" or --backend {' or '.join(able)}" if able else ""
        raise ValueError(
            f"--precision {precision}: {who} does not have it for {path}; pass --precision fp32"
            f"{others}."
        )
    wanted = able if backend is None else [backend]
    present = [name for name in wanted if is_installed(name)]
    if not present:
        commands = " or ".join(BACKENDS[name].install for name in wanted)
        raise ValueError(f"{path} needs {' or '.join(wanted)}, which is not installed: {commands}")
    return present[0]


def installed_readers(kind: str, precision: str = "fp32") -> List[str]:
    """Names of the installed backends that read `kind` in `precision`; may be none."""
    names = [name for name, entry in BACKENDS.items() if kind in entry.kinds]
    able = [name for name in names if precision in BACKENDS[name].precisions]
    return [name for name in able if is_installed(name)]


def is_installed(backend: str) -> bool:
    """Whether a backend's package can be found; nothing is imported."""
    package = BACKENDS[backend].package
    if importlib.util.find_spec(package) is not None:
        return True
    return backend == "litert" and importlib.util.find_spec("tensorflow") is not None


def _check_onnx(path: str, precision: str) -> None:
    """Mistakes that can be seen in an .onnx file before a runtime loads it."""
    model = read_onnx(path)
    if len(model.outputs) != 1:
        names = ", ".join(output.name for output in model.outputs)
        raise ValueError(
            f"{path} has {len(model.outputs)} outputs ({names}), but an embedding network has one; "
            "export it with the embedding as its only output."
        )
    if precision == "int8" and not model.quantized:
        raise ValueError(
            f"--precision int8: {path} has no quantised operators; export it with export_model.py "
            "--precision int8, or pass --precision fp32."
        )
