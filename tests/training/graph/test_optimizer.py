"""Momentum and decay against the closed form, on whole variables and on rows alone."""

import numpy as np
import pytest

from losses import centre_cosines
from runtime.tf1 import tf
from runtime.variables import decayed_variables, weight
from tests.losses.tiny_heads import head_of
from training.graph import optimizer

RATE, MOMENTUM, DECAY = 0.1, 0.9, 0.01


def rows(values_RD, indices_R):
    return tf.IndexedSlices(tf.constant(values_RD, tf.float32), tf.constant(indices_R), [7, 3])


def followed(kind, gradient, start, decay, steps):
    """The weights after each step with the same gradient, in float64."""
    weights, speed, square = np.float64(start), np.zeros(start.shape), np.zeros(start.shape)
    for step in range(1, steps + 1):
        pull, rate = gradient + decay * weights, RATE
        if kind == "adamw":
            speed = 0.9 * speed + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient**2
            size = np.sqrt(square / (1 - 0.999**step)) + 1e-8
            weights = weights - RATE * (speed / (1 - 0.9**step) / size + decay * weights)
        else:
            if kind == "lars" and decay:
                long = np.linalg.norm(weights)
                rate *= 0.001 * long / (np.linalg.norm(gradient) + decay * long)
            speed = MOMENTUM * speed + pull
            weights = weights - rate * (pull + MOMENTUM * speed if kind == "nesterov" else speed)
        yield weights


@pytest.mark.parametrize("decays", [True, False])
@pytest.mark.parametrize("kind", optimizer.OPTIMIZERS)
@pytest.mark.parametrize("by_rows", [True, False])
def test_three_steps_follow_the_closed_form(kind, by_rows, decays, monkeypatch):
    monkeypatch.setattr(centre_cosines, "BLOCK_ROWS", 4)
    random = np.random.RandomState(0)
    start_KD, slope_KD = random.normal(size=(7, 3)), random.normal(size=(7, 3))
    with tf.Graph().as_default(), tf.Session() as session:
        variable = weight("w", [7, 3], tf.constant_initializer(start_KD), decay=decays)
        order = np.array([4, 0, 6, 2, 1, 5, 3])
        gradient = rows(slope_KD[order], order) if by_rows else tf.constant(slope_KD, tf.float32)
        move = optimizer.apply_gradients(
            [(gradient, variable)], RATE, kind, momentum=MOMENTUM, weight_decay=DECAY
        )
        session.run(tf.global_variables_initializer())
        for wanted_KD in followed(kind, slope_KD, start_KD, DECAY if decays else 0, 3):
            session.run(move)
            np.testing.assert_allclose(session.run(variable), wanted_KD, rtol=1e-5, atol=1e-6)


def test_rows_that_are_not_named_stay_and_keep_their_momentum():
    with tf.Graph().as_default(), tf.Session() as session:
        variable = weight("w", [7, 3], tf.ones_initializer(), decay=True)
        chosen_R = tf.placeholder(tf.int64, [2])
        gradient = tf.IndexedSlices(tf.ones([2, 3]), chosen_R, [7, 3])
        move = optimizer.apply_gradients(
            [(gradient, variable)], RATE, momentum=MOMENTUM, weight_decay=DECAY
        )
        session.run(tf.global_variables_initializer())
        session.run(move, {chosen_R: [2, 5]})
        before = session.run([variable, optimizer.slot(variable)])
        session.run(move, {chosen_R: [5, 0]})
        after = session.run([variable, optimizer.slot(variable)])
    for old_KD, new_KD in zip(before, after):
        same_K = (old_KD == new_KD).all(1)
        np.testing.assert_array_equal(np.flatnonzero(~same_K), [0, 5])


def test_slots_are_named_as_in_the_original_checkpoints():
    with tf.Graph().as_default():
        with tf.variable_scope("resnet_v1_50/conv1"):
            variable = weight("W_conv2d", [2], tf.zeros_initializer())
            with tf.name_scope("tower1"):
                optimizer.apply_gradients([(tf.ones([2]), variable)], RATE)
                optimizer.apply_gradients([(tf.ones([2]), variable)], RATE)
        names = [v.op.name for v in tf.global_variables()]
        assert names == ["resnet_v1_50/conv1/W_conv2d", "resnet_v1_50/conv1/W_conv2d/Momentum"]
        assert [v.op.name for v in tf.trainable_variables()] == ["resnet_v1_50/conv1/W_conv2d"]


