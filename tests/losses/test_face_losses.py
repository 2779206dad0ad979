"""Every margin loss against float64 NumPy of the published formulas, gradients included."""

import numpy as np
import pytest

from losses import face_losses
from losses.choices import PAST_PI
from losses.face_losses import LOSSES, LogitOptions, NormStatistics, find_loss
from runtime.tf1 import tf

SCALE = 64.0
LABELS_N = np.array([0, 3, 2, -1, 1, 4, 2])
IDENTITIES = 5
THRESHOLD = np.cos(np.pi - 0.5)
TRUE_COSINES = {
    "random": np.linspace(-0.8, 0.9, 7),
    "near 0": 1.0 - np.array([1e-6, 1e-5, 1e-4, 1e-3, 3e-6, 3e-5, 3e-4]),
    "near pi": -1.0 + np.array([1e-6, 1e-5, 1e-4, 1e-3, 3e-6, 3e-5, 3e-4]),
    "threshold": THRESHOLD + np.array([1e-2, -1e-2, 1e-3, -1e-3, 1e-4, -1e-4, 2e-2]),
}
NORMS_N = np.array([3.0, 14.0, 21.0, 60.0, 120.0, 25.0, 18.0])


def cosines(true_N):
    """float32-exact cosines [N, K], so that both sides start from the same numbers."""
    cosine_NK = np.random.RandomState(3).uniform(-0.9, 0.9, (len(true_N), IDENTITIES))
    cosine_NK[np.arange(len(true_N)), np.maximum(LABELS_N, 0)] = true_N
    return cosine_NK.astype(np.float32).astype(np.float64)


def turned(cos_N, m1, angle_N, past_pi="line"):
    """(cos(m1 * theta + angle), its slope in cos(theta)) in float64, as the docstrings say."""
    cos_N = np.clip(cos_N, -1, 1)
    theta_N, angle_N = np.arccos(cos_N), angle_N + np.zeros_like(cos_N)
    sine_N = np.maximum(np.sqrt((1 - cos_N) * (1 + cos_N)), face_losses.SINE_FLOOR)
    inner_N = m1 * theta_N + angle_N
    value_N, slope_N = np.cos(inner_N), m1 * np.sin(inner_N) / sine_N
    value_N, slope_N = np.where(inner_N < 0, 1, value_N), np.where(inner_N < 0, 0, slope_N)
    last_N = np.cos(np.minimum((np.pi - angle_N) / m1, np.pi))
    drop_N = np.maximum(np.maximum(angle_N, 0) * np.sin(angle_N), 1 + last_N)
    past_N = (cos_N <= last_N) & (past_pi == "line")
    return np.where(past_N, cos_N - drop_N, value_N), np.where(past_N, 1.0, slope_N)


def quality():
    return np.clip(0.333 * (np.clip(NORMS_N, 1e-3, 100) - 20.0) / (8.0 + 1e-3), -1, 1)


def magface_margin():
    return 0.45 + 0.35 * (np.clip(NORMS_N, 10, 110) - 10) / 100


TARGETS = {  # name -> cos_N -> (target, slope)
    "softmax": lambda c: (c, np.ones_like(c)),
    "arcface": lambda c: turned(c, 1.0, 0.5),
    "cosface": lambda c: (c - 0.35, np.ones_like(c)),
    "sphereface": lambda c: turned(c, 1.35, 0.0),
    "combined": lambda c: (turned(c, 1.0, 0.3)[0] - 0.2, turned(c, 1.0, 0.3)[1]),
    "curricularface": lambda c: turned(c, 1.0, 0.5),
    "adaface": lambda c: (
        turned(c, 1.0, -0.4 * quality())[0] - 0.4 * (1 + quality()),
        turned(c, 1.0, -0.4 * quality())[1],
    ),
    "magface": lambda c: turned(c, 1.0, magface_margin()),
}


