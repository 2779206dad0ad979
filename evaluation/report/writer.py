"""Writes report.html of a run, or one page that compares several runs."""

import os
from typing import Optional, Sequence

from evaluation.report.compare import compare_body
from evaluation.report.page import page, write_page
from evaluation.report.run_logs import read_run
from evaluation.report.run_page import run_body


def write_report(run_path: str, output: Optional[str] = None) -> str:
    """Reads config.json, logs/ and best/*.npz of a run, as far as they exist, and writes its
    report.html. Returns the page's path."""
    content = read_run(run_path)
    return write_page(
        output or os.path.join(run_path, "report.html"),
        page(f"{content.name}: training report", run_body(content)),
    )


def write_comparison(run_paths: Sequence[str], output: str = "compare.html") -> str:
    """Writes one page that compares several runs. Returns its path."""
    runs = [read_run(path) for path in run_paths]
    return write_page(output, page(f"{len(runs)} runs compared", compare_body(runs)))
