"""The data room's benchmarks one after another: conversion, then the pipeline and .bin files.

    python benchmarks/data.py                     # 30,000 records, about two minutes
    python benchmarks/data.py --records 100000    # the size that the targets are for, 4 GB of disk

Each prints ratios within one run; starting processes weighs more in a small conversion.
benchmarks/convert.py and benchmarks/pipeline.py have more flags.
"""

import dataclasses
import os
import sys
from typing import Optional

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from benchmarks import convert, pipeline  # noqa: E402
from runtime.cli import run  # noqa: E402
from runtime.flags import flag, parse_flags  # noqa: E402


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """Flags of benchmarks/data.py."""

    records: int = flag(30000, "records of the .rec that is converted", low=1000)
    repeats: int = flag(3, "runs of each side, in turn; the median counts", low=1)
    cores: int = flag(2, "cores for either side", low=1)
    work_path: Optional[str] = flag(None, "where to write; default: the system's place")


def main(argv=None):
    config = parse_flags(BenchmarkConfig, argv, __doc__)
    words = ["--records", config.records, "--repeats", config.repeats, "--workers", config.cores]
    words += ["--work_path", config.work_path] if config.work_path else []
    convert.main([str(word) for word in words])
    pipeline.main(["--cores", str(config.cores), "--rounds", str(config.repeats)])


if __name__ == "__main__":
    run(main)
