"""The draw of identities: distinct, with the batch's own, a function of the seed and the step."""

import numpy as np
import pytest

from losses import class_slices, partial_fc
from runtime.tf1 import tf


def drawer(identities, count, seed=7):
    """(session, step and labels -> drawn_R, places_N)."""
    step, labels_N = tf.placeholder(tf.int64, []), tf.placeholder(tf.int64, [None])
    drawn = partial_fc.draw(labels_N, [partial_fc.Group(0, 0, identities, count)], seed, step)
    session = tf.Session()
    return session, lambda at, given_N: session.run(drawn, {step: at, labels_N: given_N})


@pytest.mark.parametrize("identities", [1, 2, 100, 101, 9999])
def test_permutation_is_one_and_backward_undoes_it(identities):
    with tf.Graph().as_default(), tf.Session() as session:
        keys = partial_fc._keys(3, 5, np.zeros(1, np.int64))
        shuffle = partial_fc._Permutation(np.array([identities]), keys)
        there_1K = shuffle.forward(tf.range(identities, dtype=tf.int64)[None])
        (there_K,), (back_K,) = session.run([there_1K, shuffle.backward(there_1K)])
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
        partial_fc.drawn_count(1000, sample_rate, 8)


def test_fewer_drawn_than_a_batch_may_hold_is_refused_with_the_rate_that_does():
    with pytest.raises(ValueError, match="draws 10 of 1000 .* pass --sample_rate 0.032 or more"):
        partial_fc.drawn_count(1000, 0.01, 32)
    assert partial_fc.drawn_count(1000, 0.032, 32) == 32
    assert partial_fc.drawn_count(8, 1.0, 32) == 8


