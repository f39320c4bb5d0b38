"""What a sampler sees of a thread, and what it remembers of it; times in nanoseconds."""

from math import inf
from typing import NamedTuple

from ox_otel._spans import Span
from ox_otel._tallies import Ids, Tally

Site = tuple[int, int]
"""A call site: the id of a known code object, and the offset of the instruction."""

Stranger = tuple[int, str, str, int]
"""A code object that a tick has seen and Python does not hold: where it was, its qualified name, its
file and its first line."""


class Thread:
    """One thread as of the last look at it."""

    __slots__ = (
        "clock",
        "core_wait",
        "counted",
        "counted_at",
        "cpu",
        "ident",
        "ids",
        "read_at",
        "running",
        "samples",
        "seen",
        "tally",
    )

    def __init__(self, ident: int, clock: int | None, cpu: int, counted_at: int) -> None:
        self.ident = ident
        self.clock = clock
        self.cpu = cpu  # its CPU clock, when that was read last
        self.read_at = counted_at  # when that was
        self.counted = cpu  # how much of its CPU clock has been counted
        self.counted_at = counted_at  # until when its time has been counted
        self.samples = 0  # until which sample of the engine its hits have been counted
        self.seen = False  # whether its stack has been seen since its clock was read last
        self.core_wait = -inf  # how long it had waited for a core when last asked
        self.running = False
        self.ids: Ids = ()
        self.tally = Tally(())


class Look(NamedTuple):
    """A thread as it is seen now."""

    thread: Thread
    used: int  # of its CPU clock, what has not been counted yet
    ids: Ids
    site: Site
    interrupted: bool  # it was running, beyond doubt
    span: Span | None  # whose work it did
