"""A checkpoint -> a file for another runtime, compared with the checkpoint first.

    python export_model.py --ckpt_file output/r50/ckpt/InsightFace_iter_1000.ckpt \\
        --file_format onnx --file_name output/r50/export/r50.onnx
    python export_model.py CHECKPOINT FILE.onnx 16
"""

import sys
from typing import List, Optional

from export.config import ExportConfig, with_positional
from runtime.cli import run
from runtime.flags import parse_flags


def main(argv: Optional[List[str]] = None) -> int:
    words = with_positional(sys.argv[1:] if argv is None else list(argv))
    config = parse_flags(ExportConfig, words, __doc__.splitlines()[0])
    from export.pipeline import export  # after the flags, whose mistakes need no TensorFlow

    return export(config)


if __name__ == "__main__":
    run(main)
