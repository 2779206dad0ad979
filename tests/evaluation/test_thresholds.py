import json

import numpy as np
import pytest

from evaluation.error_rates import operating_points
from evaluation.thresholds import read_thresholds, set_thresholds, write_thresholds
from evaluation.verification_set import VerificationSet
from tests.evaluation import tiny_sets


@pytest.fixture
def scored(tmp_path):
    tiny_sets.write_set(tmp_path / "lfw.bin", pairs=40)
    pairs = VerificationSet.open(str(tmp_path / "lfw.bin"))
    return pairs, pairs.evaluate(tiny_sets.FAKE_NET)


def test_thresholds_come_back(tmp_path, scored):
    pairs, result = scored
    found = set_thresholds(result, pairs.identity_N)
    write_thresholds(str(tmp_path / "thresholds.json"), "InsightFace_iter_3.ckpt", [found])
    assert read_thresholds(str(tmp_path / "thresholds.json")) == {"lfw": found}


def test_points_are_those_of_the_set_with_an_interval_by_identity_each(scored):
    pairs, result = scored
    found = set_thresholds(result, pairs.identity_N)
    assert found.points == operating_points(result.distances_P, result.issame_P)
    assert len(found.identity_intervals) == len(found.points) == 1
    low, high = found.curve_intervals["eer"]
    assert low <= found.eer <= high and set(found.curve_intervals) == {"eer", "d_prime"}
    assert found.impostor == 20 and found.lowest_fmr == 0.05


def test_without_identities_there_is_no_interval_by_identity(scored):
    assert set_thresholds(scored[1]).identity_intervals == []


def test_a_verification_at_the_written_threshold_gives_the_written_rates(tmp_path, scored):
    _, result = scored
    path = str(tmp_path / "thresholds.json")
    write_thresholds(path, "m", [set_thresholds(result)])
    point = read_thresholds(path)["lfw"].points[0]
    match_P = result.distances_P < point.squared_l2
    assert np.mean(match_P[~result.issame_P]) == point.fmr
    assert np.mean(~match_P[result.issame_P]) == point.fnmr


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other"}', '{"sets": [1]}'])
def test_another_file_is_an_error_that_names_it(tmp_path, content):
    path = tmp_path / "thresholds.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="thresholds.json is not a thresholds.json of this"):
        read_thresholds(str(path))


def test_the_file_names_its_model_and_its_score(tmp_path, scored):
    write_thresholds(str(tmp_path / "t.json"), "a.ckpt", [set_thresholds(scored[1])])
    content = json.loads((tmp_path / "t.json").read_text())
    assert content["model"] == "a.ckpt" and "squared L2" in content["score"]
