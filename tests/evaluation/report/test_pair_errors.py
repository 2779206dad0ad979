"""Errors per pair and per identity of a tiny set."""

import csv

import numpy as np
import pytest

from evaluation.report.pair_errors import people_errors, write_pairs_report
from evaluation.verification_set import VerificationSet
from tests.evaluation import tiny_sets


@pytest.fixture
def scored(tmp_path):
    tiny_sets.write_set(tmp_path / "lfw.bin", pairs=20)
    pairs = VerificationSet.open(str(tmp_path / "lfw.bin"))
    return pairs, pairs.evaluate(tiny_sets.FAKE_NET)


def test_rejecting_every_pair_is_a_false_reject_of_each_genuine_one(scored):
    pairs, result = scored
    rows = people_errors(result, pairs.identity_N, np.zeros(20, bool))
    assert sum(row["false_rejects"] for row in rows) == result.issame_P.sum()
    assert sum(row["false_accepts"] for row in rows) == 0


def test_an_impostor_pair_counts_for_both_of_its_identities(scored):
    pairs, result = scored
    rows = people_errors(result, pairs.identity_N, np.ones(20, bool))
    assert sum(row["false_accepts"] for row in rows) == 2 * (~result.issame_P).sum()


def test_the_pairs_table_gives_the_accuracy_of_the_set(scored, tmp_path):
    pairs, result = scored
    write_pairs_report(str(tmp_path / "out"), result, pairs, "a checkpoint on lfw")
    with open(str(tmp_path / "out" / "lfw_pairs.csv"), newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 20
    assert abs(np.mean([int(row["right"]) for row in rows]) - result.flip.accuracy) < 1e-9


def test_the_page_counts_the_errors_and_escapes_its_title(scored, tmp_path):
    pairs, result = scored
    path = write_pairs_report(str(tmp_path / "out"), result, pairs, "<b>1</b> on lfw")
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    assert "of 20 pairs are wrong" in text
    assert "<b>1</b>" not in text and "&lt;b&gt;1" in text
