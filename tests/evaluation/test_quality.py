"""Quality measures against slow loops."""

import numpy as np
import pytest

from evaluation import quality
from evaluation.quality import discard_curve, image_measures, measure_quality, spearman


def scored(pairs=400, seed=0, slope=0.5):
    """(quality per image, distances, issame): a genuine pair's distance falls with its quality."""
    random = np.random.RandomState(seed)
    quality_N = random.normal(20, 3, 2 * pairs)
    issame_P = np.arange(pairs) % 2 == 0
    low_P = np.minimum(quality_N[::2], quality_N[1::2])
    distances_P = np.where(issame_P, 1.0 - slope * (low_P - 20) / 10, 1.8)
    return quality_N, np.clip(distances_P + random.normal(0, 0.05, pairs), 0, 4), issame_P


def test_a_discard_curve_is_that_of_a_loop_over_pairs():
    random = np.random.RandomState(1)
    quality_G, wrong_G = random.permutation(60).astype(float), random.rand(60) < 0.3
    curve = discard_curve(quality_G, wrong_G, (0.0, 0.1, 0.5))
    by_quality = sorted(zip(quality_G, wrong_G))
    for share, fnmr in zip(curve.discarded, curve.fnmr):
        left = by_quality[int(round(share * 60)) :]
        assert abs(fnmr - np.mean([wrong for _, wrong in left])) < 1e-12


def test_pairs_of_equal_quality_count_with_their_mean_error():
    curve = discard_curve(np.ones(10), np.arange(10) < 5, (0.0, 0.5))
    assert curve.fnmr == [0.5, 0.5]


def test_a_perfect_measure_has_the_whole_gain_and_a_constant_one_none():
    wrong_G = np.arange(200) < 20
    assert abs(discard_curve(np.where(wrong_G, 0.0, 1.0), wrong_G).gain - 1) < 1e-12
    assert abs(discard_curve(np.ones(200), wrong_G).gain) < 1e-12


def test_pair_quality_is_the_lower_one():
    assert quality.pair_quality(np.array([3.0, 1.0, 2.0, 5.0])).tolist() == [1.0, 2.0]


def test_spearman_is_the_correlation_of_ranks_with_ties():
    random = np.random.RandomState(2)
    first, second = random.randint(6, size=50), random.randint(6, size=50)

    def slow_ranks(x):
        return [np.mean([i for i, v in enumerate(sorted(x)) if v == one]) for one in x]

    expected = np.corrcoef(slow_ranks(first), slow_ranks(second))[0, 1]
    assert abs(spearman(first, second) - expected) < 1e-12
    assert spearman(np.ones(5), np.arange(5)) == 0.0


@pytest.mark.parametrize("turned", [1, -1])
def test_the_sign_of_a_measure_is_measured(turned):
    quality_N, distances_P, issame_P = scored()
    found = measure_quality("norm", turned * quality_N, distances_P, issame_P, 1.1)
    assert found.sign == turned and found.correlation * turned > 0.5
    assert found.curve.gain > 0.8  # the worst pairs are discarded first with either sign


def test_a_measure_without_information_has_no_sign():
    _, distances_P, issame_P = scored()
    found = measure_quality("noise", np.random.RandomState(5).rand(800), distances_P, issame_P, 1.1)
    assert found.sign == 0
    assert "no measurable direction" in quality.quality_lines([found])[0]


def test_the_interval_of_a_correlation_holds_the_truth_in_95_of_100_sets():
    random, held = np.random.RandomState(6), 0
    for _ in range(1000):
        a = random.normal(size=80)
        b = 0.5 * a + np.sqrt(0.75) * random.normal(size=80)
        low, high = quality.correlation_interval(spearman(a, b), 80)
        held += low <= 6 / np.pi * np.arcsin(0.25) <= high  # closed form for normal values
    assert 930 <= held <= 970


def test_a_blurred_image_is_less_sharp():
    sharp = np.random.RandomState(0).randint(0, 255, (2, 16, 20, 3)).astype(np.uint8)
    smooth = np.full((1, 16, 20, 3), 90, np.uint8)
    found = image_measures(np.concatenate([sharp, smooth]))
    assert found["sharpness"][2] == 0.0 < found["sharpness"].min(initial=9, where=[1, 1, 0])
    assert abs(found["brightness"][2] - 90) < 1


@pytest.mark.parametrize(
    "values, words",
    [([1.0, 2.0], "2 values for 800 images"), ([np.nan] * 800, "800 of 800 values")],
)
def test_values_that_do_not_fit_are_an_error(values, words):
    _, distances_P, issame_P = scored()
    with pytest.raises(ValueError, match=words):
        measure_quality("norm", np.array(values), distances_P, issame_P, 1.0)
