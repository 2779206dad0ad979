"""A run's files -> report.html, one self-contained page; several runs -> a page that compares them.

python -m evaluation.report RUN [RUN...] [--output FILE]
"""

import os
import sys

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import dataclasses  # noqa: E402
from typing import Optional, Tuple  # noqa: E402

from evaluation.compare import compare_body  # noqa: E402
from evaluation.page import page, write_page  # noqa: E402
from evaluation.report_page import run_body  # noqa: E402
from evaluation.run_files import read_run  # noqa: E402
from runtime.flags import flag, parse_flags  # noqa: E402
from runtime.script import run  # noqa: E402


def write_report(run_path, output=None):
    """Reads config.json, logs/metrics.jsonl and best/*.npz of a run, as far as they are there, and
    writes its report.html, whole or not at all. Returns the page's path."""
    content = read_run(run_path)
    return write_page(
        output or os.path.join(run_path, "report.html"),
        page(f"{content.name}: training report", run_body(content)),
    )


def write_comparison(run_paths, output="compare.html"):
    """Several runs' files -> one page that compares them. Returns its path."""
    runs = [read_run(path) for path in run_paths]
    return write_page(output, page(f"{len(runs)} runs compared", compare_body(runs)))


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    runs: Tuple[str, ...] = flag((), "directories of runs; also without the flag's name")
    output: Optional[str] = flag(
        None, "the page (default: RUN/report.html, or compare.html for several runs)"
    )


def main(argv=None):
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
