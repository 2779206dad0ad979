"""The table of evaluated checkpoints."""

import csv

import pytest

from evaluation.result_table import notes, table, write_csv
from tests.evaluation.report.tiny_scores import gaussian_result


@pytest.fixture(scope="module")
def rows():
    row = gaussian_result().row()
    low = dict(row, checkpoint="ckpt/a.ckpt", step=1, accuracy_flip=row["accuracy_flip"] - 0.1)
    return [low, dict(row, checkpoint="ckpt/b.ckpt", step=2)]


def test_the_highest_accuracy_of_a_set_is_marked(rows):
    lines = table(rows).splitlines()
    assert [" * " in line for line in lines] == [False, False, True]
    assert lines[1].startswith("a.ckpt") and notes(rows).startswith("* the highest")


def test_a_set_with_few_impostor_pairs_is_marked(rows):
    few = [dict(rows[0], impostor=300)]
    assert " ~ " in table(few) and "fewer than 1,000 impostor pairs" in notes(few)
    assert " ~ " not in table(rows[:1])


def test_a_csv_has_a_column_per_far_and_per_end_of_the_interval(rows, tmp_path):
    write_csv(str(tmp_path / "e.csv"), rows)
    lines = list(csv.DictReader(open(str(tmp_path / "e.csv"))))
    assert float(lines[1]["tar_at_far_0.001"]) == rows[1]["tar_at_far"]["0.001"]
    assert float(lines[0]["accuracy_flip_low"]) == rows[0]["accuracy_flip_interval"][0]


def test_a_table_wider_than_the_terminal_is_a_block_per_row(rows):
    lines = table(rows, width=60).splitlines()
    assert max(map(len, lines)) <= 60 and lines.count("") == 1
    assert lines[0].split() == ["checkpoint", "a.ckpt"]
    assert table(rows, width=500) == table(rows)


def test_the_checkpoint_with_the_highest_mean_over_sets_is_named(rows):
    both = rows + [dict(row, set="cfp_fp") for row in rows]
    assert f"highest mean Accuracy-Flip: b.ckpt, {rows[1]['accuracy_flip']:.5f}" in notes(both)
    assert "highest mean" not in notes(rows)
