"""Intervals for pairs that share identities: against loops, and how often they hold the truth."""

import numpy as np
import pytest

from evaluation.error_rates import binomial_interval
from evaluation.identity_intervals import (
    PairIdentities,
    _cluster_variance,
    _fmr_variance,
    curve_intervals,
    intervals_by_identity,
)
from tests.evaluation.test_error_rates import normal_cdf

IDENTITIES, GENUINE_EACH, IMPOSTORS = 150, 4, 1500


def pair_design(seed=0, identities=IDENTITIES, each=GENUINE_EACH, impostors=IMPOSTORS):
    """(issame, identities of each pair): each identity has some genuine pairs, impostor pairs are
    of two at random."""
    random = np.random.RandomState(seed)
    own = np.repeat(np.arange(identities), each)
    first = random.randint(identities, size=impostors)
    second = (first + random.randint(1, identities, size=impostors)) % identities
    identity_P2 = np.concatenate([np.stack([own, own], 1), np.stack([first, second], 1)])
    return np.arange(len(identity_P2)) < len(own), identity_P2


def alike_scores(random, issame_P, identity_P2, spread=0.1):
    """Distances to which each identity adds its own normal effect, to impostor pairs both."""
    count = int(identity_P2.max()) + 1
    own_I, other_I = random.normal(0, spread, (2, count))
    noise_P = random.normal(0, 0.3, len(issame_P))
    first_P, second_P = identity_P2.T
    return noise_P + np.where(issame_P, 1.0 + own_I[first_P], 1.8 + (other_I[identity_P2].sum(1)))


def true_rates(threshold, spread=0.1):
    """(FMR, FNMR) of alike_scores."""
    fmr = normal_cdf((threshold - 1.8) / np.sqrt(0.09 + 2 * spread**2))
    return fmr, 1 - normal_cdf((threshold - 1.0) / np.sqrt(0.09 + spread**2))


@pytest.fixture(scope="module")
def coverage():
    """{threshold: (FMR, FNMR, FMR by the binomial interval)}: shares of 1,000 simulated sets in
    which a 95 % interval holds the truth."""
    issame_P, identity_P2 = pair_design()
    pairs, random = PairIdentities(issame_P, identity_P2), np.random.RandomState(1)
    held = {1.4: np.zeros(3), 1.15: np.zeros(3)}
    exact = {}
    for _ in range(1000):
        distances_P = alike_scores(random, issame_P, identity_P2)
        for threshold, counts in held.items():
            fmr, fnmr = true_rates(threshold)
            wrong_P = (distances_P < threshold) != issame_P
            errors = int(wrong_P[~issame_P].sum())
            if errors not in exact:
                exact[errors] = binomial_interval(errors, IMPOSTORS)
            found = intervals_by_identity(wrong_P, pairs)
            for i, (low, high) in enumerate((found.fmr, found.fnmr, exact[errors])):
                counts[i] += low <= (fmr, fnmr, fmr)[i] <= high
    return {threshold: counts / 1000 for threshold, counts in held.items()}


@pytest.mark.parametrize("threshold", [1.4, 1.15])
def test_intervals_hold_the_truth_in_95_of_100_simulated_sets(coverage, threshold):
    fmr, fnmr, _ = coverage[threshold]
    assert 0.93 <= fmr <= 0.97 and 0.93 <= fnmr <= 0.97


def test_binomial_intervals_are_too_narrow_where_pairs_share_identities(coverage):
    assert coverage[1.4][2] < 0.9


def test_curve_intervals_hold_the_truth_in_95_of_100_simulated_sets():
    issame_P, identity_P2 = pair_design(identities=60, impostors=900)
    pairs, random = PairIdentities(issame_P, identity_P2), np.random.RandomState(2)
    grid = np.linspace(0, 3, 3001)
    rates = np.array([true_rates(threshold) for threshold in grid])
    eer = rates[np.argmin(np.abs(rates[:, 0] - rates[:, 1]))].mean()
    prime = 0.8 / np.sqrt((0.09 + 2 * 0.01 + 0.09 + 0.01) / 2)
    held = np.zeros(2)
    for _ in range(150):
        found = curve_intervals(alike_scores(random, issame_P, identity_P2), pairs, rounds=200)
        held += [low <= true <= high for (low, high), true in zip(found, (eer, prime))]
    assert (held / 150 >= 0.9).all() and (held / 150 <= 0.99).all()  # 150 sets: +- 3.5 points


