"""Thresholds: every spelling, the FAR that is measured and the one that cannot be."""

import numpy as np
import pytest

from serving.thresholds import Calibration, Threshold, calibrate, parse_threshold, resolve

RANDOM = np.random.RandomState(0)
CALIBRATION = Calibration(
    "set",
    np.sort(RANDOM.uniform(0.2, 0.9, 300)).astype(np.float32),
    np.sort(RANDOM.uniform(-0.5, 0.5, 1000)).astype(np.float32),
)


@pytest.mark.parametrize(
    "text, cosine", [("1.54", 0.23), ("l2:1.2", 0.4), ("cosine:0.3", 0.3), ("cosine:-1", -1.0)]
)
def test_threshold_is_read(text, cosine):
    assert parse_threshold(text) == pytest.approx(cosine)


@pytest.mark.parametrize(
    "text", ["abc", "", "5", "-1", "nan", "inf", "cosine:2", "l1:1", "cosine:"]
)
def test_threshold_is_refused(text):
    with pytest.raises(ValueError, match="neither a squared L2"):
        parse_threshold(text)


@pytest.mark.parametrize("far", [0.001, 0.01, 0.1, 0.5])
def test_far_is_reached_and_not_passed(far):
    cosine = CALIBRATION.cosine_at_far(far)
    assert CALIBRATION.far(cosine) == pytest.approx(far)
    assert CALIBRATION.far(np.nextafter(np.float32(cosine), np.float32(-1))) >= far


def test_ties_do_not_pass_the_far():
    tied = Calibration("set", np.ones(3, np.float32), np.full(10, 0.5, np.float32))
    assert tied.far(tied.cosine_at_far(0.3)) == 0.0


def test_far_below_what_the_set_can_measure_is_refused():
    with pytest.raises(ValueError, match="needs 10,000 impostor pairs, but set has 1,000"):
        resolve(None, 1e-4, CALIBRATION)


def test_without_anything_there_is_no_threshold():
    with pytest.raises(ValueError, match="calibrate"):
        resolve(None, None, None)
    with pytest.raises(ValueError, match="--far needs a calibration"):
        resolve(None, 0.1, None)


def test_threshold_and_far_exclude_each_other():
    with pytest.raises(ValueError, match="exclude"):
        resolve("1.5", 0.1, CALIBRATION)


@pytest.mark.parametrize("far", [0.0, 1.0, -0.5, float("nan")])
def test_far_out_of_range_is_refused(far):
    with pytest.raises(ValueError):
        resolve(None, far, CALIBRATION)


def test_threshold_of_a_calibrated_bank_knows_its_far_and_tar():
    threshold = resolve("cosine:0.45", None, CALIBRATION)
    assert threshold.far == pytest.approx(np.mean(CALIBRATION.impostor >= 0.45))
    assert threshold.tar == pytest.approx(np.mean(CALIBRATION.genuine >= 0.45))


def test_fpir_grows_with_the_bank():
    threshold = Threshold(0.4, 1e-3, 0.9, "set")
    assert threshold.fpir(1) == pytest.approx(1e-3)
    assert threshold.fpir(1000) == pytest.approx(1 - 0.999**1000)
    assert Threshold(0.4, None, None, None).fpir(10) is None


def test_calibrate_splits_the_pairs():
    rows = np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 3, 3]]
    result = calibrate("set", rows, np.array([True, False, True]))
    assert result.genuine.tolist() == [1, 1] and result.impostor.tolist() == [0]


def test_calibrate_needs_both_kinds_of_pairs():
    with pytest.raises(ValueError, match="different people"):
        calibrate("set", np.eye(2, dtype=np.float32), np.array([True]))


def test_histogram_shares_sum_to_one():
    shares = CALIBRATION.histogram()
    assert sum(shares["genuine"]) == pytest.approx(1) and sum(shares["impostor"]) == pytest.approx(
        1
    )
    assert len(shares["edges"]) == len(shares["genuine"]) + 1
