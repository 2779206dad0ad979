"""Calibration against slow loops and the closed form of Gaussian scores."""

import math

import numpy as np
import pytest

from evaluation import calibration
from evaluation.calibration import cllr, cross_validate, fit_isotonic, fit_logistic, min_cllr


def gaussian_scores(pairs, seed=0, digits=9):
    """Genuine N(0.6, 0.2), impostor N(0.1, 0.2), three impostors for each genuine pair."""
    random = np.random.RandomState(seed)
    issame_P = np.arange(pairs) % 4 == 0
    means_P = np.where(issame_P, 0.6, 0.1)
    return np.round(means_P + 0.2 * random.standard_normal(pairs), digits), issame_P


def true_llr(scores_P):
    """Equal variances: (0.6 - 0.1) / 0.2^2 * (score - 0.35)."""
    return 12.5 * (scores_P - 0.35)


def slow_isotonic(scores_P, issame_P):
    """max over starts of min over ends of the mean, for each score (Robertson, Wright, Dykstra)."""
    values = sorted(set(scores_P.tolist()))
    labels = [issame_P[scores_P == value] for value in values]
    fitted = {}
    for i, value in enumerate(values):
        fitted[value] = max(
            min(np.mean(np.concatenate(labels[j : k + 1])) for k in range(i, len(values)))
            for j in range(i + 1)
        )
    return np.array([fitted[score] for score in scores_P.tolist()])


def identities(issame_P, count=40, seed=1):
    random = np.random.RandomState(seed)
    first_P = random.randint(count, size=len(issame_P))
    other_P = (first_P + random.randint(1, count, size=len(issame_P))) % count
    return np.stack([first_P, np.where(issame_P, first_P, other_P)], axis=1)


def test_logistic_recovers_the_llr_of_gaussian_scores():
    fit = fit_logistic(*gaussian_scores(200000))
    assert abs(fit.slope - 12.5) < 0.2 and abs(fit.offset + 12.5 * 0.35) < 0.1


def test_logistic_has_no_gradient_at_its_optimum():
    scores_P, issame_P = gaussian_scores(300)
    fit = fit_logistic(scores_P, issame_P)

    def loss(slope, offset):
        total = 0.0
        for kind in (True, False):
            z = slope * scores_P[issame_P == kind] + offset
            count = len(z)
            target = (count + 1.0) / (count + 2.0) if kind else 1.0 / (count + 2.0)
            total += np.mean(np.log(1 + np.exp(z)) - target * z)
        return total

    best = loss(fit.slope, fit.offset)
    for change in (-1e-3, 1e-3):
        assert loss(fit.slope + change, fit.offset) > best
        assert loss(fit.slope, fit.offset + change) > best


def test_many_scores_are_grouped_without_a_change_of_the_fit(monkeypatch):
    scores_P, issame_P = gaussian_scores(50000)
    grouped = fit_logistic(scores_P, issame_P)
    monkeypatch.setattr(calibration, "GROUPS", 100000)
    exact = fit_logistic(scores_P, issame_P)
    assert abs(grouped.slope / exact.slope - 1) < 1e-5


def test_separable_scores_have_a_finite_slope():
    fit = fit_logistic(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True]))
    assert 0 < fit.slope < 1000


def test_constant_scores_give_no_evidence():
    scores_P, issame_P = np.full(12, 0.4), np.arange(12) % 3 == 0
    assert not fit_logistic(scores_P, issame_P).llr(scores_P).any()
    assert abs(min_cllr(scores_P, issame_P) - 1.0) < 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_isotonic_is_the_max_min_formula(seed):
    scores_P, issame_P = gaussian_scores(40, seed, digits=1)
    fit = calibration._isotonic(scores_P, issame_P)
    prevalence = np.mean(issame_P)
    found_P = calibration.probability(fit.llr(scores_P), prevalence)
    np.testing.assert_allclose(found_P, slow_isotonic(scores_P, issame_P), atol=1e-12)


def test_isotonic_llrs_are_finite_and_rise():
    scores_P, issame_P = gaussian_scores(2000)
    llr_P = fit_isotonic(scores_P, issame_P).llr(np.linspace(-2, 2, 999))
    assert np.isfinite(llr_P).all() and (np.diff(llr_P) >= 0).all()


