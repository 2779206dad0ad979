"""The data room's benchmarks one after another: conversion, then the pipeline and .bin files.

python benchmarks/data.py
"""

import os
import sys

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from benchmarks import convert, pipeline  # noqa: E402
from runtime.script import run  # noqa: E402


def main(argv=None):
    if argv is None and len(sys.argv) > 1:
        raise ValueError("benchmarks/data.py takes no flags; convert.py and pipeline.py do.")
    for part in (convert, pipeline):
        part.main([])


if __name__ == "__main__":
    run(main)
