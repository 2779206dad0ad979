"""The order of the hooks: what a later one relies on, the earlier ones have done."""

import pytest

from checkpoint.writer import CheckpointWriter
from runtime.distributed.ranks import SINGLE
from runtime.distributed.watchdog import NO_WATCHDOG
from tests.training.graph.test_step import config_of, run  # noqa: F401
from training.data_stream import open_batches
from training.hooks.checkpoints import Checkpoints
from training.hooks.metrics import Metrics
from training.hooks.nonfinite import NonFiniteGuard
from training.hooks.profiler import Profile
from training.hooks.validation import Validation
from training.resume import Start
from training.run_hooks import RunParts, run_hooks


@pytest.fixture
def hooks(run, small, tmp_path):  # noqa: F811
    made = run(finetune=str(tmp_path), peak_tflops=2.0)
    with made.graph.as_default():
        writer = CheckpointWriter(str(tmp_path / "ckpt"), {}, keep=1)
        batches = open_batches(made.config, SINGLE)
        parts = RunParts(
            made.config, made.plan, SINGLE, Start(), made.step, batches, writer, NO_WATCHDOG, ()
        )
        return run_hooks(parts)


def place(hooks, kind):
    return [type(hook) for hook in hooks.in_order].index(kind)


def test_the_hooks_act_in_an_order_that_a_resumed_run_can_repeat(hooks):
    """A profile traces no other hook's work; a checkpoint holds the best accuracies so far."""
    assert place(hooks, Profile) == 0 and hooks.in_order[0] is hooks.trace
    assert place(hooks, NonFiniteGuard) < place(hooks, Metrics) < place(hooks, Validation)
    assert place(hooks, Validation) < place(hooks, Checkpoints)
    assert hooks.checkpoints is hooks.in_order[place(hooks, Checkpoints)]


def test_the_checkpoints_have_the_best_accuracies_of_the_validation(hooks):
    assert hooks.checkpoints.best is hooks.in_order[place(hooks, Validation)].best


def test_a_finetuned_run_does_not_call_its_start_untrained(hooks):
    assert hooks.in_order[place(hooks, Validation)].start == "as restored"


def test_the_operations_of_a_step_and_the_peak_reach_the_metrics(hooks):
    found = hooks.in_order[place(hooks, Metrics)].utilization
    assert found.peak == 2e12
    assert found.flops > 8 * 1e6  # 8 images through 10 layers of 8 channels and more
