"""ONNX -> OM for Ascend inference cards, through CANN's compiler `atc`."""

import os
import re
import shlex
import shutil
import subprocess
from typing import List

from nets.lineages import NetSpec

OPSETS = (9, 18)  # that atc of CANN 7 and later reads; CANN 5 and 6 read up to 13
SOC = re.compile(r"Ascend\d{3}[A-Z]?[A-Za-z0-9_]*")


def check(soc_version: str, opset: int, input_form: str) -> None:
    """Refuses what atc would refuse."""
    if not SOC.fullmatch(soc_version):
        raise ValueError(
            f"--soc_version {soc_version} is no Ascend chip; `npu-smi info` shows its name, as in "
            "Ascend310P3."
        )
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise ValueError(f"--opset {opset}: atc reads {OPSETS[0]} to {OPSETS[1]}; pass --opset 11.")
    if input_form == "uint8":
        raise ValueError("--input_form uint8: atc's input is NCHW; pass scaled or raw.")


def command(
    onnx_path: str, om_path: str, spec: NetSpec, input_name: str, batch: int, soc_version: str
) -> List[str]:
    """atc's command line. It appends .om to --output itself."""
    height, width = spec.image_size
    return [
        "atc",
        "--framework=5",
        f"--model={onnx_path}",
        f"--output={os.path.splitext(om_path)[0]}",
        "--input_format=NCHW",
        f"--input_shape={input_name}:{batch},3,{height},{width}",
        "--log=error",
        f"--soc_version={soc_version}",
    ]


def spelled(words: List[str]) -> str:
    """A command line for a shell."""
    return " ".join(map(shlex.quote, words))


def compile_om(words: List[str], om_path: str) -> None:
    """Runs atc, which must be on the PATH."""
    assert shutil.which(words[0])
    result = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True
    )
    if result.returncode or not os.path.exists(om_path):
        lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
        reason = next((line for line in lines if "E" in line[:2] or "ERROR" in line), "")
        raise ValueError(
            f"atc exited with {result.returncode}: {reason or (lines or ['no output'])[-1]}"
        )
