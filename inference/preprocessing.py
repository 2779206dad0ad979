"""uint8 RGB images to a model's input: channel order, mean and scale belong to the model.

N images, H W pixels, C channels. The rules, in order: the metadata that export_model.py writes into
the model, InsightFace's manifest.json, the flags of a caller, InsightFace's rule for ONNX files.
"""

import json
import os
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from checkpoint.model_metadata import ModelMetadata

CHANNEL_ORDERS = ("RGB", "BGR")


class Preprocessing(NamedTuple):
    """What happens to a pixel before the model: (x - mean) / scale."""

    channel_order: str  # "RGB" or "BGR"
    mean: Tuple[float, ...]  # one value, or one a channel in channel_order
    scale: float  # the divisor
    source: str  # where these numbers come from, for messages

    @property
    def is_identity(self) -> bool:
        """Whether the model takes RGB values from 0 to 255 as they are."""
        return self.channel_order == "RGB" and self.scale == 1 and not any(self.mean)


def to_input(
    images_NHWC: np.ndarray, preprocessing: Preprocessing, channels_first: bool, dtype: str
) -> np.ndarray:
    """uint8 RGB [N, H, W, 3] -> the model's input, [N, 3, H, W] or [N, H, W, 3], contiguous."""
    reverse = preprocessing.channel_order == "BGR"
    x = images_NHWC[..., ::-1] if reverse else images_NHWC
    if dtype == "uint8":
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2) if channels_first else x)
    mean_C = np.array(preprocessing.mean, np.float32)
    if channels_first:
        x, mean_C = x.transpose(0, 3, 1, 2), mean_C.reshape(-1, 1, 1)
    pixels = np.ascontiguousarray(x, dtype)
    if not preprocessing.is_identity:
        np.subtract(pixels, mean_C, out=pixels)
        np.divide(pixels, np.float32(preprocessing.scale), out=pixels)
    return pixels


def from_metadata(metadata: ModelMetadata) -> Preprocessing:
    """What the input form of an exported model leaves to its caller."""
    if metadata.input_form == "scaled":
        mean = tuple(float(value) for value in metadata.mean)
        return Preprocessing(metadata.channel_order, mean, float(metadata.scale), "its metadata")
    return Preprocessing("RGB", (0.0,), 1.0, "its metadata")


def from_flags(
    pixels: Optional[str], mean: Optional[Sequence[float]], scale: Optional[float]
) -> Optional[Preprocessing]:
    """The caller's numbers, None where there are none; what is not given is InsightFace's."""
    if pixels is None and not mean and scale is None:
        return None
    if pixels not in (None,) + CHANNEL_ORDERS:
        raise ValueError(f"--pixels {pixels} is not known; choose RGB or BGR.")
    means = tuple(float(value) for value in mean or (127.5,))
    if len(means) not in (1, 3):
        raise ValueError(f"--mean has {len(means)} values; pass one, or one for each channel.")
    if scale is not None and not scale > 0:
        raise ValueError(f"--scale {scale} is out of range: it must be above 0.")
    return Preprocessing(pixels or "RGB", means, float(scale or 127.5), "--pixels, --mean, --scale")


def from_node_names(names: List[str]) -> Preprocessing:
    """InsightFace's rule (model_zoo/arcface_onnx.py): a subtraction and a multiplication among the
    first eight nodes, by name, mean that the model normalises; otherwise (x - 127.5) / 127.5."""
    subtracts = any(name.startswith(("Sub", "_minus")) for name in names[:8])
    multiplies = any(name.startswith(("Mul", "_mul")) for name in names[:8])
    inside = subtracts and multiplies
    mean, scale = (0.0, 1.0) if inside else (127.5, 127.5)
    return Preprocessing("RGB", (mean,), scale, "InsightFace's rule for ONNX files")


def from_insightface_manifest(model_path: str) -> Optional[Preprocessing]:
    """The preprocessing in InsightFace's manifest.json (version 2) next to a model, None without."""
    path = os.path.join(os.path.dirname(model_path), "manifest.json")
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as stream:
        try:
            content = json.load(stream)
        except ValueError:
            raise ValueError(f"{path} is not JSON; write it again or remove it.") from None
    task = _get(_get(content, "tasks"), "recognition")
    if _get(task, "file") != os.path.basename(model_path):
        return None
    given = _get(task, "preprocessing")
    if given == "embedded":
        return Preprocessing("RGB", (0.0,), 1.0, path)
    mean, scale = _get(given, "mean"), _get(given, "std")
    if not isinstance(mean, (int, float)) or not isinstance(scale, (int, float)) or scale <= 0:
        return None
    return Preprocessing("RGB", (float(mean),), float(scale), path)


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None
