"""preflight.json, which the report reads."""

from data.crop_geometry import Shift
from evaluation.report.run_logs import read_run
from training.preflight.findings import write_findings


def test_the_report_reads_what_the_checks_found(tmp_path):
    write_findings(str(tmp_path), {"lfw": 12}, {"cfp_fp": Shift(8, -1)})
    found = read_run(str(tmp_path))
    assert found.overlaps == {"lfw": 12} and found.shifts == {"cfp_fp": (8, -1)}


def test_a_run_without_findings_has_none(tmp_path):
    assert read_run(str(tmp_path)).overlaps == {}
