"""The line about the time to the first step."""

from training.hooks.startup import Startup


def test_the_first_step_logs_every_part_once(caplog):
    caplog.set_level("INFO")
    hook = Startup()
    hook.done("graph")
    hook.begin(None, 0)
    hook.after(1, {}, 0.1)
    hook.after(2, {}, 0.1)
    (line,) = caplog.messages
    for part in ("first step after", "import", "graph", "first validation", "first step"):
        assert part in line
