"""fp32 ONNX -> int8 ONNX (QDQ) through ONNX Runtime's quantizer.

Letters: N images, H W pixels.
"""

from typing import Any, Dict, Iterator, Optional

import numpy as np

from export.runtimes import required

OPSET = 13  # the first with a scale per channel in QuantizeLinear
BATCH = 8  # images in one run of the calibration
CALIBRATION_IMAGES = 256
VNNI = ("avx512_vnni", "avx_vnni")  # CPUs that multiply uint8 with int8 without saturation


def has_vnni() -> bool:
    """Whether this CPU adds products of 8-bit numbers in 32 bits; without it weights get 7 bits."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            flags = stream.read()
    except OSError:
        return False
    return any(flag in flags for flag in VNNI)


def quantize(source: str, target: str, batch: np.ndarray, metadata: Dict[str, str]) -> None:
    """Writes the int8 form of the file `source`. batch: what its input takes, all images."""
    required("onnxruntime", "onnxruntime", "--int8")
    onnx = required("onnx", "onnx", "--int8")
    from onnxruntime import quantization

    quantization.quantize_static(
        source,
        target,
        reader(quantization.CalibrationDataReader, onnx.load(source).graph.input[0].name, batch),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        reduce_range=not has_vnni(),
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["Conv", "Gemm", "Add"],
    )
    model = onnx.load(target)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, target)


def reader(base: Any, name: str, batch: np.ndarray) -> Any:
    """The images in the form that the quantizer reads."""

    class Reader(base):
        """Batches, then None."""

        def __init__(self) -> None:
            self.batches = _batches(batch)

        def get_next(self) -> Optional[Dict[str, np.ndarray]]:
            part = next(self.batches, None)
            return None if part is None else {name: part}

    return Reader()


def _batches(batch: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(batch), BATCH):
        yield batch[start : start + BATCH]
