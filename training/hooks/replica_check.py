"""What happens beside the steps where there are many ranks."""

from training.hooks.base import Hook


class FeedWatchdog(Hook):
    """Tells the watchdog of each step: without one, for too long, a host is lost."""

    def __init__(self, dog):
        self.dog = dog

    def after(self, step, values, seconds):
        self.dog.feed(step)


class ReplicaCheck(Hook):
    """Ends a run whose ranks' copies of the net are no longer the same to the bit."""

    def __init__(self, interval, step, ranks):
        self.interval, self.step, self.ranks = interval, step, ranks

    def begin(self, session, step):
        self.session = session

    def after(self, step, values, seconds):
        if self.ranks.size > 1 and self.due(step):
            self.check(step)

    def end(self, step):
        if self.ranks.size > 1:
            self.check(step)

    def check(self, step):
        prints = list(self.session.run(self.step.fingerprints))
        others = [rank for rank, found in enumerate(prints) if found != prints[0]]
        if others:
            raise RuntimeError(
                f"step {step}: the net of {self.ranks.name(others[0])} is not, to the bit, that of "
                f"{self.ranks.name(0)}; its memory or its network is faulty, or this is a bug."
            )
