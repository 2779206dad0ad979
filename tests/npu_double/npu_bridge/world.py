"""What the double knows of ranks: who has done what, and their meeting points.

The ranks of a test are threads of one process; a rank's operations are built inside `rank(...)`,
which the adapter learns from its environment instead. Or they are processes, whose environment
says it: they meet in the directory NPU_DOUBLE_WORLD.
"""

import collections
import contextlib
import os
import threading
import time

import numpy as np

PATIENCE = 120  # seconds that a rank waits for the others before it is a mistake


class Mistake(AssertionError):  # noqa: N818
    """Something that the adapter would ignore, or that would hang or end on the device."""


def old():
    """Whether the interface is that of the oldest adapter."""
    import npu_bridge

    return npu_bridge.VERSION == "r1.5"


def newest():
    """The newest branch r1.N of the adapter whose options there are."""
    import npu_bridge

    return npu_bridge.VERSIONS[npu_bridge.VERSION]


class World:
    """The ranks of one run, and what each said of each of its collectives."""

    def __init__(self, size=1):
        self.size = size
        self.ranks = [Rank(number) for number in range(size)]
        self.changed = threading.Condition()
        self.said = collections.defaultdict(dict)  # key -> {rank: (signature, array)}
        self.broken = None
        self.overflows = set()  # which reads of the float status say so, whatever the numbers

    def meet(self, key, rank, signature, array):
        """Waits until all ranks have come to their `key`-th collective; the arrays, by rank."""
        if os.environ.get("NPU_DOUBLE_WORLD"):
            return self._meet_in(os.environ["NPU_DOUBLE_WORLD"], key, rank, signature, array)
        with self.changed:
            self.said[key][rank] = (signature, array)
            self.changed.notify_all()
            there = self.changed.wait_for(
                lambda: self.broken or len(self.said[key]) == self.size, PATIENCE
            )
            if self.broken:
                raise Mistake(self.broken)
            found = self.said[key]
            others = [number for number, (said, _) in found.items() if said != signature]
            if not there or others:
                missing = sorted(set(range(self.size)) - set(found))
                self.broken = (
                    f"collective {key}: rank {rank} says {signature}, rank {others[0]} "
                    f"{found[others[0]][0]}"
                    if others
                    else f"collective {key}: ranks {missing} never came"
                )
                self.changed.notify_all()
                raise Mistake(self.broken)
            return [found[number][1] for number in range(self.size)]

    def _meet_in(self, directory, key, rank, signature, array):
        place = os.path.join(directory, ".".join(map(str, key)))
        with open(f"{place}.{rank}.writing", "wb") as stream:
            np.savez(stream, array=array, signature=repr(signature))
        os.rename(f"{place}.{rank}.writing", f"{place}.{rank}")
        arrays, began = [], time.monotonic()
        for number in range(self.size):
            while not os.path.exists(f"{place}.{number}"):
                if time.monotonic() - began > PATIENCE:
                    raise Mistake(f"collective {key}: rank {number} never came")
                time.sleep(0.001)
            with np.load(f"{place}.{number}") as found:
                if str(found["signature"]) != repr(signature):
                    raise Mistake(
                        f"collective {key}: {signature}, rank {number} {found['signature']}"
                    )
                arrays.append(found["array"])
        return arrays


class Rank:
    """What one rank has done: calls it built, by graph; whether HCCL is up; what it compiled."""

    def __init__(self, number):
        self.number = number
        self.started = self.ended = False
        self.graphs = []  # those with collectives, in the order in which they were begun
        self.calls = []  # signatures, in the order in which they were built
        self.fetch_sets = []  # of sessions on the device: each is a compiled graph
        self.statuses = 0  # reads of the float status
        self.broadcast = []  # names of what was broadcast, once it ran
        self.runs = collections.Counter()


_here = threading.local()
_world = None  # of a test, while it has one; else the environment says how large it is
_alone = {}


def world():
    size = int(os.environ.get("RANK_SIZE", "1"))
    return _world or _alone.setdefault(size, World(size))


@contextlib.contextmanager
def ranks(size):
    """A new world of that many ranks, while the context lasts."""
    global _world
    before, _world = _world, World(size)
    try:
        yield _world
    finally:
        _world = before


@contextlib.contextmanager
def rank(number):
    """What is built, and which sessions are opened, by this thread inside is that rank's."""
    before = getattr(_here, "rank", None)
    _here.rank = number
    try:
        yield world().ranks[number]
    except BaseException as error:  # nobody need wait for it
        with world().changed:
            world().broken = world().broken or f"rank {number} ended: {error}"
            world().changed.notify_all()
        raise
    finally:
        _here.rank = before


def current():
    """The rank of this thread: by `rank`, or by the environment, as the adapter has it."""
    number = getattr(_here, "rank", None)
    if number is None:
        number = int(os.environ.get("RANK_ID", "0"))
    return world().ranks[number]


REDUCTIONS = {"sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod}
