"""Error rates against slow loops and closed forms (Gaussian scores)."""

import math

import numpy as np
import pytest

import verification
from evaluation.error_rates import (
    binomial_interval,
    d_prime,
    lowest_fmr,
    operating_points,
    rates_at,
)


def scores(genuine=70, impostor=130, seed=0, digits=2):
    """Distances with ties, genuine ones lower."""
    random = np.random.RandomState(seed)
    distances_P = np.append(random.normal(1.0, 0.3, genuine), random.normal(1.8, 0.3, impostor))
    order = random.permutation(genuine + impostor)
    issame_P = np.arange(genuine + impostor) < genuine
    return np.clip(np.round(distances_P, digits), 0, 4)[order], issame_P[order]


def normal_cdf(x):
    return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0)))


def binomial_tail(errors, trials, rate):
    """P(X >= errors)."""
    return sum(
        math.exp(
            math.lgamma(trials + 1)
            - math.lgamma(k + 1)
            - math.lgamma(trials - k + 1)
            + k * math.log(rate)
            + (trials - k) * math.log1p(-rate)
        )
        for k in range(errors, trials + 1)
    )


@pytest.mark.parametrize("seed", range(4))
def test_fnmr_at_fmr_is_the_lowest_that_a_loop_over_thresholds_finds(seed):
    distances_P, issame_P = scores(seed=seed)
    for point in operating_points(distances_P, issame_P, (0.3, 0.1, 0.01)):
        best = 1.0
        for threshold in np.append(distances_P, 5.0):
            fmr = np.mean([d < threshold for d in distances_P[~issame_P]])
            if fmr <= point.fmr_target:
                best = min(best, np.mean([d >= threshold for d in distances_P[issame_P]]))
        assert point.fnmr == best and point.fmr <= point.fmr_target


def test_a_point_gives_the_counts_and_the_cosine_of_its_threshold():
    distances_P, issame_P = scores()
    point = operating_points(distances_P, issame_P, (0.1,))[0]
    assert point.false_matches == (distances_P[~issame_P] < point.squared_l2).sum()
    assert point.false_non_matches == (distances_P[issame_P] >= point.squared_l2).sum()
    assert point.cosine == 1 - point.squared_l2 / 2


def test_rates_of_gaussian_scores_are_those_of_the_closed_form():
    distances_P, issame_P = scores(200000, 200000, digits=12)
    at = {point.fmr_target: point for point in operating_points(distances_P, issame_P)}
    for target, z in ((0.1, -1.2815515655), (0.01, -2.3263478740), (0.001, -3.0902323062)):
        low, high = at[target].fnmr_interval
        expected = 1 - normal_cdf((1.8 + 0.3 * z - 1.0) / 0.3)
        spread = high - low  # the threshold is estimated, too, so more than the interval itself
        assert low - 2 * spread < expected < high + 2 * spread
    assert abs(d_prime(distances_P, issame_P) - 0.8 / 0.3) < 0.02
    eer = verification.auc_and_eer(distances_P, issame_P)[1]
    assert abs(eer - normal_cdf(-0.8 / 0.6)) < 0.002


def test_targets_below_one_false_match_are_omitted():
    distances_P, issame_P = scores(70, 130)
    assert [p.fmr_target for p in operating_points(distances_P, issame_P)] == [0.1, 0.01]
    assert lowest_fmr(issame_P) == 1 / 130


def test_a_target_that_is_a_whole_number_of_errors_is_reached():
    distances_P = np.append(np.linspace(1, 2, 30), 0.5)
    issame_P = np.arange(31) == 30
    assert operating_points(distances_P, issame_P, (0.1,))[0].false_matches == 3


def test_fewer_than_30_errors_are_not_reliable():
    few, many = scores(70, 130), scores(7000, 13000)
    assert not operating_points(*few, targets=(0.01,))[0].reliable
    assert operating_points(*many, targets=(0.01,))[0].reliable


def test_constant_scores_match_nothing():
    point = operating_points(np.ones(40), np.arange(40) < 20, (0.1,))[0]
    assert (point.fmr, point.fnmr) == (0.0, 1.0)
    assert d_prime(np.ones(40), np.arange(40) < 20) == 0.0


def test_rates_at_a_given_threshold():
    distances_P, issame_P = scores()
    point = rates_at(distances_P, issame_P, 1.4)
    assert point.fmr == np.mean(distances_P[~issame_P] < 1.4) == point.fmr_target


@pytest.mark.parametrize(
    "distances_P, issame_P, words",
    [
        ([0.1, np.nan, 0.3], [True, False, True], "1 of 3 scores are not finite"),
        ([0.1, 0.2], [True, True], "all 2 pairs are genuine pairs"),
        ([0.1, 0.2], [False, False], "all 2 pairs are impostor pairs"),
    ],
)
def test_scores_without_a_rate_are_an_error(distances_P, issame_P, words):
    with pytest.raises(ValueError, match=words):
        operating_points(np.array(distances_P), np.array(issame_P))


@pytest.mark.parametrize("errors, trials", [(1, 10), (3, 50), (7, 8), (40, 300), (299, 300)])
def test_the_ends_of_an_exact_interval_have_tails_of_a_fortieth(errors, trials):
    low, high = binomial_interval(errors, trials)
    assert abs(binomial_tail(errors, trials, low) - 0.025) < 1e-8
    assert abs(1 - binomial_tail(errors + 1, trials, high) - 0.025) < 1e-8


def test_the_interval_of_no_error_is_the_rule_of_three():
    low, high = binomial_interval(0, 1000)
    assert low == 0.0 and abs(high - (1 - 0.025 ** (1 / 1000.0))) < 1e-12
    assert binomial_interval(1000, 1000)[1] == 1.0


def test_the_interval_of_a_million_pairs_is_narrow_and_quick():
    low, high = binomial_interval(1000, 1000000)
    assert 0.93e-3 < low < 0.945e-3 and 1.06e-3 < high < 1.07e-3


def test_exact_intervals_hold_the_truth_in_95_of_100_simulated_sets():
    random, intervals = np.random.RandomState(0), {}
    errors = random.binomial(2000, 0.2, size=1000)
    for count in set(errors.tolist()):
        intervals[count] = binomial_interval(count, 2000)
    held = np.mean([intervals[count][0] <= 0.2 <= intervals[count][1] for count in errors.tolist()])
    assert 0.93 <= held <= 0.97


def test_the_det_of_gaussian_scores_is_a_line_of_normal_deviates():
    distances_P, issame_P = scores(100000, 100000, digits=12)
    far, tar, _ = verification.roc_curve(distances_P, issame_P)
    for z in (-2.0, -1.5, -1.0, -0.5):
        at = int(np.searchsorted(far, normal_cdf(z), "right")) - 1
        expected = 1 - normal_cdf((0.8 + 0.3 * z) / 0.3)  # both variances are 0.09
        assert abs((1 - tar[at]) - expected) < 0.01
