"""Hooks of runs on several ranks or hosts."""

from typing import Any, Dict, Optional

from runtime.distributed.ranks import Ranks
from runtime.distributed.watchdog import Watchdog
from runtime.tf1 import tf
from training.hooks.base import Hook


class FeedWatchdog(Hook):
    """Reports each step to the watchdog, which counts a host without steps as lost."""

    def __init__(self, watchdog: Watchdog) -> None:
        self.watchdog = watchdog

    def after(self, step: int, values: Dict[str, Any], seconds: float) -> None:
        self.watchdog.feed(step)


class ReplicaCheck(Hook):
    """Ends a run whose ranks' copies of the network are no longer bit-identical."""

    def __init__(self, interval: int, fingerprints: Optional[tf.Tensor], ranks: Ranks) -> None:
        self.interval, self.fingerprints, self.ranks = interval, fingerprints, ranks

    def begin(self, session: tf.Session, step: int) -> None:
        self.session = session

    def after(self, step: int, values: Dict[str, Any], seconds: float) -> None:
        if self.ranks.size > 1 and self.due(step):
            self.check(step)

    def end(self, step: int) -> None:
        if self.ranks.size > 1:
            self.check(step)

    def check(self, step: int) -> None:
        prints = list(self.session.run(self.fingerprints))
        others = [rank for rank, found in enumerate(prints) if found != prints[0]]
        if others:
            raise RuntimeError(
                f"step {step}: the weights of {self.ranks.name(others[0])} differ from those of "
                f"{self.ranks.name(0)}; its memory or its network is faulty, or this is a bug."
            )
