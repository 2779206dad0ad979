"""Writes report.html of a run, one self-contained page, or a page that compares several runs.

python -m evaluation.report RUN [RUN...] [--output FILE]
"""

import dataclasses
import sys
from typing import Optional, Sequence, Tuple

from evaluation.report.writer import write_comparison, write_report
from runtime.cli import run
from runtime.flags import flag, parse_flags


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    runs: Tuple[str, ...] = flag((), "directories of runs; the flag's name may be omitted")
    output: Optional[str] = flag(
        None, "page to write (default: RUN/report.html, or compare.html for several runs)"
    )


def main(argv: Optional[Sequence[str]] = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and not argv[0].startswith("-"):
        argv.insert(0, "--runs")
    config = parse_flags(ReportConfig, argv, description=__doc__.splitlines()[0])
    if not config.runs:
        raise ValueError("pass the directory of a run, as in python -m evaluation.report RUN.")
    if len(config.runs) == 1:
        print(write_report(config.runs[0], config.output))
    else:
        print(write_comparison(config.runs, config.output or "compare.html"))


if __name__ == "__main__":
    run(main)