def expected(name, cosine_NK, upstream_NK, target):
    """(logits, gradient in the cosines of sum(upstream * logits)) in float64."""
    logits_NK, slope_NK = cosine_NK.copy(), np.ones_like(cosine_NK)
    rows = np.flatnonzero(LABELS_N >= 0)
    true_N = cosine_NK[np.arange(len(cosine_NK)), np.maximum(LABELS_N, 0)]
    if name == "curricularface":
        hard_above_N = turned(true_N, 1.0, 0.5, "none")[0]
        hard_NK = (cosine_NK > hard_above_N[:, None]) & (LABELS_N >= 0)[:, None]
        logits_NK = np.where(hard_NK, cosine_NK * (0.3 + cosine_NK), cosine_NK)
        slope_NK = np.where(hard_NK, 0.3 + 2 * cosine_NK, 1.0)
    value_N, slope_N = target(true_N)
    logits_NK[rows, LABELS_N[rows]] = value_N[rows]
    slope_NK[rows, LABELS_N[rows]] = slope_N[rows]
    return SCALE * logits_NK, SCALE * slope_NK * upstream_NK


def logits_and_gradient(name, cosine_NK, upstream_NK, **given):
    with tf.Graph().as_default(), tf.Session() as session:
        x_NK = tf.constant(cosine_NK, tf.float32)
        norms_N = tf.constant(NORMS_N, tf.float32)
        norms = NormStatistics(norms_N, tf.constant(20.0), tf.constant(8.0))
        measured = {"norms_N": norms_N, "norms": norms, "progress": tf.constant(0.3)}
        arguments = {key: measured[key] for key in LOSSES[name].measured if key in measured}
        arguments.update(given)
        logits_NK = LOSSES[name].function(x_NK, tf.constant(LABELS_N), **arguments)
        slope_NK = tf.gradients(logits_NK * tf.constant(upstream_NK, tf.float32), x_NK)[0]
        return session.run([logits_NK, slope_NK])


@pytest.mark.parametrize("angles", TRUE_COSINES)
@pytest.mark.parametrize("name", LOSSES)
def test_logits_and_gradient_equal_float64_numpy(name, angles):
    cosine_NK = cosines(TRUE_COSINES[angles])
    upstream_NK = np.random.RandomState(4).uniform(-1, 1, cosine_NK.shape)
    upstream_NK = upstream_NK.astype(np.float32).astype(np.float64)
    logits_NK, slope_NK = logits_and_gradient(name, cosine_NK, upstream_NK)
    wanted_NK, wanted_slope_NK = expected(name, cosine_NK, upstream_NK, TARGETS[name])
    np.testing.assert_allclose(logits_NK, wanted_NK, rtol=1e-5, atol=1e-5 * SCALE)
    np.testing.assert_allclose(slope_NK, wanted_slope_NK, rtol=1e-5, atol=1e-5 * SCALE)


def test_combined_applies_all_three_margins():
    cosine_NK = cosines(TRUE_COSINES["random"])
    ones_NK = np.ones_like(cosine_NK)
    logits_NK, slope_NK = logits_and_gradient(
        "combined", cosine_NK, ones_NK, m1=1.2, m2=0.3, m3=0.1
    )

    def target(cos_N):
        value_N, slope_N = turned(cos_N, 1.2, 0.3)
        return value_N - 0.1, slope_N

    wanted_NK, wanted_slope_NK = expected("combined", cosine_NK, ones_NK, target)
    np.testing.assert_allclose(logits_NK, wanted_NK, rtol=1e-5, atol=1e-5 * SCALE)
    np.testing.assert_allclose(slope_NK, wanted_slope_NK, rtol=1e-5, atol=1e-5 * SCALE)


@pytest.mark.parametrize("past_pi", PAST_PI)
@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_finite_at_the_ends_and_past_rounding(name, past_pi):
    true_N = np.array([1.0, -1.0, 1.0 + 2e-7, -1.0 - 2e-7, 1.0 + 1e-3, -1.0 - 1e-3, 0.0])
    options = LogitOptions(past_pi=past_pi)
    cosine_NK = cosines(true_N)
    logits_NK, slope_NK = logits_and_gradient(
        name, cosine_NK, np.ones_like(cosine_NK), options=options
    )
    assert np.isfinite(logits_NK).all() and np.isfinite(slope_NK).all()


