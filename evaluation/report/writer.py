"""Writes report.html of a run, or one page that compares several runs."""

import os

from evaluation.report.compare import compare_body
from evaluation.report.page import page, write_page
from evaluation.report.run_logs import read_run
from evaluation.report.run_page import run_body


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
