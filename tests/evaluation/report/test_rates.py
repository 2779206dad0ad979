"""Operating points, calibration, quality and groups of the report."""

import numpy as np
import pytest

from evaluation.error_rates import operating_points
from evaluation.groups import Groups, group_report
from evaluation.report.rates import (
    SetExtras,
    groups_section,
    operating_section,
    trust_section,
)
from tests.evaluation.report.tiny_scores import gaussian_result


@pytest.fixture(scope="module")
def saved():
    return gaussian_result().saved(step=7)


def groups_of(saved, names=("a<b", "c")):
    groups = Groups(list(names), saved.identity_N % 2)
    identity_P2 = saved.identity_N.reshape(-1, 2)
    return group_report(saved.distances_P, saved.issame_P, identity_P2, groups, 0.01)


def test_the_card_has_a_row_per_target_with_its_threshold(saved):
    text = operating_section({"lfw": saved})
    points = operating_points(saved.distances_P, saved.issame_P)
    assert text.count("<tr><th>0.") == len(points) == 3
    assert all(f"{point.squared_l2:.4f}" in text for point in points)
    assert "the lowest FMR that they can show is 0.001" in text


def test_the_card_marks_fewer_than_30_errors(saved):
    rows = operating_section({"lfw": saved}).split("<tr><th>")
    assert "~ 0.10 %" in rows[-1] and "~ 1.00" in rows[-2] and "~ 10.00" not in rows[-3]


def test_eer_and_d_prime_have_an_interval_where_identities_are_known(saved):
    with_them = operating_section({"lfw": saved})
    without = operating_section({"lfw": saved._replace(identity_N=None)})
    assert "d' 3." in with_them and with_them.count(" to ") == without.count(" to ") + 2


def test_reliability_and_discard_charts_are_drawn(saved):
    text = trust_section({"lfw": saved})
    assert "<b>Reliability</b>" in text and "<b>Error versus discard, embedding norm</b>" in text
    assert "Cllr" in text and "at a prior of 50 %" in text


def test_the_sign_of_the_norm_is_the_measured_one(saved):
    assert "embedding norm: high is good" in trust_section({"lfw": saved})
    turned = saved._replace(norms_N=-saved.norms_N)
    assert "embedding norm: low is good" in trust_section({"lfw": turned})


def test_files_of_earlier_versions_without_norms_have_no_chart(saved):
    old = saved._replace(norms_N=None, identity_N=None)
    assert trust_section({"lfw": old}) == ""


def test_groups_are_a_table_with_escaped_names(saved):
    text = groups_section({"lfw": SetExtras((), groups_of(saved))})
    assert "a&lt;b" in text and "a<b" not in text
    assert "GARBE" in text and text.count("<table>") == 2
    assert groups_section({"lfw": SetExtras()}) == ""


def test_a_group_without_pairs_is_a_dash(saved):
    group_N = np.where(saved.identity_N % 2 == 1, -1, 0)
    groups = Groups(["a", "b"], group_N)
    identity_P2 = saved.identity_N.reshape(-1, 2)
    report = group_report(saved.distances_P, saved.issame_P, identity_P2, groups, 0.01)
    assert "–" in groups_section({"lfw": SetExtras((), report)})