@pytest.mark.parametrize("name,margins", [("arcface", (0.5,)), ("combined", (1.3, 0.4, 0.1))])
def test_true_logit_falls_with_the_angle_all_the_way(name, margins):
    theta_T = np.linspace(0, np.pi, 2001)
    with tf.Graph().as_default(), tf.Session() as session:
        cosine_TK = tf.constant(np.stack([np.cos(theta_T), 0 * theta_T], 1), tf.float32)
        labels_T = tf.zeros([2001], tf.int64)
        logits_TK = session.run(LOSSES[name].function(cosine_TK, labels_T, *margins))
    assert (np.diff(logits_TK[:, 0]) < 1e-4).all()


def test_past_pi_none_lets_the_cosine_rise_again():
    cosine_NK = cosines(np.full(7, -0.99))
    logits_NK, _ = logits_and_gradient(
        "arcface", cosine_NK, np.ones_like(cosine_NK), options=LogitOptions(past_pi="none")
    )
    wanted = SCALE * np.cos(np.arccos(cosine_NK[0, 0]) + 0.5)
    np.testing.assert_allclose(logits_NK[0, 0], wanted, rtol=1e-5)


def test_straight_through_gradient_is_the_scale_everywhere():
    cosine_NK = cosines(TRUE_COSINES["random"])
    ones_NK = np.ones_like(cosine_NK)
    logits_NK, slope_NK = logits_and_gradient(
        "arcface", cosine_NK, ones_NK, options=LogitOptions(margin_gradient="straight_through")
    )
    np.testing.assert_allclose(slope_NK, SCALE * ones_NK)
    exact_NK, _ = logits_and_gradient("arcface", cosine_NK, ones_NK)
    np.testing.assert_allclose(logits_NK, exact_NK, rtol=1e-6)


def test_magface_gradient_flows_into_the_norms():
    with tf.Graph().as_default(), tf.Session() as session:
        norms_N = tf.constant(NORMS_N, tf.float32)
        cosine_NK = tf.constant(cosines(TRUE_COSINES["random"]), tf.float32)
        logits_NK = face_losses.magface(cosine_NK, tf.constant(LABELS_N), norms_N)
        slope_N = session.run(tf.gradients(logits_NK, norms_N)[0])
    inside_N = (NORMS_N > 10) & (NORMS_N < 110) & (LABELS_N >= 0)
    assert (slope_N[inside_N] < 0).all() and (slope_N[~inside_N] == 0).all()


def test_curricular_progress_is_the_moving_mean_of_true_cosines():
    cosine_N, has_N = TRUE_COSINES["random"], LABELS_N >= 0
    with tf.Graph().as_default(), tf.Session() as session:
        x_N = tf.constant(cosine_N, tf.float32)
        moved = session.run(face_losses.curricular_progress(x_N, tf.constant(has_N), 0.5))
        stays = session.run(face_losses.curricular_progress(x_N, tf.zeros([7]), 0.5))
    assert moved == pytest.approx(0.99 * 0.5 + 0.01 * cosine_N[has_N].mean())
    assert stays == 0.5


def test_unknown_loss_offers_the_nearest():
    with pytest.raises(ValueError, match="did you mean arcface"):
        find_loss("arcfase")


@pytest.mark.parametrize(
    "name,margin,scale,said",
    [
        ("arcface", 2.0, None, "margin of arcface must be 0 or more and 1.57 or less"),
        ("sphereface", 0.5, None, "must be 1 or more and 4 or less"),
        ("arcface", float("nan"), None, "out of range"),
        ("cosface", None, 0.0, "--scale 0.0 is out of range: it must be 1 or more and 1000"),
        ("combined", (1.0, 0.3), None, "takes 3 of them"),
        ("softmax", 0.5, None, "it has no margin"),
    ],
)
def test_margin_or_scale_out_of_range_says_the_range(name, margin, scale, said):
    with pytest.raises(ValueError, match=said):
        find_loss(name, margin, scale)


def test_defaults_are_those_of_the_functions():
    loss, arguments = find_loss("combined", ())
    options = LogitOptions(scale=64.0, past_pi="line", margin_gradient="exact")
    assert arguments == {"m1": 1.0, "m2": 0.3, "m3": 0.2, "options": options}
    assert loss.function is face_losses.combined


def test_a_margin_gradient_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="--margin_gradient none is not known"):
        find_loss("arcface", margin_gradient="none")