def test_groups_of_the_parts_are_the_groups_of_the_whole():
    whole = partial_fc.drawn_groups(103, 0.5, 4, draw_groups=6)
    assert [group.first for group in whole] == [0, 17, 34, 51, 68, 85]
    assert sum(group.identities for group in whole) == 103
    for count in (2, 3):
        parts = [
            partial_fc.drawn_groups(103, 0.5, 4, 6, partial_fc.Part(index, count))
            for index in range(count)
        ]
        firsts = [index * 103 // count for index in range(count)]
        joined = [
            group._replace(first=group.first + first)
            for first, part in zip(firsts, parts)
            for group in part
        ]
        assert joined == whole


@pytest.mark.parametrize("draw_groups,count", [(0, 1), (3, 2), (2, 4)])
def test_groups_that_the_ranks_cannot_share_are_refused(draw_groups, count):
    with pytest.raises(ValueError, match=f"must be a multiple of {count}"):
        partial_fc.drawn_groups(1000, 0.5, 4, draw_groups, partial_fc.Part(0, count))


def test_more_groups_than_identities_are_refused():
    with pytest.raises(ValueError, match="--draw_groups 8 is more than there are identities, 6"):
        partial_fc.drawn_groups(6, 0.5, 2, draw_groups=8)


def test_a_group_that_may_not_hold_the_batch_is_refused_with_the_rate_that_does():
    said = "draws 25 of 250 of each of 4 groups of identities, and a batch may hold 32 of them"
    with pytest.raises(ValueError, match=said + "; pass --sample_rate 0.128 or more"):
        partial_fc.drawn_groups(1000, 0.1, 32, draw_groups=4)
    assert [group.draws for group in partial_fc.drawn_groups(1000, 0.128, 32, 4)] == [32] * 4


def test_parts_draw_together_what_one_draws():
    """And two groups of one size draw different places of it."""
    labels_N = np.array([0, 16, 17, 50, 51, 102, -1, 50])
    with tf.Graph().as_default(), tf.Session() as session:
        drawn = {}
        for count in (1, 2, 3):
            rows, places, before = [], [], 0
            for index in range(count):
                first, size = class_slices.slice_of(103, index, count)
                local_N = class_slices.local_labels(tf.constant(labels_N), first, size)
                groups = partial_fc.drawn_groups(103, 0.5, 8, 6, partial_fc.Part(index, count))
                rows_R, places_N = partial_fc.draw(local_N, groups, seed=3, step=9)
                places.append(tf.where(places_N >= 0, places_N + before, places_N))
                rows.append(rows_R + first)
                before += rows_R.shape.as_list()[0]
            drawn[count] = tf.concat(rows, axis=0), tf.reduce_max(places, axis=0)
        drawn = session.run(drawn)
    rows_R, places_N = drawn[1]
    assert len(set(rows_R)) == len(rows_R) and places_N[6] == -1
    np.testing.assert_array_equal(rows_R[places_N[labels_N >= 0]], labels_N[labels_N >= 0])
    for count in (2, 3):
        np.testing.assert_array_equal(drawn[count][0], rows_R)
        np.testing.assert_array_equal(drawn[count][1], places_N)
    inside = [set(rows_R[(rows_R >= f) & (rows_R < f + 17)] - f) for f in (17, 34)]
    assert inside[0] != inside[1]


def test_draw_gives_the_same_in_the_input_pipeline():
    groups = partial_fc.drawn_groups(103, 0.5, 8, draw_groups=2)
    labels_BN = np.random.RandomState(0).randint(-1, 103, (3, 8))
    steps_B = np.arange(3)
    with tf.Graph().as_default(), tf.Session() as session:
        batches = tf.data.Dataset.from_tensor_slices((labels_BN, steps_B))
        batches = batches.map(lambda labels_N, step: partial_fc.draw(labels_N, groups, 5, step))
        mapped = tf.data.make_one_shot_iterator(batches).get_next()
        assert mapped[0].shape.as_list() == [sum(group.draws for group in groups)]
        step, labels_N = tf.placeholder(tf.int64, []), tf.placeholder(tf.int64, [8])
        drawn = partial_fc.draw(labels_N, groups, 5, step)
        for fed in zip(labels_BN, steps_B):
            wanted, given = session.run([drawn, mapped], dict(zip((labels_N, step), fed)))
            for one, other in zip(given, wanted):
                np.testing.assert_array_equal(one, other)


def test_images_of_a_group_that_is_full_have_no_loss():
    """Two groups of 50 identities draw 5 each: of the first one's eight, in the order in which they
    come, five stay, each with all its images."""
    groups = [partial_fc.Group(0, 0, 50, 5), partial_fc.Group(1, 50, 50, 5)]
    labels = [3, 60, 7, 3, -1, 49, 0, 12, 60, 8, 99, 9, 7]
    with tf.Graph().as_default(), tf.Session() as session:
        kept = session.run(partial_fc.fitting(tf.constant(labels, tf.int64), groups))
    assert list(kept) == [3, 60, 7, 3, -1, 49, 0, 12, 60, -1, 99, -1, 7]


@pytest.mark.parametrize(
    "groups",
    [
        [partial_fc.Group(0, 0, 50, 5)],
        [partial_fc.Group(0, 0, 2, 2), partial_fc.Group(1, 2, 3, 3)],  # read whole, and uneven
    ],
)
def test_a_batch_that_fits_any_group_costs_nothing(groups):
    with tf.Graph().as_default() as graph:
        labels_N = tf.constant([1, 2, 3], tf.int64)
        assert partial_fc.fitting(labels_N, groups) is labels_N
        assert len(graph.get_operations()) == 1


def test_a_group_must_hold_its_part_of_a_batch_and_some_more():
    """The recipe of Glint360K on 32 devices: 11,257 identities a group, 128 images of 4096."""
    groups = partial_fc.drawn_groups(360232, 0.1, 4096, 32, partial_fc.Part(0, 32))
    assert [group.draws for group in groups] == [1126]
    with pytest.raises(ValueError, match="may hold 4096"):
        partial_fc.drawn_groups(360232, 0.1, 4096, 32, partial_fc.Part(0, 32), whole=True)
    with pytest.raises(ValueError, match="may hold 544"):
        partial_fc.drawn_groups(360232, 0.04, 4096, 32, partial_fc.Part(0, 32))
