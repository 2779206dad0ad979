"""What ranks say to each other, on virtual devices of one process."""

import collections

import numpy as np
import pytest

from runtime.distributed.collectives import (
    Agreement,
    Collectives,
    Comparison,
    in_buckets,
    replicate,
)
from runtime.distributed.ranks import Ranks, prepared
from runtime.tf1 import TF2, tf

SIZE = 3
RANKS = Ranks(per_host=SIZE)


def run_on_all(make):
    """make(collectives) built on every rank -> what each rank's run gave."""
    with tf.Graph().as_default():
        made = []
        for rank in RANKS.local:
            with tf.device(RANKS.device(rank)):
                made.append(make(Collectives(rank, SIZE)))
        with tf.Session(config=prepared(tf.ConfigProto(), RANKS)) as session:
            session.run(tf.global_variables_initializer())
            return session.run(made)


def own(rank):
    """What a rank holds: float32 [2, 5]."""
    return np.random.RandomState(rank).randn(2, 5).astype(np.float32)


ALL = np.stack([own(rank) for rank in range(SIZE)])


@pytest.mark.parametrize(
    "what, expected",
    [("sum", ALL.sum(0)), ("mean", ALL.mean(0)), ("maximum", ALL.max(0)), ("broadcast", ALL[0])],
)
def test_all_ranks_get_the_same(what, expected):
    found = run_on_all(lambda c: getattr(c, what)(tf.constant(own(c.rank))))
    for one in found:
        np.testing.assert_allclose(one, expected, rtol=1e-6)
        np.testing.assert_array_equal(one, found[0])


def test_gather_puts_the_ranks_rows_in_their_order():
    found = run_on_all(
        lambda c: (c.gather(tf.constant(own(c.rank))), c.gather(tf.constant([c.rank], tf.int64)))
    )
    for rows, numbers in found:
        np.testing.assert_array_equal(rows, ALL.reshape(-1, 5))
        assert list(numbers) == [0, 1, 2]


def test_the_gradient_of_a_gather_is_that_of_all_ranks_losses():
    def make(c):
        x = tf.constant(own(c.rank))
        loss = (c.rank + 1.0) * tf.reduce_sum(tf.square(c.gather(x)))  # each rank its own
        return tf.gradients(loss, x)[0]

    for rank, slope in enumerate(run_on_all(make)):
        np.testing.assert_allclose(slope, 2 * (1 + 2 + 3) * own(rank), rtol=1e-5)


@pytest.mark.parametrize("what, share", [("sum", 6.0), ("mean", 2.0)])
def test_the_gradient_of_a_sum_is_the_sum_of_the_slopes(what, share):
    def make(c):
        x = tf.constant(own(c.rank))
        return tf.gradients(getattr(c, what)(x) * (c.rank + 1.0), x)[0]

    for slope in run_on_all(make):
        np.testing.assert_allclose(slope, share * np.ones((2, 5)), rtol=1e-6)


@pytest.mark.parametrize("bucket_bytes", [4, 28, 1 << 20])
def test_buckets_change_no_sum(bucket_bytes):
    def make(c):
        tensors = [tf.constant(own(c.rank)), tf.constant(2.0 + c.rank), tf.ones([7]) * c.rank]
        return in_buckets(tensors, c.sum, bucket_bytes)

    for matrix, scalar, vector in run_on_all(make):
        np.testing.assert_allclose(matrix, ALL.sum(0), rtol=1e-6)
        assert scalar == 9.0 and list(vector) == [3.0] * 7


def test_buckets_hold_small_tensors_together_and_parts_of_large_ones():
    seen = []
    with tf.Graph().as_default():
        tensors = [tf.zeros([25]), tf.zeros([2, 3]), tf.zeros([4])]

        def reduce(flat):
            seen.append(flat.shape.num_elements())
            return flat

        in_buckets(tensors, reduce, 40)
    assert seen == [10, 10, 10, 5]


@pytest.mark.skipif(not TF2, reason="1.15 adds in float32 alone on a CPU")
@pytest.mark.parametrize("wire, digits", [("bfloat16", 2**-7), ("float16", 2**-10)])
def test_a_narrow_wire_rounds_and_stays_equal_on_all_ranks(wire, digits):
    found = run_on_all(
        lambda c: in_buckets([tf.constant(own(c.rank))], c.sum, 1 << 20, tf.as_dtype(wire))[0]
    )
    np.testing.assert_allclose(found[0], ALL.sum(0), atol=4 * digits)
    assert np.abs(found[0] - ALL.sum(0)).max() > 0
    for one in found:
        np.testing.assert_array_equal(one, found[0])


def test_replicate_gives_every_rank_the_first_ones_values():
    def make(c):
        with tf.variable_scope(f"rank_{c.rank}"):
            v = tf.get_variable("v", initializer=tf.constant(own(c.rank)))
            n = tf.get_variable("n", initializer=tf.constant(c.rank, tf.int64))
        with tf.control_dependencies([tf.assign(v, own(c.rank)), tf.assign(n, 5 + c.rank)]):
            copied = replicate(c, [v, n])
        with tf.control_dependencies([copied]):
            return v.read_value(), n.read_value()

    for matrix, number in run_on_all(make):
        np.testing.assert_array_equal(matrix, own(0))
        assert number == 5


def test_one_rank_talks_to_nobody():
    alone = Collectives()
    with tf.Graph().as_default() as graph:
        x = tf.constant(own(0))
        for what in ("sum", "mean", "gather", "broadcast"):
            assert getattr(alone, what)(x) is x
        assert not alone.calls and len(graph.get_operations()) == 1


Others = collections.namedtuple("Others", "rank size gather")


def told(*values):
    """Comparison.differing of a process whose neighbours say the other `values`."""
    first = [("--lr", 0.1), ("--epoch", "3"), ("call 1", ("add", (7,)))]

    def facts(value):
        return [(name, value.get(name, kept)) for name, kept in first] + value.get("more", [])

    with tf.Graph().as_default():
        others = [tf.constant(Comparison.checksums(facts(value))) for value in values]
        mine = Others(0, 1 + len(values), lambda x: tf.concat([x] + others, axis=0))
        comparison = Comparison([(mine, None)])
        with tf.Session() as session:
            return comparison.first_difference(session, facts({}))


def test_the_first_fact_that_differs_is_named_with_its_rank():
    assert told({}, {}) is None
    assert told({}, {"--epoch": "4", "call 1": ("add", (8,))}) == ("--epoch", 2)
    assert told({"call 1": ("max", (7,))}, {}) == ("call 1", 1)
    assert told({"more": [("call 2", 1)]}) == ("the number of calls", 1)


def test_agreement_of_one_process_is_its_own_word():
    with tf.Graph().as_default():
        agreement = Agreement([(Collectives(), None)])
        assert agreement.all_agree(None, True) is True and agreement.all_agree(None, False) is False
