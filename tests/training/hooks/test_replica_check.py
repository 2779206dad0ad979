"""Copies of the network that differ end the run."""

import pytest

from runtime.distributed.ranks import SINGLE, Ranks
from runtime.tf1 import tf
from training.hooks.replica_check import FeedWatchdog, ReplicaCheck


def check(prints, ranks, step=2):
    with tf.Graph().as_default(), tf.Session() as session:
        hook = ReplicaCheck(2, tf.constant(prints, tf.int64), ranks)
        hook.begin(session, 0)
        hook.after(step, {}, 0.1)


def test_equal_copies_pass():
    check([5, 5, 5], Ranks(3))


def test_the_rank_that_differs_is_named():
    with pytest.raises(RuntimeError, match="step 2: the weights of .*2.* differ from those"):
        check([5, 5, 6], Ranks(3))


def test_copies_are_compared_at_the_interval_alone():
    check([5, 6, 5], Ranks(3), step=3)


def test_one_rank_has_nothing_to_compare():
    check([5], SINGLE)


def test_each_step_is_fed_to_the_watchdog():
    class Watchdog:
        steps = []

        def feed(self, step):
            self.steps.append(step)

    hook = FeedWatchdog(Watchdog())
    hook.after(3, {}, 0.1)
    assert hook.watchdog.steps == [3]
