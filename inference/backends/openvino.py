"""ONNX files, OpenVINO IR and TFLite files in OpenVINO."""

from typing import Any, Dict

import numpy as np
import openvino

from inference.backends.base import Backend, ModelOptions, as_shape

HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # int8: what a quantised file leaves over


class OpenVinoBackend(Backend):
    """A compiled model of OpenVINO, with one request."""

    def __init__(self, path: str, options: ModelOptions) -> None:
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
            text = " ".join(str(error).split())
            raise ValueError(f"{path} cannot be loaded by openvino: {text[:300]}") from None
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


def _check_precision(core: Any, device: str, precision: str) -> None:
    if device not in core.available_devices and device == "GPU":
        raise ValueError("--device gpu: OpenVINO sees no Intel GPU; pass --device cpu.")
    able = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in able:
        raise ValueError(
            "--precision bf16: this processor has no bfloat16 instructions (AVX512-BF16 or AMX); "
            "pass --precision fp32."
        )
