"""What an exported model records about itself: its net, its preprocessing, where it came from.

An ONNX file holds it in metadata_props under KEY; every other format in the manifest next to it.
"""

import json
import os
from typing import Any, Dict, List, NamedTuple, Optional

KEY = "insightface_tf"  # in ONNX metadata_props and in manifest.json
INPUT_FORMS = ("scaled", "raw", "uint8")


class ModelMetadata(NamedTuple):
    """The record of one exported model."""

    lineage: str  # a row of nets/lineages.py
    net: str  # the block of its units: "ir" or "se"
    net_depth: int  # 0 where the lineage has one depth only
    width: float  # scale of every layer's channels
    embedding_size: int  # numbers in an embedding
    image_size: List[int]  # [height, width]
    channel_order: str  # "RGB" or "BGR": what the network itself was trained on
    mean: List[float]  # pixel = (x - mean) / scale, one value or one a channel, 0-255
    scale: float  # see mean
    input_form: str  # "scaled": NCHW floats in channel_order, already (x - mean) / scale;
    # "raw": NCHW floats, RGB, 0-255; "uint8": NHWC uint8, RGB
    normalized: bool  # whether embeddings leave the model with length 1
    checkpoint_sha256: str  # of the weights that were exported, by name, in sorted order
    step: int  # the training step of the checkpoint
    dataset: str  # the name of the training set, "" where the checkpoint has none
    accuracy: Dict[str, float]  # verification set -> accuracy in [0, 1] of the checkpoint

    def to_json(self) -> str:
        """One line of JSON with sorted keys: the same bytes for the same values."""
        return json.dumps(self._asdict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ModelMetadata":
        """The record of a JSON text; unknown keys of a later version are ignored."""
        try:
            values = json.loads(text)
        except ValueError:
            raise ValueError("The model's metadata is not JSON; export the model again.") from None
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Any) -> "ModelMetadata":
        """The record of a JSON object."""
        values = values if isinstance(values, dict) else {}
        missing = [name for name in cls._fields if name not in values]
        if missing:
            raise ValueError(
                f"The model's metadata lacks {', '.join(missing)}; export the model again."
            )
        if values["input_form"] not in INPUT_FORMS:
            raise ValueError(
                f"The model's input form is {values['input_form']!r}, but must be one of "
                f"{', '.join(INPUT_FORMS)}; export the model again."
            )
        return cls(**{name: values[name] for name in cls._fields})


def read_manifest(path: str) -> Optional[ModelMetadata]:
    """The record in the manifest of the model at `path`, None where no manifest has one.

    It is `<path>.manifest.json`, or `manifest.json` in the directory `path` or that of the file."""
    for manifest in manifest_paths(path):
        if os.path.isfile(manifest):
            with open(manifest, encoding="utf-8") as stream:
                try:
                    values = json.load(stream)
                except ValueError:
                    raise ValueError(f"{manifest} is not JSON; export the model again.") from None
            if isinstance(values, dict) and KEY in values:
                return ModelMetadata.from_dict(values[KEY])
    return None


def manifest_paths(path: str) -> List[str]:
    """Where the manifest of the model at `path` may be, the most specific place first."""
    path = path.rstrip("/")
    inside = os.path.join(path, "manifest.json")
    sibling = os.path.join(os.path.dirname(path), "manifest.json")
    return [f"{path}.manifest.json", inside if os.path.isdir(path) else sibling]
