"""The interface of hooks."""

import pytest

from training.hooks.base import Hook


@pytest.mark.parametrize("interval, due", [(3, [3, 6]), (None, [])])
def test_a_hook_is_due_at_its_interval(interval, due):
    hook = Hook()
    hook.interval = interval
    assert [step for step in range(1, 8) if hook.due(step)] == due


def test_a_hook_wants_nothing_of_a_step():
    assert list(Hook().wants(1)) == []
