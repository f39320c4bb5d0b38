"""What ticks know of one thread: the CPU that is due, and where the time is that it waited for a core.

A sampler in Python sees a thread when that lets go of the GIL, and credits the place with all the
waiting since the last look. But a thread that waits for a core does so anywhere, mostly where it
burns; and then the sampler, which waits for the GIL meanwhile, finds it at the next call that lets go
of it. The kernel knows how long it was: that much is taken from where it was counted and shared out
over the places at which the thread has ticked.
"""

from collections.abc import Iterable
from heapq import nlargest

from ox_otel._interpreter import native_id_of
from ox_otel._looks import Thread
from ox_otel._tallies import Ids, Tally
from ox_otel._tasks import core_wait
from ox_otel._ticks import read_task

NOTABLE = 50_000_000
"""Nanoseconds of waiting from one batch to the next; with less, nobody is asked for what."""

ASKED = 4
"""Threads a batch that the kernel is asked about, those that waited longest: a file is read for each."""


class Ticker:
    """The CPU and the waits of one thread that ticks; times in nanoseconds."""

    __slots__ = ("_core_wait", "_ticked", "_waits", "due", "handle", "ids", "thread", "ticks")

    def __init__(self, thread: Thread, handle: int) -> None:
        self.thread = thread
        self.handle = handle
        self.due = 0  # what its clock has counted and no tick stands for yet
        self.ticks = 0  # since the last batch
        self.ids: Ids = thread.ids  # where it ticked last
        self._ticked: dict[Tally, int] = {}  # the CPU of these ticks
        self._waits: dict[Tally, int] = {}  # since the last batch
        self._core_wait: int | None = None  # until the last batch, if that asked for it

    def tick(self, tally: Tally, ticks: int, cpu: int) -> None:
        """Count *ticks* that stand for so much *cpu*."""
        tally.cpu += cpu
        self.due -= cpu
        self.ticks += ticks
        self._ticked[tally] = self._ticked.get(tally, 0) + cpu

    def wait(self, tally: Tally, waited: int) -> None:
        """Count time that the thread has waited, as far as one could see."""
        tally.wait += waited
        self._waits[tally] = self._waits.get(tally, 0) + waited

    @property
    def waited(self) -> int:
        """How long it has waited since the last batch, if it has ticked as well."""
        return sum(self._waits.values()) if self._ticked else 0

    def place_core_wait(self) -> None:
        """Count what it waited for a core since the last batch where it has ticked."""
        before, self._core_wait = self._core_wait, _core_wait(self.thread)
        if before is None or self._core_wait < before:
            return  # nobody had asked before, or it has ended
        waited = self.waited
        share = min(self._core_wait - before, waited)
        moved = 0
        for tally, counted in self._waits.items():
            part = counted * share // waited
            tally.wait -= part
            moved += part
        cpu = sum(self._ticked.values())
        for tally, counted in self._ticked.items():
            part = moved * counted // cpu
            tally.wait += part
            moved -= part
            cpu -= counted

    def close(self, *, asked: bool) -> None:
        """Begin a new batch, this one having *asked* for the time that it waited for a core."""
        self.ticks = 0
        self._ticked = {}
        self._waits = {}
        if not asked:
            self._core_wait = None


def place_core_waits(tickers: Iterable[Ticker]) -> None:
    """Place what threads waited for cores since the last batch, and begin a new one."""
    tickers = list(tickers)
    notable = [ticker for ticker in tickers if ticker.waited >= NOTABLE]
    asked = nlargest(ASKED, notable, key=lambda ticker: ticker.waited)
    for ticker in asked:
        ticker.place_core_wait()
    for ticker in tickers:
        ticker.close(asked=ticker in asked)


def _core_wait(thread: Thread) -> int:
    clock = thread.clock
    return 0 if clock is None else core_wait(native_id_of(clock), read_task)
