"""ONNX files in ONNX Runtime."""

import re
from typing import Any

import numpy as np
import onnxruntime

from inference.backends.base import Backend, ModelOptions, as_shape
from inference.onnx_file import OPSET_OF_IR

DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(float16)": "float16"}
QUIET = 3  # errors only; they come as exceptions too


class OnnxRuntimeBackend(Backend):
    """A session of ONNX Runtime."""

    def __init__(self, path: str, options: ModelOptions) -> None:
        providers = _providers(options.device)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads or 0
        settings.log_severity_level = QUIET
        try:
            self._session = onnxruntime.InferenceSession(path, settings, providers=providers)
        except Exception as error:  # its exception classes share no public base
            raise ValueError(_refusal(path, error)) from None
        first = self._session.get_inputs()[0]
        self._input = first.name
        self._output = self._session.get_outputs()[0].name
        self.outputs = len(self._session.get_outputs())
        self.input_shape = as_shape(first.shape)
        self.input_dtype = DTYPES.get(first.type, first.type[len("tensor(") : -1])

    def run(self, x: np.ndarray) -> np.ndarray:
        return self._session.run([self._output], {self._input: x})[0]


def _providers(device: str) -> Any:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise ValueError(
            f"--device {device}: this ONNX Runtime has no CUDA provider; pip install "
            "onnxruntime-gpu, or pass --device cpu."
        )
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _refusal(path: str, error: Exception) -> str:
    """One sentence about a model that the runtime does not load."""
    text = " ".join(str(error).split())
    version = onnxruntime.__version__
    refused = re.search(r"IR version: (\d+), max supported IR version: (\d+)", text)
    if refused:
        newest = int(refused.group(2))
        opset = OPSET_OF_IR.get(newest, max(OPSET_OF_IR.values()))
        return (
            f"{path} has IR version {refused.group(1)}, but onnxruntime {version} reads IR "
            f"versions up to {newest}; export it with opset {opset} or lower (--opset 11 is read "
            "by every runtime), or install a newer onnxruntime."
        )
    return f"{path} cannot be loaded by onnxruntime {version}: {text[:300]}"
