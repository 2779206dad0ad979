"""Rates by group against loops over pairs."""

import json

import numpy as np
import pytest

from evaluation import groups
from evaluation.groups import Groups, group_lines, group_report, read_groups, to_json


def grouped_scores(pairs=3000, seed=0, harder=0.0, count=3):
    """(distances, issame, identities, Groups): 90 identities in `count` groups; impostor pairs
    within group 0 are closer by `harder`."""
    random = np.random.RandomState(seed)
    first = random.randint(90, size=pairs)
    issame_P = np.arange(pairs) % 3 == 0
    second = np.where(issame_P, first, (first + random.randint(1, 90, size=pairs)) % 90)
    identity_P2 = np.stack([first, second], axis=1)
    group_P2 = identity_P2 % count
    within_P = ~issame_P & (group_P2 == 0).all(axis=1)
    distances_P = random.normal(np.where(issame_P, 1.0, 1.8 - harder * within_P), 0.3)
    names = [f"group {i}" for i in range(count)]
    return np.clip(distances_P, 0, 4), issame_P, identity_P2, Groups(names, group_P2.ravel())


def csv_file(tmp_path, text):
    path = tmp_path / "groups.csv"
    path.write_text(text)
    return str(path)


def test_rates_and_cross_rates_are_those_of_a_loop_over_pairs():
    distances_P, issame_P, identity_P2, of = grouped_scores()
    report = group_report(distances_P, issame_P, identity_P2, of, 0.05)
    limit, group_P2 = report.point.squared_l2, of.group_N.reshape(-1, 2)
    for i in range(3):
        genuine = [
            d >= limit for d, s, g in zip(distances_P, issame_P, group_P2) if s and g[0] == i
        ]
        assert report.groups[i].fnmr.rate == np.mean(genuine)
        for j in range(3):
            impostor = [
                d < limit
                for d, s, g in zip(distances_P, issame_P, group_P2.tolist())
                if not s and sorted(g) == sorted((i, j))
            ]
            assert report.cross_fmr[i][j].rate == np.mean(impostor)
    assert report.groups[1].fmr == report.cross_fmr[1][1]


def test_differences_are_their_formulas():
    fmr, fnmr = np.array([[0.01, 0.03, 0.02]]), np.array([[0.1, 0.1, 0.4]])
    assert abs(groups.fmr_ratio(fmr, fnmr)[0] - 3) < 1e-12
    assert abs(groups.fnmr_ratio(fmr, fnmr)[0] - 4) < 1e-12
    fdr = groups.fairness_discrepancy_rate(fmr, fnmr)[0]
    assert abs(fdr - (1 - 0.5 * 0.02 - 0.5 * 0.3)) < 1e-12

    def gini(x):
        apart = sum(abs(a - b) for a in x for b in x)
        return len(x) / (len(x) - 1) * apart / (2 * len(x) ** 2 * np.mean(x))

    expected = 0.5 * gini(fmr[0]) + 0.5 * gini(fnmr[0])
    assert abs(groups.garbe(fmr, fnmr)[0] - expected) < 1e-12


def test_equal_rates_have_no_difference():
    same = np.full((1, 4), 0.2)
    assert groups.garbe(same, same)[0] == 0.0
    assert groups.fairness_discrepancy_rate(same, same)[0] == 1.0
    assert groups.fmr_ratio(same, same)[0] == 1.0


def test_a_group_without_errors_makes_the_ratio_infinite():
    assert np.isinf(groups.fmr_ratio(np.array([[0.0, 0.1]]), np.zeros((1, 2)))[0])


def test_resampled_rates_are_those_of_a_loop_over_rounds(monkeypatch):
    monkeypatch.setattr(groups, "ROUNDS", 3)
    distances_P, issame_P, identity_P2, of = grouped_scores(600)
    wrong_P, group_P2 = (distances_P < 1.4) != issame_P, of.group_N.reshape(-1, 2)
    fmr_RG, fnmr_RG = groups._resampled_rates(wrong_P, issame_P, identity_P2, group_P2, 3)
    random = np.random.RandomState(0)
    for fmr_G, fnmr_G in zip(fmr_RG, fnmr_RG):
        drawn = np.bincount(random.randint(90, size=90), minlength=90)
        for group in range(3):
            inside = (group_P2 == group).all(axis=1)
            weights = drawn[identity_P2].sum(axis=1) - 1
            rate = np.average(wrong_P[inside & ~issame_P], weights=weights[inside & ~issame_P])
            assert abs(fmr_G[group] - min(max(rate, 0), 1)) < 1e-9
            genuine = inside & issame_P
            rate = np.average(wrong_P[genuine], weights=drawn[identity_P2[genuine, 0]])
            assert abs(fnmr_G[group] - rate) < 1e-9


