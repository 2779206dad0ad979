"""The choices of flags are those of the code behind them."""

import pytest

from runtime.tf1 import tf
from training.choices import OPTIMIZERS, SCHEDULES
from training.graph.optimizer import RULES
from training.graph.schedule import RateSettings, learning_rate


def test_the_optimizers_are_those_with_a_rule():
    assert set(OPTIMIZERS) == set(RULES)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_starts_at_the_peak_rate(schedule):
    with tf.Graph().as_default(), tf.Session() as session:
        rates = RateSettings(schedule, peak_rate=0.25, total_steps=9)
        assert session.run(learning_rate(tf.constant(0, tf.int64), rates)) == 0.25