@pytest.mark.parametrize("as_slices", [True, False])
def test_head_moves_its_centres_as_a_dense_gradient_would(as_slices, monkeypatch):
    """The blocks in place, and the plain IndexedSlices that clipping makes, end in one place."""
    monkeypatch.setattr(centre_cosines, "BLOCK_ROWS", 4)
    embedded_ND = np.random.RandomState(1).normal(size=(6, 5)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        embeddings_ND = weight("embeddings", [6, 5], tf.constant_initializer(embedded_ND))
        head = head_of(embeddings_ND, tf.constant([0, 9, 3, 3, 12, 5]), 13)
        slopes = tf.gradients(head.loss, [embeddings_ND, head.centres])
        dense_KD = tf.convert_to_tensor(slopes[1])
        if as_slices:
            slopes, _ = tf.clip_by_global_norm(slopes, 1e9)
        move = optimizer.apply_gradients(
            list(zip(slopes, [embeddings_ND, head.centres])), 1e-6, weight_decay=DECAY
        )
        session.run(tf.global_variables_initializer())
        before_KD, dense_KD = session.run([head.centres, dense_KD])
        session.run(move)
        moved_KD = session.run(head.centres)
    wanted_KD = before_KD - 1e-6 * (dense_KD + DECAY * before_KD)
    np.testing.assert_allclose(moved_KD, wanted_KD, rtol=1e-5, atol=1e-7)


def test_decay_loss_is_half_the_squares_of_what_decays(monkeypatch):
    monkeypatch.setattr(optimizer, "SUM_BLOCK", 4)
    value_KD = np.random.RandomState(0).normal(size=(7, 3)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        weight("w", [7, 3], tf.constant_initializer(value_KD), decay=True)
        weight("alpha", [], tf.constant_initializer(2.0), decay=True)
        weight("beta", [3], tf.ones_initializer())
        session.run(tf.global_variables_initializer())
        decay = session.run(optimizer.decay_loss(decayed_variables(), DECAY))
        nothing = session.run(optimizer.decay_loss([], DECAY))
    assert decay == pytest.approx(DECAY * (np.square(value_KD).sum() + 4.0) / 2, rel=1e-6)
    assert nothing == 0


def test_gradient_of_none_leaves_its_variable_alone():
    with tf.Graph().as_default(), tf.Session() as session:
        variable = weight("w", [2], tf.ones_initializer(), decay=True)
        session.run(tf.global_variables_initializer())
        session.run(optimizer.apply_gradients([(None, variable)], RATE, weight_decay=DECAY))
        np.testing.assert_array_equal(session.run(variable), [1, 1])


def test_unknown_optimizer_is_refused():
    with tf.Graph().as_default(), pytest.raises(ValueError, match="choose one of momentum"):
        optimizer.apply_gradients([], RATE, kind="momentun")


def test_update_works_in_a_branch_of_a_condition():
    """Where a step may be skipped; what control edges order outside is not ordered inside."""
    with tf.Graph().as_default(), tf.Session() as session:
        embeddings_ND = weight("embeddings", [6, 5], tf.random_normal_initializer(seed=1))
        head = head_of(embeddings_ND, tf.constant([0, 9, 3, 3, 12, 5]), 13)
        variables = [embeddings_ND, head.centres]
        slopes = tf.gradients(head.loss, variables)
        go = tf.placeholder(tf.bool, [])
        made = optimizer.make_slots(variables, "adamw")

        def move():
            pairs = list(zip(slopes, variables))
            with tf.control_dependencies([optimizer.apply_gradients(pairs, RATE, "adamw")]):
                return tf.constant(True)

        moved = tf.cond(go, move, lambda: tf.constant(False))
        session.run(tf.global_variables_initializer())
        start = session.run(variables + made)
        session.run(moved, {go: False})
        for before, after in zip(start, session.run(variables + made)):
            np.testing.assert_array_equal(before, after)
        session.run(moved, {go: True})
        for before, after in zip(start, session.run(variables + made)):
            assert (before != after).any()


@pytest.mark.parametrize("kind", optimizer.OPTIMIZERS)
def test_rate_factor_scales_each_variables_rate(kind):
    """Twice the rate at half the factor is the same step."""
    ends = []
    for rate, factor in ((RATE, 1.0), (2 * RATE, 0.5)):
        with tf.Graph().as_default(), tf.Session() as session:
            variable = weight("w", [2], tf.constant_initializer([1.0, 2.0]), decay=True)
            move = optimizer.apply_gradients(
                [(tf.constant([0.3, -0.4]), variable)],
                rate,
                kind,
                reach=optimizer.Reach(lambda _, f=factor: f),
            )
            session.run(tf.global_variables_initializer())
            session.run(move)
            ends.append(session.run(variable))
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-6)