def test_the_variance_of_an_fmr_is_the_sum_over_pairs_that_share_an_identity():
    issame_P, identity_P2 = pair_design(identities=12, each=2, impostors=60)
    pairs = PairIdentities(issame_P, identity_P2)
    wrong_P = np.random.RandomState(3).rand(len(issame_P)) < 0.8 * (identity_P2 < 4).any(axis=1)
    wrong_Q, of_Q = wrong_P[~issame_P], [set(pair) for pair in identity_P2[~issame_P].tolist()]
    apart_Q = wrong_Q - wrong_Q.mean()
    loop = sum(apart_Q[i] * apart_Q[j] for i in range(60) for j in range(60) if of_Q[i] & of_Q[j])
    (false_I, _), (impostor_I, _) = map(pairs.per_identity, (wrong_P, np.ones(len(issame_P), bool)))
    excess_I = false_I - wrong_Q.mean() * impostor_I
    found = _fmr_variance(wrong_P, pairs, false_I, impostor_I) * 60**2
    leverage = (12 / 10.0) ** 2
    twice = excess_I @ excess_I - loop
    assert abs(found - (leverage * (loop + twice) - twice)) < 1e-9


def test_the_variance_of_an_fnmr_is_that_of_resampled_identities():
    random = np.random.RandomState(4)
    pairs_I = random.randint(4, 9, size=200).astype(float)
    wrong_I = random.binomial(pairs_I.astype(int), random.beta(1, 4, size=200)).astype(float)
    drawn = [random.randint(200, size=200) for _ in range(4000)]
    rates = [wrong_I[draw].sum() / pairs_I[draw].sum() for draw in drawn]
    assert abs(_cluster_variance(wrong_I, pairs_I) / np.var(rates) - 1) < 0.1


def test_resampled_d_primes_are_those_of_a_loop_over_rounds():
    issame_P, identity_P2 = pair_design(identities=40, each=6, impostors=400)
    distances_P = alike_scores(np.random.RandomState(5), issame_P, identity_P2)
    low, high = curve_intervals(distances_P, PairIdentities(issame_P, identity_P2), 300).d_prime
    random, primes, cosine_P = np.random.RandomState(0), [], 1 - distances_P / 2
    for _ in range(300):
        drawn_I = np.bincount(random.randint(40, size=40), minlength=40)
        parts = []
        for kind in (issame_P, ~issame_P):
            pair_P2 = drawn_I[identity_P2[kind]]
            weights = pair_P2[:, 0] if kind is issame_P else pair_P2.sum(1) - 1
            mean = np.average(cosine_P[kind], weights=weights)
            parts.append((mean, np.average((cosine_P[kind] - mean) ** 2, weights=weights)))
        primes.append((parts[0][0] - parts[1][0]) / np.sqrt((parts[0][1] + parts[1][1]) / 2))
    np.testing.assert_allclose([low, high], np.percentile(primes, [2.5, 97.5]), rtol=1e-9)


def test_independent_pairs_have_wilsons_interval():
    identity_P2 = np.array([[i, i] for i in range(100)] + [[i, i + 1] for i in range(100, 300, 2)])
    issame_P = np.arange(200) < 100
    wrong_P = np.arange(200) % 10 == 0
    low, high = intervals_by_identity(wrong_P, PairIdentities(issame_P, identity_P2)).fnmr
    assert abs(low - 0.0552) < 1e-3 and abs(high - 0.1744) < 1e-3  # 10 of 100


def test_no_error_is_bounded_by_the_number_of_identities():
    issame_P, identity_P2 = pair_design(identities=50, each=20, impostors=100)
    found = intervals_by_identity(
        np.zeros(len(issame_P), bool), PairIdentities(issame_P, identity_P2)
    )
    assert found.fnmr[0] == 0.0 and 0.06 < found.fnmr[1] < 0.08  # as of 50 trials, not 1,000


def test_repeated_pairs_of_two_identities_are_one_trial():
    first = np.repeat(np.arange(0, 80, 2), 5)
    identity_P2 = np.concatenate([[[80, 80], [81, 81]], np.stack([first, first + 1], 1)])
    issame_P = np.arange(len(identity_P2)) < 2
    wrong_P = np.append([False, True], np.repeat(np.arange(40) % 4 == 0, 5))
    low, high = intervals_by_identity(wrong_P, PairIdentities(issame_P, identity_P2)).fmr
    once = binomial_interval(10, 40)
    assert 0.8 < (high - low) / (once[1] - once[0]) < 1.1
