"""An exported file in the runtimes that are installed here: uint8 RGB images -> embeddings.

Letters: N images, H W pixels, D embedding.
"""

import functools
import importlib
from typing import Any, Callable, Dict, NamedTuple, Optional

import numpy as np

from export.onnx_writer import pixel_constants
from inference.backends.base import ModelOptions
from inference.preprocessing import Preprocessing, to_input
from nets.lineages import NetSpec

Run = Callable[[np.ndarray], np.ndarray]  # what the file's input takes -> float32 [N, D]
Open = Callable[[], "Runtime"]  # opens a file


class Runtime(NamedTuple):
    """A file opened by a runtime."""

    name: str  # of the runtime, with its version
    run: Run  # one batch


def optional(module: str) -> Optional[Any]:
    """A module, or None where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def required(module: str, package: str, purpose: str) -> Any:
    """A module, or a sentence about what to install."""
    found = optional(module)
    if found is None:
        raise ValueError(f"{purpose} needs {module}; pip install {package}.")
    return found


def input_of(images_NHWC: np.ndarray, spec: NetSpec, input_form: str) -> np.ndarray:
    """uint8 RGB [N, H, W, 3] -> what a file of an input form takes."""
    if input_form == "uint8":
        return images_NHWC
    as_is = Preprocessing("RGB", (0.0,), 1.0, input_form)
    if input_form == "scaled":
        mean, divisor = pixel_constants(spec)
        as_is = Preprocessing(spec.row.pixels, tuple(mean.tolist()), float(divisor), input_form)
    return to_input(images_NHWC, as_is, True, "float32")


def open_onnx(path: str, threads: int = 0) -> Dict[str, Open]:
    """An ONNX file in ONNX Runtime and OpenVINO, where they are installed. threads: 0 for all."""
    found: Dict[str, Open] = {}
    for module, opener in (("onnxruntime", onnx_runtime), ("openvino", openvino_runtime)):
        library = optional(module)
        if library is not None:
            found[module] = functools.partial(opener, library, path, threads)
    return found


def onnx_runtime(library: Any, path: Any, threads: int = 0) -> Runtime:
    """ONNX Runtime on the CPU. path: of the file, or its bytes."""
    from inference.backends.onnxruntime import OnnxRuntimeBackend

    return _opened(f"onnxruntime {library.__version__}", OnnxRuntimeBackend, path, threads)


def openvino_runtime(library: Any, path: str, threads: int = 0, precision: str = "fp32") -> Runtime:
    """OpenVINO on the CPU; its own choice of precision would be bf16 where the CPU has AMX."""
    from inference.backends.openvino import OpenVinoBackend

    name = f"openvino {library.__version__.split('-')[0]}"
    return _opened(name, OpenVinoBackend, path, threads, precision)


def open_tflite(path: str) -> Dict[str, Open]:
    """A .tflite file in LiteRT, or in TensorFlow's own interpreter of it."""
    from inference.backends.litert import LiteRtBackend
    from runtime.tf1 import VERSION

    name = f"tensorflow {VERSION}"
    if optional("ai_edge_litert.interpreter") is not None:
        version = getattr(optional("ai_edge_litert"), "__version__", "")
        name = f"ai-edge-litert {version}".strip()
    return {"tflite": functools.partial(_opened, name, LiteRtBackend, path)}


def open_tensorflow(path: str) -> Dict[str, Open]:
    """A frozen graph, or a SavedModel by its default signature, in TensorFlow."""
    from inference.backends.tensorflow import TensorFlowBackend
    from runtime.tf1 import VERSION

    name = f"tensorflow {VERSION}"
    return {"tensorflow": functools.partial(_opened, name, TensorFlowBackend, path)}


def _opened(
    name: str, backend: Any, path: Any, threads: int = 0, precision: str = "fp32"
) -> Runtime:
    """A file in the backend that infer.py runs it in."""
    return Runtime(name, backend(path, ModelOptions(threads or None, precision)).run)
