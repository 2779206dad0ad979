"""The same fetches in every step."""

from training.hooks.fetch_all import FetchAllScalars


def test_every_step_fetches_every_scalar():
    hook = FetchAllScalars({"loss": 1, "accuracy": 2})
    assert [set(hook.wants(step)) for step in (1, 2)] == [{"loss", "accuracy"}] * 2