def test_cllr_is_the_loop_over_pairs():
    llr_P, issame_P = np.array([2.0, -0.5, -3.0, 0.7]), np.array([True, True, False, False])
    missed = [math.log2(1 + math.exp(-x)) for x in (2.0, -0.5)]
    false = [math.log2(1 + math.exp(x)) for x in (-3.0, 0.7)]
    assert abs(cllr(llr_P, issame_P) - (np.mean(missed) + np.mean(false)) / 2) < 1e-12


def test_cllr_of_no_evidence_is_one_bit():
    assert abs(cllr(np.zeros(6), np.arange(6) < 2) - 1.0) < 1e-12


def test_min_cllr_is_below_that_of_any_monotonic_map():
    scores_P, issame_P = gaussian_scores(4000)
    least = min_cllr(scores_P, issame_P)
    assert least <= cllr(true_llr(scores_P), issame_P)
    assert cllr(true_llr(scores_P), issame_P) - least < 0.03
    assert abs(min_cllr(scores_P**3, issame_P) - least) < 1e-9


def test_probability_is_bayes_rule():
    llr, prior = math.log(9.0), 0.25
    expected = 9.0 * 0.25 / (9.0 * 0.25 + 0.75)
    assert abs(calibration.probability(np.array([llr]), prior)[0] - expected) < 1e-12


@pytest.mark.parametrize("prior", [0.0, 1.0, -1.0, float("nan")])
def test_a_prior_out_of_range_is_an_error(prior):
    with pytest.raises(ValueError, match="prior .* is out of range"):
        calibration.probability(np.zeros(1), prior)


def test_reliability_counts_pairs_as_if_the_prior_held():
    probability_P = np.array([0.05, 0.05, 0.95, 0.95, 0.95])
    issame_P = np.array([False, True, True, False, True])
    low, high = calibration.reliability(probability_P, issame_P, prior=0.2)
    assert abs(low.weight - (0.2 / 3 + 0.8 / 2)) < 1e-12
    assert abs(low.frequency - (0.2 / 3) / (0.2 / 3 + 0.4)) < 1e-12
    assert abs(high.probability - 0.95) < 1e-12 and abs(low.weight + high.weight - 1) < 1e-12


def test_true_llrs_are_calibrated_at_every_prior():
    scores_P, issame_P = gaussian_scores(100000)
    for prior in (0.01, 0.5, 0.9):
        predicted_P = calibration.probability(true_llr(scores_P), prior)
        bars = calibration.reliability(predicted_P, issame_P, prior)
        assert calibration.expected_calibration_error(bars) < 0.01


@pytest.mark.parametrize("kind", calibration.KINDS)
def test_cross_validation_of_gaussian_scores_is_near_the_minimum(kind):
    scores_P, issame_P = gaussian_scores(8000)
    result = cross_validate(scores_P, issame_P, identities(issame_P), 0.3, kind)
    assert result.min_cllr < result.cllr < result.min_cllr + 0.1
    assert result.ece < 0.05 and result.prior == 0.3 and result.kind == kind


def test_a_pairs_own_identities_are_not_in_its_fit():
    scores_P, issame_P = gaussian_scores(400)
    identity_P2 = identities(issame_P)
    before_P = calibration.cross_validated_llr(scores_P, issame_P, identity_P2)
    mine_P = (identity_P2 == identity_P2[7, 0]).any(1) | (identity_P2 == identity_P2[7, 1]).any(1)
    changed_P = np.where(mine_P & (np.arange(400) != 7), -scores_P, scores_P)
    after_P = calibration.cross_validated_llr(changed_P, issame_P, identity_P2)
    assert before_P[7] == after_P[7] and not np.array_equal(before_P, after_P)


def test_too_few_identities_are_an_error():
    scores_P, issame_P = gaussian_scores(8)
    with pytest.raises(ValueError, match="2 identities are too few"):
        cross_validate(scores_P, issame_P, identities(issame_P, count=2), 0.5)


def test_scores_that_are_not_finite_are_an_error():
    with pytest.raises(ValueError, match="1 of 2 scores are not finite"):
        fit_logistic(np.array([np.nan, 0.1]), np.array([True, False]))
