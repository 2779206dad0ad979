"""The interface of hooks: what happens between the steps, each hook at its own interval."""

from typing import Any, Dict, Iterable, NamedTuple, Optional

from runtime.distributed.ranks import SINGLE, Ranks
from runtime.distributed.watchdog import NO_WATCHDOG, Watchdog
from runtime.tf1 import tf


class RunContext(NamedTuple):
    """What several hooks need to know of the run."""

    last: int  # its last step
    batch_size: int
    ranks: Ranks = SINGLE
    watchdog: Watchdog = NO_WATCHDOG  # to be paused while a hook takes long


class Hook:
    """Does nothing; the base of the others. `step` counts the steps that were made."""

    interval: Optional[int] = None

    def due(self, step: int) -> bool:
        """Whether this step is at the hook's interval."""
        return self.interval is not None and step % self.interval == 0

    def begin(self, session: tf.Session, step: int) -> None:
        """Called once before the first step, after which `step` steps are made."""

    def wants(self, step: int) -> Iterable[str]:
        """Names of the scalars of StepOps to fetch in this step."""
        return ()

    def after(self, step: int, values: Dict[str, Any], seconds: float) -> None:
        """Called after a step. values: the fetched scalars; seconds: how long it took."""

    def end(self, step: int) -> None:
        """Called once after the last step."""
