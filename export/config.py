"""Flags of export_model.py, and the command lines of the projects that it replaces."""

import dataclasses
import os
from typing import List, Optional

from export.onnx_writer import OPSETS
from export.proof import IMAGES
from runtime.flags import flag

FORMATS = ("onnx", "savedmodel", "pb", "tflite", "mindir", "ckpt_ms", "om")
ENDINGS = {
    "onnx": ".onnx",
    "savedmodel": "",
    "pb": ".pb",
    "tflite": ".tflite",
    "mindir": ".mindir",
    "ckpt_ms": ".ckpt",
    "om": ".om",
}
INPUT_FORMS = {  # what each format can take, its default first
    "onnx": ("raw", "scaled", "uint8"),
    "om": ("scaled", "raw"),
    "mindir": ("scaled",),
    "ckpt_ms": ("scaled",),
    "savedmodel": ("uint8",),
    "pb": ("uint8",),
    "tflite": ("uint8",),
}
HEADS = ("logits", "fc7", "loss", "cosine", "classes")


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    ckpt_file: str = flag(
        dataclasses.MISSING, "the checkpoint's prefix, up to .ckpt", "export", alias=("source",)
    )
    file_name: str = flag(
        dataclasses.MISSING,
        "the file to write; its ending is added where it is missing",
        "export",
        alias=("target",),
    )
    file_format: str = flag("onnx", f"what to write: {', '.join(FORMATS)}", "export")
    overwrite: bool = flag(False, "replace a file that exists", "export")
    ema: bool = flag(
        True, "export the moving average of the weights where the run kept one", "export"
    )
    normalize: bool = flag(False, "let embeddings leave the model with length 1", "export")
    batch_size: Optional[int] = flag(
        None,
        "images in a batch; default: any number, and 1 for tflite, om and mindir",
        "export",
        low=1,
        alias=("batchsize",),
    )
    input_form: Optional[str] = flag(
        None,
        "what the input is: raw (RGB, 0-255, NCHW), scaled (the lineage's channel order and scale, "
        "NCHW) or uint8 (RGB, NHWC); default: raw for onnx, scaled for om, uint8 for the others",
        "export",
        choices=("scaled", "raw", "uint8"),
    )
    opset: Optional[int] = flag(
        None,
        "ONNX operator set; default: 11, and 13 with --int8",
        "onnx",
        low=OPSETS[0],
        high=OPSETS[1],
    )
    prelu: str = flag(
        "node",
        "PReLU as one node, or decomposed into a x + (1 - a) relu(x)",
        "onnx",
        choices=("node", "decomposed"),
    )
    input_name: str = flag("image", "name of the input", "onnx")
    output_name: str = flag("features", "name of the output", "onnx")
    fold: bool = flag(True, "fold the norms into the layers around them", "onnx")
    soc_version: str = flag("Ascend310P3", "the chip that an om file is for", "om")
    mindspore_python: Optional[str] = flag(
        None, "the Python of an environment with MindSpore; default: this one", "mindir"
    )
    proof: Optional[str] = flag(
        None,
        "compare on these images, a directory or a .bin; default: drawn faces",
        "check",
    )
    proof_images: int = flag(IMAGES, "images to compare on", "check", low=1)
    fp16: bool = flag(False, "store the weights of a tflite file as float16", "quantization")
    int8: bool = flag(False, "quantize an onnx or tflite file to 8 bits", "quantization")
    calibration: Optional[str] = flag(
        None, "images that int8 is calibrated on: a directory or a .bin", "quantization"
    )
    accuracy_set: Optional[str] = flag(
        None, "a .bin on which accuracy is measured before and after --int8", "quantization"
    )
    largest_drop: float = flag(
        0.005, "accuracy that --int8 may lose on --accuracy_set", "quantization", low=0, high=1
    )

    @property
    def format(self) -> str:
        """The format in lower case; MindSpore's users write MINDIR and AIR."""
        return self.file_format.lower()

    @property
    def form(self) -> str:
        """The input form, the format's own where none was given."""
        return self.input_form or INPUT_FORMS[self.format][0]

    @property
    def path(self) -> str:
        """The file to write, with its ending."""
        ending = ENDINGS[self.format]
        path = self.file_name.rstrip("/")
        return path if path.lower().endswith(ending) else path + ending


def with_positional(argv: List[str]) -> List[str]:
    """`IN OUT BATCH` as flags; anything else as it is."""
    leading = 0
    while leading < min(3, len(argv)) and not argv[leading].startswith("-"):
        leading += 1
    if leading < 2:
        return list(argv)
    names = ("--ckpt_file", "--file_name", "--batch_size")
    flags = [word for pair in zip(names, argv[:leading]) for word in pair]
    return flags + list(argv[leading:])


def check(config: ExportConfig) -> None:
    """Refuses what no checkpoint could make right."""
    if config.format == "air":
        raise ValueError(
            "--file_format air: MindSpore writes AIR on Ascend hardware only and deprecated it; "
            "pass om or mindir."
        )
    if config.format not in FORMATS:
        raise ValueError(
            f"--file_format {config.file_format} is not known; choose one of {', '.join(FORMATS)}."
        )
    if config.form not in INPUT_FORMS[config.format]:
        raise ValueError(
            f"--input_form {config.form} does not exist for {config.format}; choose one of "
            f"{', '.join(INPUT_FORMS[config.format])}."
        )
    if config.output_name in HEADS:
        raise ValueError(
            f"--output_name {config.output_name} is a training head; a model is exported up to its "
            "embedding, so choose a name such as features."
        )
    if not config.input_name or config.input_name == config.output_name:
        raise ValueError("--input_name and --output_name must be two names.")
    _check_quantization(config)


def _check_quantization(config: ExportConfig) -> None:
    if config.int8 and config.format not in ("onnx", "tflite"):
        raise ValueError(f"--int8 does not exist for {config.format}; pass onnx or tflite.")
    if config.fp16 and (config.format != "tflite" or config.int8):
        raise ValueError("--fp16 is for tflite without --int8.")
    if config.int8 and not config.calibration:
        raise ValueError("--int8 needs --calibration: a directory of aligned images, or a .bin.")
    if config.int8 and config.format == "onnx" and config.opset and config.opset < 13:
        raise ValueError(f"--opset {config.opset}: --int8 needs 13 or more for scales per channel.")
    for name, path in (("calibration", config.calibration), ("proof", config.proof)):
        if path and not os.path.exists(path):
            raise ValueError(f"--{name} {path} does not exist.")
    if config.accuracy_set and not os.path.isfile(config.accuracy_set):
        raise ValueError(f"--accuracy_set {config.accuracy_set} is not a .bin file.")