def test_intervals_of_a_difference_hold_the_truth_in_most_simulated_sets():
    big, held = grouped_scores(200000, 9, harder=0.3), 0
    truth = group_report(*big, 0.1).fmr_ratio.value
    for seed in range(20):
        low, high = group_report(*grouped_scores(3000, seed, harder=0.3), 0.1).fmr_ratio.interval
        held += low <= truth <= high
    assert held >= 17  # the highest and lowest group are chosen by the sample: not exact


def test_fewer_than_30_errors_are_a_warning():
    few = group_report(*grouped_scores(300), 0.05)
    many = group_report(*grouped_scores(20000), 0.1)
    assert any("30 are needed" in text for text in few.warnings) and not many.warnings


def test_a_group_without_impostor_pair_is_a_warning_and_has_no_rate():
    distances_P, issame_P, identity_P2, of = grouped_scores(count=2)
    group_N = np.where(np.repeat(~issame_P, 2) & (of.group_N == 1), -1, of.group_N)
    report = group_report(distances_P, issame_P, identity_P2, of._replace(group_N=group_N), 0.05)
    assert report.groups[1].fmr.rate is None and report.fmr_ratio.value is None
    assert any("has no impostor pair" in text for text in report.warnings)
    assert any("without a group" in text for text in report.warnings)
    json.dumps(to_json(report), allow_nan=False)


def test_lines_name_the_threshold_each_group_and_each_figure():
    text = "\n".join(group_lines(group_report(*grouped_scores(), 0.05)))
    assert all(word in text for word in ("threshold", "group 2", "GARBE", "FDR", "highest"))


def test_groups_are_read_by_path_or_identity(tmp_path):
    path = csv_file(tmp_path, "path,group\na.jpg,x\nb.jpg,y\n")
    names, identity_N = ["a.jpg", "b.jpg", "c.jpg"], np.array([0, 1, 1])
    assert read_groups(path, names, identity_N).group_N.tolist() == [0, 1, -1]
    path = csv_file(tmp_path, "identity,group\n0,y\n1,x\n")
    assert read_groups(path, names, identity_N).group_N.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    "text, words",
    [
        ("path,group\nz.jpg,x\na.jpg,y\n", "1 of its images are not in the set: z.jpg"),
        ("identity,group\n7,x\n0,y\n", "1 of its identities are not in the set: 7"),
        ("path,group\na.jpg,x\nb.jpg,x\n", "one group only"),
        ("path,group\na.jpg,x\na.jpg,y\n", "row 3 puts a.jpg into a second group"),
        ("path,group\na.jpg\n", "row 2 is not path,group"),
        ("file,team\na.jpg,x\n", "its first line must be"),
        ("", "its first line must be"),
        ("path,group\n", "names no image"),
    ],
)
def test_a_file_of_groups_that_does_not_fit_is_an_error(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        read_groups(csv_file(tmp_path, text), ["a.jpg", "b.jpg"], np.array([0, 1]))


def test_a_missing_file_of_groups_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="is not a file"):
        read_groups(str(tmp_path / "none.csv"), ["a"], np.array([0]))


def test_an_fmr_that_the_pairs_cannot_show_names_the_lowest():
    with pytest.raises(ValueError, match="the lowest FMR .* is 0.0005"):
        group_report(*grouped_scores(3000), 1e-6)


def test_a_genuine_pair_of_two_groups_is_an_error():
    distances_P, issame_P, identity_P2, of = grouped_scores()
    group_N = of.group_N.copy()
    group_N[0] = (group_N[0] + 1) % 3
    with pytest.raises(ValueError, match="pair 0 is of one identity"):
        group_report(distances_P, issame_P, identity_P2, of._replace(group_N=group_N), 0.05)


def test_scores_that_are_not_finite_are_an_error():
    distances_P, issame_P, identity_P2, of = grouped_scores()
    distances_P[3] = np.nan
    with pytest.raises(ValueError, match="1 of 3000 scores are not finite"):
        group_report(distances_P, issame_P, identity_P2, of, 0.05)
