"""The draw of identities: distinct, with the batch's own, a function of the seed and the step."""

import numpy as np
import pytest

from losses import sampling
from runtime.tf1 import tf


def drawer(identities, count, seed=7):
    """(session, step and labels -> drawn_R, places_N)."""
    step, labels_N = tf.placeholder(tf.int64, []), tf.placeholder(tf.int64, [None])
    drawn = sampling.draw(labels_N, identities, count, seed, step)
    session = tf.Session()
    return session, lambda at, given_N: session.run(drawn, {step: at, labels_N: given_N})


@pytest.mark.parametrize("identities", [1, 2, 100, 101, 9999])
def test_permutation_is_one_and_backward_undoes_it(identities):
    with tf.Graph().as_default(), tf.Session() as session:
        shuffle = sampling._Permutation(identities, seed=3, step=5)
        there_K = shuffle.forward(tf.range(identities, dtype=tf.int64))
        there_K, back_K = session.run([there_K, shuffle.backward(there_K)])
    assert sorted(there_K) == list(range(identities))
    np.testing.assert_array_equal(back_K, np.arange(identities))


@pytest.mark.parametrize("identities,count", [(101, 30), (64, 20), (21, 20), (20, 20)])
def test_draw_is_distinct_and_holds_every_label(identities, count):
    random = np.random.RandomState(0)
    with tf.Graph().as_default():
        session, draw = drawer(identities, count)
        with session:
            for step in range(200):
                labels_N = random.randint(-1, identities, 20)
                if step % 3 == 0:
                    labels_N = random.permutation(identities)[:20]
                drawn_R, places_N = draw(step, labels_N)
                assert len(set(drawn_R)) == count
                assert drawn_R.min() >= 0 and drawn_R.max() < identities
                np.testing.assert_array_equal(places_N < 0, labels_N < 0)
                np.testing.assert_array_equal(
                    drawn_R[places_N[labels_N >= 0]], labels_N[labels_N >= 0]
                )


def test_draw_follows_seed_and_step_alone():
    labels_N = np.arange(4)
    with tf.Graph().as_default():
        (session, draw), (_, other_seed) = drawer(500, 40, seed=1), drawer(500, 40, seed=2)
        with session:
            first_R, again_R = draw(8, labels_N)[0], draw(8, labels_N)[0]
            next_R, other_R = draw(9, labels_N)[0], other_seed(8, labels_N)[0]
    np.testing.assert_array_equal(first_R, again_R)
    assert len(set(first_R) & set(next_R)) < 20 and len(set(first_R) & set(other_R)) < 20


def test_every_identity_and_every_pair_is_drawn_as_often():
    identities, count, steps = 101, 30, 400
    singles_K, pairs_KK = np.zeros(identities), np.zeros((identities, identities))
    with tf.Graph().as_default():
        session, draw = drawer(identities, count)
        with session:
            for step in range(steps):
                drawn_R, _ = draw(step, -np.ones(20, np.int64))
                singles_K[drawn_R] += 1
                pairs_KK[np.ix_(drawn_R, drawn_R)] += 1
    share = count / identities
    deviation = np.sqrt(share * (1 - share) / steps)
    assert abs(singles_K / steps - share).max() < 4.5 * deviation
    share = count * (count - 1) / identities / (identities - 1)
    deviation = np.sqrt(share * (1 - share) / steps)
    spread = (pairs_KK[~np.eye(identities, dtype=bool)] / steps).std()
    assert spread == pytest.approx(deviation, rel=0.1)  # stripes would be wider


@pytest.mark.parametrize("sample_rate", [0.0, -0.1, 1.01, float("nan")])
def test_sample_rate_out_of_range_is_refused(sample_rate):
    with pytest.raises(ValueError, match="must be above 0 and 1 or less"):
        sampling.drawn_count(1000, sample_rate, 8)


def test_fewer_drawn_than_a_batch_may_hold_is_refused_with_the_rate_that_does():
    with pytest.raises(ValueError, match="draws 10 of 1000 .* pass --sample_rate 0.032 or more"):
        sampling.drawn_count(1000, 0.01, 32)
    assert sampling.drawn_count(1000, 0.032, 32) == 32
    assert sampling.drawn_count(8, 1.0, 32) == 8
