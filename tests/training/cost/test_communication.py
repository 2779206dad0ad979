"""Communication of a rank: counted in the graph, and the step time that follows."""

import numpy as np
import pytest

from runtime.distributed.ranks import Ranks
from runtime.tf1 import TF2, tf
from tests.training.cost.test_estimate import BATCH, IDENTITIES, R18, SIDE, D, sizes, small
from training.cost import communication
from training.cost.estimate import estimate, one_rank
from training.cost.peak_memory import needed
from training.graph.settings import step_settings
from training.graph.step import build_step


@pytest.mark.parametrize("size", [2, 4])
def test_traffic_is_that_of_the_calls_that_a_real_step_makes(size):
    config = small()
    found = estimate(config, IDENTITIES, per_host=size).exchanges
    with tf.Graph().as_default():
        images = BATCH // size
        batches = [
            (
                tf.placeholder(tf.uint8, [images, SIDE, SIDE, 3]),
                tf.placeholder(tf.int64, [images]),
            )
            for _ in range(size)
        ]
        step = build_step(step_settings(config, IDENTITIES), batches, Ranks(size))
        tower = step.towers[1]  # not the one that was estimated
        ops = [op for op in needed([tower.update_op]) if op.type in communication.OPS]
        keys = {op.get_attr("instance_key") for op in ops}
    assert len(keys) == len(ops)
    counted = {"sum": 0.0, "gather": 0.0}
    for key, what, dtype, shape in step.calls:
        if key in keys:
            kind = "gather" if what == "gather" or (what == "max" and not TF2) else "sum"
            payload = int(np.prod(shape)) * np.dtype(dtype).itemsize
            counted[kind] += communication.sent(kind, payload, size)
    for kind, total in counted.items():
        assert sum(one.sent for one in found if one.op == kind) == pytest.approx(total, rel=1e-12)


def test_exchanges_are_told_apart_and_have_the_sizes_that_their_names_say():
    config = small(wire="fp16", **R18)
    found = {one.what: one for one in estimate(config, IDENTITIES, per_host=2).exchanges}
    with tf.Graph().as_default():
        backbone = one_rank(config, IDENTITIES).towers[0].backbone
        trained = sizes(variable for variable in backbone if variable.trainable)
        moving = sizes(variable for variable in backbone if not variable.trainable)
    assert found[communication.GRADIENTS].payload == trained // 2
    assert found[communication.STATISTICS].payload == moving
    assert found["embeddings"].payload == BATCH // 2 * D * 4
    assert found["gradient of the embeddings"].payload == BATCH * D * 4
    assert found["labels"].payload == BATCH // 2 * 8


def test_a_ring_sends_what_its_algorithm_sends():
    assert communication.sent("sum", 1000, 4) == 2 * 3 * 1000 / 4
    assert communication.sent("gather", 1000, 4) == 3000
    assert communication.sent("sum", 1000, 1) == 0


def test_gradients_travel_beside_the_backward_pass_and_the_head_does_not():
    found = [
        communication.Exchange(communication.GRADIENTS, "sum", 5, 0, 900.0),
        communication.Exchange("embeddings", "gather", 1, 0, 100.0),
    ]
    apart, beside = communication.step_seconds(
        found, 2, 6, communication.Speeds(2.0, bandwidth=100.0, latency=0.0)
    )
    assert apart == pytest.approx(3.0 + 9.0 + 1.0)
    assert beside == pytest.approx(3.0 + 1.0 + 9.0 - 2.0)
