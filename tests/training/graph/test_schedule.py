import math

import numpy as np
import pytest

from runtime.tf1 import tf
from training.graph.schedule import RateSettings, boundaries, default_rate, learning_rate, steps_of


@pytest.mark.parametrize(
    "said, steps",
    [("2000", 2000), ("500step", 500), ("0.5ep", 50), ("2ep", 200), ("1Mimg", 100000)]
    + [("1kimg", 100), ("5img", 1), ("15img", 2), ("1k", 1000), ("0", 0), ("1e3", 1000)],
)
def test_a_duration_becomes_steps(said, steps):
    assert steps_of(said, images=1000, batch_size=10) == steps


def test_a_bare_number_has_the_unit_of_its_flag():
    assert steps_of("3", images=1000, batch_size=10, plain="ep") == 300


@pytest.mark.parametrize("said", ["", "soon", "-5", "1.2.3", "5 parsecs", "nan", "1Gimg"])
def test_a_duration_that_is_none_is_refused_by_name(said):
    with pytest.raises(ValueError, match="--warmup .* is not a duration"):
        steps_of(said, images=1000, batch_size=10, flag="warmup")


def test_boundaries_are_said_at_batch_512_and_rescaled():
    said = ("40000", "60000", "80000")
    assert boundaries(said, images=1000, batch_size=32) == [640000, 960000, 1280000]
    assert boundaries(said, images=1000, batch_size=512) == [40000, 60000, 80000]


def test_boundaries_do_not_collapse_above_batch_512():
    found = boundaries(("40000", "60000", "80000"), images=1000, batch_size=1024)
    assert found == [20000, 30000, 40000]


def test_boundaries_with_a_unit_are_not_rescaled():
    assert boundaries(("10ep", "2000step"), images=1000, batch_size=10) == [1000, 2000]


def test_boundaries_that_fall_are_refused():
    with pytest.raises(ValueError, match="must increase"):
        boundaries(("10ep", "5ep"), images=1000, batch_size=10)


def test_the_default_rate_grows_with_the_batch():
    assert default_rate(512) == pytest.approx(0.1) and default_rate(64) == pytest.approx(0.0125)


def rates(steps, **settings):
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.placeholder(tf.int64, [])
        rate = learning_rate(step, RateSettings(**settings))
        return [session.run(rate, {step: number}) for number in steps]


def test_piecewise_changes_at_its_boundaries_and_not_before():
    found = rates(
        [0, 9, 10, 19, 20, 99],
        schedule="piecewise",
        peak_rate=0.1,
        total_steps=100,
        changes=[10, 20],
        factors=[1.0, 0.5, 0.1],
    )
    np.testing.assert_allclose(found, [0.1, 0.1, 0.05, 0.05, 0.01, 0.01], rtol=1e-6)


def test_warmup_rises_in_a_line_and_then_hands_over():
    found = rates(
        [0, 1, 4, 5, 50], schedule="constant", peak_rate=0.5, total_steps=100, warmup_steps=5
    )
    np.testing.assert_allclose(found, [0.1, 0.2, 0.5, 0.5, 0.5], rtol=1e-6)


def test_cosine_and_polynomial_end_at_zero():
    for schedule, middle in (("cosine", 0.1), ("polynomial", 0.1)):
        settings = dict(schedule=schedule, peak_rate=0.2, total_steps=100)
        np.testing.assert_allclose(rates([0, 50, 100], **settings), [0.2, middle, 0.0], atol=1e-7)
    quarter = rates([25], schedule="cosine", peak_rate=0.2, total_steps=100)
    np.testing.assert_allclose(quarter, 0.1 * (1 + math.cos(math.pi / 4)), rtol=1e-6)


def test_factors_that_do_not_fit_the_boundaries_are_refused():
    with pytest.raises(ValueError, match="--lr_factors has 2 values for 2 --lr_steps; pass 3"):
        rates(
            [0],
            schedule="piecewise",
            peak_rate=1.0,
            total_steps=9,
            changes=[1, 2],
            factors=[1.0, 0.5],
        )
