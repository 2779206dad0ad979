"""ONNX files, OpenVINO IR and TFLite files in OpenVINO."""

import os
import re
from typing import Any, Dict
from xml.etree import ElementTree

import numpy as np
import openvino

from inference.backends.base import Backend, ModelOptions, as_shape

HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # int8: what a quantised file leaves over


class OpenVinoBackend(Backend):
    """A compiled model of OpenVINO, with one request."""

    def __init__(self, path: str, options: ModelOptions) -> None:
        if path.lower().endswith(".xml"):
            _check_ir(path)
        core = openvino.Core()
        device = "GPU" if options.device == "gpu" else "CPU"
        _check_precision(core, device, options.precision)
        settings: Dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": HINTS[options.precision],
        }
        if device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = options.threads or 0
        try:
            model = core.read_model(path)
            compiled = core.compile_model(model, device, settings)
        except Exception as error:
            text = re.sub(r"Exception from \S+:\d+:\s*", "", str(error))  # places in its own source
            text = " ".join(text.split())[:300]
            raise ValueError(f"{path} cannot be loaded by openvino: {text}") from None
        self._request = compiled.create_infer_request()
        first = compiled.inputs[0]
        self.outputs = len(compiled.outputs)
        self.input_shape = as_shape(
            size.get_length() if size.is_static else None for size in first.partial_shape
        )
        self.input_dtype = {"f32": "float32", "u8": "uint8", "f16": "float16"}.get(
            first.element_type.get_type_name(), first.element_type.get_type_name()
        )

    def run(self, x: np.ndarray) -> np.ndarray:
        return np.array(self._request.infer([x], share_inputs=True)[0])


def _check_ir(path: str) -> None:
    """An .xml without its weights, or that ends early: OpenVINO's own errors are a page long."""
    weights = os.path.splitext(path)[0] + ".bin"
    if not os.path.exists(weights):
        raise ValueError(f"{path} needs {weights}, which has the weights; copy both files.")
    try:
        ElementTree.parse(path)
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is not whole XML ({error}); copy it again.") from None


def _check_precision(core: Any, device: str, precision: str) -> None:
    if device not in core.available_devices and device == "GPU":
        raise ValueError("--device gpu: OpenVINO sees no Intel GPU; pass --device cpu.")
    able = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in able:
        raise ValueError(
            "--precision bf16: this processor has no bfloat16 instructions (AVX512-BF16 or AMX); "
            "pass --precision fp32."
        )
