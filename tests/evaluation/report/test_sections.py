"""The sections below the headline."""

import re

from evaluation.report import charts, writer
from tests.evaluation import tiny_sets
from tests.evaluation.report.tiny_runs import text_of, whole_run
from tests.evaluation.tiny_sets import train_line, validation_line


def test_a_report_without_verification_sets_has_the_training_curves(tmp_path):
    lines = [train_line(step) for step in range(10, 600, 10)]
    text = text_of(writer.write_report(tiny_sets.write_run(tmp_path / "r", lines)))
    assert "No validation. Pass" in text
    for title in ("Loss", "Training accuracy", "Learning rate", "Images per second"):
        assert f"<b>{title}</b>" in text


def test_every_validation_is_in_the_table(tmp_path):
    text = text_of(writer.write_report(whole_run(tmp_path / "demo")))
    table = text.split("All validations")[1].split("</table>")[0]
    assert table.count("<tr>") == 4 and "600 (best)" in table and "80.00 ± 1.00" in table


def test_the_interval_band_lies_inside_the_chart(tmp_path):
    lines = [validation_line(step, 0.99, accuracy_flip_interval=[0.9, 0.998]) for step in (0, 10)]
    text = text_of(writer.write_report(tiny_sets.write_run(tmp_path / "r", lines)))
    band = re.search(r'<polygon class="band c0" points="([^"]+)"', text).group(1)
    heights = [float(point.split(",")[1]) for point in band.split()]
    assert len(set(heights)) == 2 and min(heights) > charts.TOP and max(heights) < charts.BOTTOM


def test_the_norm_is_drawn_where_it_is_logged(tmp_path):
    lines = [validation_line(step, 0.9, xnorm=20.0 + step) for step in (0, 10)]
    text = text_of(writer.write_report(tiny_sets.write_run(tmp_path / "r", lines)))
    assert "<b>Embedding norm</b>" in text
    plain = [validation_line(step, 0.9) for step in (0, 10)]
    text = text_of(writer.write_report(tiny_sets.write_run(tmp_path / "old", plain)))
    assert "<b>Embedding norm</b>" not in text


def test_goodput_and_share_of_the_peak_are_drawn_where_they_are_logged(tmp_path):
    more = {"goodput_share": 0.9, "flops_per_second": 2e12, "flops_share": 0.3}
    lines = [train_line(step, **more) for step in range(10, 200, 10)]
    text = text_of(writer.write_report(tiny_sets.write_run(tmp_path / "r", lines)))
    for title in ("Goodput: share of time in steps", "Floating-point operations per second"):
        assert f"<b>{title}</b>" in text
    assert "Share of the device&#x27;s peak" in text


def test_the_last_step_and_the_last_learning_rate_are_labelled(tmp_path):
    lines = [train_line(step, learning_rate=0.00123) for step in range(10, 960, 10)]
    text = text_of(writer.write_report(tiny_sets.write_run(tmp_path / "r", lines)))
    assert ">950</text>" in text and ">0.00123</text>" in text
