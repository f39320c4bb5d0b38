"""What a sampler sees of a thread, and what it remembers of it; times in nanoseconds."""

from math import inf
from typing import NamedTuple

from ox_otel._tallies import Ids, Tally

UNSEEN = -1

Site = tuple[int, int]
"""A call site: the id of a known code object, and the offset of the instruction."""


class Thread:
    """One thread as of the last look at it."""

    __slots__ = (
        "clock",
        "core_wait",
        "cpu",
        "ids",
        "looks",
        "running",
        "seen_at",
        "seen_cpu",
        "tally",
    )

    def __init__(self, clock: int | None, cpu: int, seen_at: int) -> None:
        self.clock = clock
        self.cpu = cpu  # how much of its CPU clock has been counted
        self.seen_at = seen_at  # until when its time has been counted
        self.looks = 0  # until which look of the engine its hits have been counted
        self.seen_cpu = UNSEEN  # its CPU clock when its stack was seen
        self.core_wait = -inf  # how long it had waited for a core when last asked
        self.running = False
        self.ids: Ids = ()
        self.tally = Tally(())


class Mover(NamedTuple):
    """A thread that may have moved since the last look."""

    ident: int
    cpu: int  # its CPU clock
    read_at: int  # when that was read


class Look(NamedTuple):
    """A thread as it is seen now."""

    thread: Thread
    cpu: int  # its CPU clock
    read_at: int  # when that was read
    used: int  # of it, what has not been counted yet
    ids: Ids
    site: Site
    interrupted: bool  # it was running, beyond doubt
