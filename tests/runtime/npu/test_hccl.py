"""HCCL's collectives: on the double of the adapter, and what needs none."""

import re

import numpy as np
import pytest

from runtime.npu.hccl import Hccl
from runtime.tf1 import build_for, tf
from tests.npu_double.fixtures import cards, npu, on_cards, proto  # noqa: F401

BOTH = pytest.mark.parametrize("npu", ["r1.5", "r1.15"], indirect=True)


def test_one_card_needs_no_hccl():
    with tf.Graph().as_default() as graph:
        hccl, x = Hccl(), tf.constant([1.0, 2.0])
        for operation in ("sum", "mean", "gather", "broadcast"):
            assert getattr(hccl, operation)(x) is x
        assert tf.gradients(hccl.maximum(x), x) == [None]
        assert not hccl.calls
        assert not [op for op in graph.get_operations() if "Hcom" in op.type]


@BOTH
def test_sums_gathers_maxima_and_broadcasts_are_those_of_all_cards(npu):  # noqa: F811
    size = 3

    def program(rank):
        build_for("npu")
        hccl = Hccl(rank, size)
        x = tf.constant([1.0, 2.0]) * (rank + 1.0)
        shown = [hccl.sum(x), hccl.mean(x), hccl.maximum(-x), hccl.gather(x), hccl.broadcast(x)]
        shown += [hccl.gather(tf.constant([rank], tf.int64))]
        slopes = tf.gradients([(rank + 1.0) * hccl.gather(x), hccl.sum(x)], x)
        with tf.Session(config=proto(hcom_parallel=True)) as session:
            return session.run(shown + slopes)

    for found in on_cards(npu, size, program):
        total, mean, highest, gathered, sent, ranks, slope = found
        np.testing.assert_array_equal(total, [6.0, 12.0])
        np.testing.assert_array_equal(mean, [2.0, 4.0])
        np.testing.assert_array_equal(highest, [-1.0, -2.0])
        np.testing.assert_array_equal(gathered, [1.0, 2.0, 2.0, 4.0, 3.0, 6.0])
        np.testing.assert_array_equal(sent, [1.0, 2.0])
        np.testing.assert_array_equal(ranks, [0, 1, 2])
        np.testing.assert_array_equal(slope, [9.0, 9.0])  # 1 + 2 + 3 through gather, 3 through sum


def test_broadcasts_run_in_the_order_in_which_they_were_built(npu):  # noqa: F811
    """The double fails, and the device hangs, where two cards run them in another order."""

    def program(rank):
        build_for("npu")
        hccl = Hccl(rank, 2)
        sent = [hccl.broadcast(tf.fill([2], float(number))) for number in range(3)]
        for before, after in zip(sent, sent[1:]):
            assert before.op in _all_inputs(after.op)
        return [call[:2] for call in hccl.calls]

    assert on_cards(npu, 2, program) == 2 * [[(1, "broadcast"), (2, "broadcast"), (3, "broadcast")]]


def _all_inputs(op):
    """The operations that run before `op`."""
    found, todo = set(), [op]
    while todo:
        one = todo.pop()
        for other in [tensor.op for tensor in one.inputs] + list(one.control_inputs):
            if other not in found:
                found.add(other)
                todo.append(other)
    return found


def variable():
    return tf.get_variable("v", [2], tf.float32, tf.zeros_initializer(), use_resource=False)


def mistakes(npu, build, size=2):  # noqa: F811
    """What the double says of a program that is wrong."""

    def program(rank):
        made = build(rank)
        with tf.Session(config=proto()) as session:
            session.run(tf.global_variables_initializer())
            session.run(made)

    with pytest.raises(Exception) as caught:
        on_cards(npu, size, program)
    assert isinstance(caught.value, (npu.Mistake, tf.errors.OpError, LookupError))
    return str(caught.value)


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda h, r: h.allreduce(variable(), "sum"), "must not be a variable"),
        (lambda h, r: h.allgather(variable().value(), 2), "must not be a variable"),
        (lambda h, r: h.allreduce(tf.zeros([2]), "mean"), "allreduce by 'mean'"),
        (lambda h, r: h.allreduce(tf.zeros([2]), "max"), "fusion 1 of max"),
        (lambda h, r: h.allreduce(tf.zeros([2], tf.int16), "sum"), "HcomAllReduce of int16"),
        (lambda h, r: h.allreduce(tf.zeros([2], tf.float64), "sum"), "of float64"),
        (lambda h, r: h.allgather(tf.zeros([]), 2), "allgather of a scalar"),
        (lambda h, r: h.allgather(tf.zeros([2]), 3), "3 ranks in a world of 2"),
        (lambda h, r: h.allgather(tf.placeholder(tf.float32, [None]), 2), "whose shape"),
        (lambda h, r: h.broadcast(tf.zeros([2]), 0), "takes a list"),
        (lambda h, r: h.allreduce(tf.zeros([2]), "sum", group="some"), "which nobody made"),
        (lambda h, r: h.allreduce(tf.zeros([2 + r]), "sum"), "collective .*: rank"),
    ],
)
def test_a_collective_that_is_wrong_fails(npu, build, words):  # noqa: F811
    assert re.search(words, mistakes(npu, lambda rank: build(npu.names.hccl_ops, rank)))


def test_a_gather_by_hccl_alone_has_no_gradient(npu):  # noqa: F811
    with tf.Graph().as_default(), npu.world.ranks(2):
        x = tf.zeros([2])
        with pytest.raises(LookupError, match="registers no gradient"):
            tf.gradients(npu.names.hccl_ops.allgather(x, 2), x)


def test_another_order_of_calls_on_two_ranks_fails(npu):  # noqa: F811
    def build(rank):
        hccl, order = npu.names.hccl_ops, [("a", 2.0), ("b", 3.0)]
        inputs = [tf.fill([2], value, name=name) for name, value in order]
        inputs = inputs if rank == 0 else inputs[::-1]
        return [hccl.allreduce(x, "sum", fusion=0) for x in inputs]

    assert "collective" in mistakes(npu, build)
