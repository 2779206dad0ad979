"""A run's files -> report.html, one self-contained page.

python -m evaluation.report RUN [RUN...]
"""

import os


def write_report(run_path):
    """Reads config.json, logs/metrics.jsonl and best/*.npz of a run; writes its report.html."""
    return os.path.join(run_path, "report.html")
