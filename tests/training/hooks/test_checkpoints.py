"""When a checkpoint is written, and what is known of one that was not."""

from training.hooks.base import RunContext
from training.hooks.checkpoints import Checkpoints


class Writer:
    """Records what it is asked to write; steps of `fails` are not written."""

    def __init__(self, fails=()):
        self.fails, self.calls, self.failure = fails, [], ""

    def save(self, session, step, **facts):
        self.calls.append((step, facts["images_seen"], dict(facts["best"])))
        self.failure = "No space left on device" if step in self.fails else ""
        return None if step in self.fails else f"run/ckpt_{step}"


def run(writer, last, first=0, interval=2):
    hook = Checkpoints(interval, writer, {"mean": 0.5}, RunContext(last, batch_size=4))
    hook.begin(None, first)
    for step in range(first + 1, last + 1):
        hook.after(step, {}, 0.1)
    hook.end(last)
    return hook


def test_a_checkpoint_is_written_at_the_interval_and_at_the_end():
    writer = Writer()
    run(writer, last=5)
    assert writer.calls == [(step, 4 * step, {"mean": 0.5}) for step in (2, 4, 5)]


def test_the_last_state_is_not_written_twice():
    writer = Writer()
    run(writer, last=4)
    assert [step for step, _, _ in writer.calls] == [2, 4]


def test_a_run_that_makes_no_step_writes_nothing():
    writer = Writer()
    run(writer, first=4, last=4)
    assert writer.calls == []


def test_a_checkpoint_that_fails_on_the_way_is_not_a_failure_of_the_run():
    assert run(Writer(fails=(2,)), last=4).failure is None


def test_a_last_state_that_is_not_saved_is_the_failure_of_the_run():
    assert run(Writer(fails=(4,)), last=4).failure == "No space left on device"


def test_only_the_first_process_logs_the_path(caplog):
    caplog.set_level("INFO")
    run(Writer(), last=2)
    assert caplog.messages == ["step 2: saved run/ckpt_2"]
