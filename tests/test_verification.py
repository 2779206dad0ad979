"""verification.py against plain, slow, obviously right loops over every threshold and fold."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

import verification
from verification import evaluate


def make_pairs(pairs, dimensions=7, seed=0, noise=0.8):
    """Embeddings [2 P, D] of any length, and issame [P] with both kinds in any order."""
    random = np.random.RandomState(seed)
    issame_P = random.rand(pairs) < 0.5
    first_PD = random.randn(pairs, dimensions)
    other_PD = np.where(
        issame_P[:, None],
        first_PD + noise * random.randn(pairs, dimensions),
        random.randn(pairs, dimensions),
    )
    embeddings_ND = np.stack([first_PD, other_PD], axis=1).reshape(2 * pairs, dimensions)
    return embeddings_ND * (0.5 + 20 * random.rand(2 * pairs, 1)), issame_P


def slow_distances(embeddings_ND):
    unit_ND = embeddings_ND / np.sqrt((embeddings_ND**2).sum(axis=1, keepdims=True))
    return ((unit_ND[0::2] - unit_ND[1::2]) ** 2).sum(axis=1)


def slow_folds(pairs, folds):
    """[(train, test)] index lists: contiguous, the first ones longer."""
    tests, start = [], 0
    for fold in range(folds):
        size = pairs // folds + (fold < pairs % folds)
        tests.append(list(range(start, start + size)))
        start += size
    if folds == 1:
        return [(tests[0], tests[0])]
    return [([i for i in range(pairs) if i not in set(test)], test) for test in tests]


def slow_rates(distances, issame, threshold):
    counts = {(said, true): 0 for said in (0, 1) for true in (0, 1)}
    for distance, same in zip(distances, issame):
        counts[int(distance < threshold), int(same)] += 1
    genuine = counts[1, 1] + counts[0, 1]
    impostor = counts[1, 0] + counts[0, 0]
    tpr = counts[1, 1] / genuine if genuine else 0.0
    fpr = counts[1, 0] / impostor if impostor else 0.0
    return tpr, fpr, (counts[1, 1] + counts[0, 0]) / len(issame)


def slow_roc(distances_P, issame_P, folds):
    tprs, fprs, accuracies = [], [], []
    for train, test in slow_folds(len(issame_P), folds):
        best, best_accuracy = None, -1.0
        for threshold in np.arange(0, 4, 0.01):
            accuracy = slow_rates(distances_P[train], issame_P[train], threshold)[2]
            if accuracy > best_accuracy:
                best, best_accuracy = threshold, accuracy
        rates = [
            slow_rates(distances_P[test], issame_P[test], threshold)
            for threshold in np.arange(0, 4, 0.01)
        ]
        tprs.append([rate[0] for rate in rates])
        fprs.append([rate[1] for rate in rates])
        accuracies.append(slow_rates(distances_P[test], issame_P[test], best)[2])
    return np.mean(tprs, axis=0), np.mean(fprs, axis=0), np.array(accuracies)


def slow_threshold(far, thresholds, target):
    """SciPy <= 1.9's interp1d(far, thresholds, kind="slinear")(target): from the last
    point with far <= target, straight to the next; 0 where no point reaches the target."""
    if max(far) < target:
        return 0.0
    last = max(i for i, value in enumerate(far) if value <= target)
    if last == len(far) - 1:
        return thresholds[last] if far[last - 1] < far[last] else 0.0
    share = (target - far[last]) / (far[last + 1] - far[last])
    return thresholds[last] + share * (thresholds[last + 1] - thresholds[last])


def slow_rates_at_far(distances_P, issame_P, folds, target):
    """(TAR of each fold, achieved FAR of each fold)."""
    thresholds, tars, fars = np.arange(0, 4, 0.001), [], []
    for train, test in slow_folds(len(issame_P), folds):
        impostor = distances_P[train][~issame_P[train]]
        far = [np.mean(impostor < threshold) for threshold in thresholds]
        limit = slow_threshold(far, thresholds, target)
        tars.append(np.mean(distances_P[test][issame_P[test]] < limit))
        fars.append(np.mean(distances_P[test][~issame_P[test]] < limit))
    return tars, fars


@pytest.mark.parametrize("pairs, folds", [(60, 10), (67, 10), (23, 3), (31, 1)])
def test_folds_rates_and_accuracy_are_those_of_the_plain_loop(pairs, folds):
    embeddings_ND, issame_P = make_pairs(pairs, seed=pairs)
    tpr, fpr, accuracies = slow_roc(slow_distances(embeddings_ND), issame_P, folds)
    result = evaluate(embeddings_ND, issame_P, folds)
    np.testing.assert_allclose(result.accuracies, accuracies, atol=1e-12)
    np.testing.assert_allclose(result.tpr, tpr, atol=1e-12)
    np.testing.assert_allclose(result.fpr, fpr, atol=1e-12)
    assert result.accuracy == np.mean(accuracies)
    assert result.accuracy_std == np.std(accuracies)


def test_embeddings_are_taken_as_they_are_when_not_normalising():
    embeddings_ND, issame_P = make_pairs(40, seed=3)
    embeddings_ND /= 9.0
    raw_P = ((embeddings_ND[0::2] - embeddings_ND[1::2]) ** 2).sum(axis=1)
    _, _, accuracies = slow_roc(raw_P, issame_P, 10)
    np.testing.assert_allclose(
        evaluate(embeddings_ND, issame_P, normalise=False).accuracies, accuracies
    )


@pytest.mark.parametrize("target", [0.1, 0.01, 0.001])
def test_tar_at_far_is_that_of_the_plain_loop(target):
    embeddings_ND, issame_P = make_pairs(212, seed=5, noise=1.2)
    tars, _ = slow_rates_at_far(slow_distances(embeddings_ND), issame_P, 10, target)
    assert abs(evaluate(embeddings_ND, issame_P).tar_at_far[target] - np.mean(tars)) < 1e-6


def test_threshold_at_far_of_a_curve_with_ties():
    far = [0.0, 0.0, 0.2, 0.2, 0.2, 0.6, 0.6, 0.8]
    thresholds = np.arange(8) * 0.5
    for target in (0.0, 0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.9):
        found = verification.threshold_at_far(np.array(far), target, thresholds)
        assert abs(found - slow_threshold(far, thresholds, target)) < 1e-9


def test_threshold_is_zero_when_the_target_exceeds_the_curve():
    assert verification.threshold_at_far(np.array([0.0, 0.1, 0.1]), 0.5, np.arange(3.0)) == 0.0


@pytest.mark.parametrize("target", [0.1, 0.001])
def test_tar_std_and_achieved_far_are_those_of_the_held_out_folds(target):
    embeddings_ND, issame_P = make_pairs(212, seed=5, noise=1.2)
    distances_P = slow_distances(embeddings_ND)
    tars, fars = slow_rates_at_far(distances_P, issame_P, 10, target)
    result = evaluate(embeddings_ND, issame_P)
    assert abs(result.tar_std[target] - np.std(tars)) < 1e-6
    assert abs(result.achieved_far[target] - np.mean(fars)) < 1e-6


def test_a_target_that_the_pairs_cannot_show_is_left_out():
    embeddings_ND, issame_P = make_pairs(60)
    assert sorted(evaluate(embeddings_ND, issame_P).tar_at_far) == [0.001, 0.1]


def test_mirrored_embeddings_are_added_before_normalising():
    embeddings_ND, issame_P = make_pairs(50, seed=1)
    mirrored_ND = make_pairs(50, seed=2)[0]
    both = evaluate(embeddings_ND, issame_P, mirrored_ND=mirrored_ND)
    summed = evaluate(embeddings_ND + mirrored_ND, issame_P)
    assert np.array_equal(both.accuracies, summed.accuracies)


def test_threshold_is_the_mean_of_the_folds_and_said_as_a_cosine():
    result = evaluate(*make_pairs(50, seed=4))
    assert result.threshold == np.mean(result.best_thresholds)
    assert result.cosine == 1 - result.threshold / 2


def test_auc_and_eer_are_those_of_counting():
    distances_P = np.array([0.1, 0.4, 0.4, 0.9, 0.4, 0.7, 1.5])
    issame_P = np.array([True, True, True, True, False, False, False])
    wins = [
        1.0 if g < i else 0.5 if g == i else 0.0
        for g in distances_P[issame_P]
        for i in distances_P[~issame_P]
    ]
    auc, eer = verification.auc_and_eer(distances_P, issame_P)
    assert abs(auc - np.mean(wins)) < 1e-12
    # from (FAR, TAR) = (0, 1/4) to (1/3, 3/4), FAR meets 1 - TAR at nine tenths of the way
    assert abs(eer - 0.3) < 1e-12


def test_eer_is_zero_when_the_pairs_separate():
    distances_P, issame_P = np.array([0.1, 0.2, 0.8, 0.9]), np.array([True, True, False, False])
    assert verification.auc_and_eer(distances_P, issame_P) == (1.0, 0.0)


def test_roc_curve_joins_ties_into_one_point():
    far, tar, distance = verification.roc_curve(
        np.array([0.5, 0.5, 1.0]), np.array([True, False, False])
    )
    assert far.tolist() == [0.0, 0.5, 1.0]
    assert tar.tolist() == [0.0, 1.0, 1.0]
    assert distance.tolist() == [0.0, 0.5, 1.0]


def test_bootstrap_interval_holds_the_mean_and_repeats():
    values = np.array([0.9, 0.95, 0.97, 0.99, 0.91])
    low, high = verification.bootstrap_interval(values)
    assert values.min() <= low < values.mean() < high <= values.max()
    assert (low, high) == verification.bootstrap_interval(values)


def test_a_zero_embedding_is_left_zero():
    embeddings_ND = np.array([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0], [2.0, 0.0]])
    assert verification.pair_distances(embeddings_ND).tolist() == [1.0, 0.0]


def test_any_number_of_pairs_gives_the_same_distances():
    embeddings_ND, _ = make_pairs(2 * verification.PAIRS_PER_BLOCK + 3, dimensions=3)
    one_by_one = [
        verification.pair_distances(embeddings_ND[2 * i : 2 * i + 2])[0]
        for i in range(len(embeddings_ND) // 2)
    ]
    assert np.array_equal(verification.pair_distances(embeddings_ND), one_by_one)


@pytest.mark.parametrize(
    "embeddings, issame, folds, words",
    [
        (0, [], 10, "0 pairs"),
        (6, [True] * 3, 3, "all 3 pairs are of the same person"),
        (6, [False] * 3, 3, "all 3 pairs are of different people"),
        (6, [True, False, True], 10, "3 pairs do not make 10 folds"),
        (6, [True, False, True], 0, "0 folds"),
        (8, [True, False, True], 3, "8 embeddings do not make 3 pairs"),
        (6, [True, 2, False], 3, "issame"),
    ],
)
def test_refuses_in_one_sentence(embeddings, issame, folds, words):
    embeddings_ND = np.random.RandomState(0).randn(embeddings, 5)
    with pytest.raises(ValueError, match=words):
        evaluate(embeddings_ND, issame, folds)


def test_names_the_rows_that_hold_nan():
    embeddings_ND, issame_P = make_pairs(20)
    embeddings_ND[[7, 31]] = np.nan
    with pytest.raises(ValueError, match=r"2 of 40 embeddings .*rows 7, 31"):
        evaluate(embeddings_ND, issame_P)


def test_importing_needs_neither_tensorflow_nor_scipy():
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['scipy'] = None; "
        "import verification; assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_roc_of_6000_pairs_is_fifty_times_faster_than_the_peers_loop():
    distances_P = np.random.RandomState(0).rand(6000) * 4
    issame_P = np.arange(6000) % 2 == 0
    fold_P = verification.fold_of_pair(6000, 10)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        verification._accepted(distances_P, issame_P, fold_P, 10, verification.THRESHOLDS)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.41 / 50


def test_script_prints_and_writes_what_evaluate_says(tmp_path, capsys):
    embeddings_ND, issame_P = make_pairs(40)
    np.save(str(tmp_path / "e.npy"), embeddings_ND)
    np.save(str(tmp_path / "s.npy"), issame_P)
    flags = ["--embeddings", str(tmp_path / "e.npy"), "--issame", str(tmp_path / "s.npy")]
    flags += ["--json", str(tmp_path / "out.json"), "--plot", str(tmp_path / "roc.png")]
    verification.main(flags)
    result = evaluate(embeddings_ND, issame_P)
    assert f"{result.accuracy:.5f}" in capsys.readouterr().out
    assert json.load(open(str(tmp_path / "out.json")))["accuracy"] == result.accuracy
    assert (tmp_path / "roc.png").stat().st_size > 1000


def test_script_refuses_a_file_that_is_no_array(tmp_path):
    path = tmp_path / "e.npy"
    path.write_bytes(b"no array")
    done = subprocess.run(
        [sys.executable, "verification.py", "--embeddings", str(path), "--issame", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert done.returncode == 2
    assert b"is not a whole .npy" in done.stderr
