"""What --quality and --groups compute of a set."""

import numpy as np
import pytest

from evaluation.quality import NORM
from evaluation.set_figures import groups_of, own_measures, quality_measures
from evaluation.verification_set import VerificationSet
from tests.evaluation import tiny_sets


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("sets") / "lfw.bin")
    tiny_sets.write_set(path, pairs=240)
    pairs = VerificationSet.open(path)
    return pairs, pairs.evaluate(tiny_sets.FAKE_NET)


def test_own_measures_are_one_value_per_entry_and_equal_for_equal_images(scored):
    found = own_measures(scored[0])
    assert all(len(values) == 480 for values in found.values())
    np.testing.assert_array_equal(found["sharpness"][0:480:4], found["sharpness"][1:480:4])


def test_the_norm_is_measured_with_the_images_measures(scored):
    found = quality_measures(scored[1], own_measures(scored[0]))
    assert [one.name for one in found] == [NORM, "sharpness", "contrast", "brightness"]


def test_a_set_that_is_too_small_for_the_threshold_is_an_error(scored):
    with pytest.raises(ValueError, match="needs 1000 impostor pairs, and the set has 120"):
        quality_measures(scored[1], {}, fmr=1e-3)


def test_groups_are_read_for_the_set(scored, tmp_path):
    path = tmp_path / "g.csv"
    path.write_text("path,group\n" + "".join(f"{i},{'ab'[i // 4 % 2]}\n" for i in range(480)))
    report = groups_of(str(path), 0.1, scored[1], scored[0])
    assert [row.images for row in report.groups] == [240, 240]
