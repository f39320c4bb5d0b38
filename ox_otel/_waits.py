"""Where threads that tick have waited: how long is known, where is estimated, batch by batch.

Ten looks a second cannot follow a thread that burns and waits by turns: each finds it at one place,
and knows how long it waited since the last, but not where. Yet looks come at random moments, so a
function is seen for as much time as it is at the top of the stack, and ticks tell how much of that is
CPU. What is left is waiting. All that a thread waited is shared out over the places where it was
seen, in proportion to the part of their time that is.

Part of the waiting is for a core, which happens anywhere, mostly where CPU is used. The kernel knows
how long it was: that much goes to the places where the thread has ticked.
"""

from collections.abc import Collection, Iterator, Mapping
from heapq import nlargest

from ox_otel._interpreter import native_id_of
from ox_otel._looks import Thread
from ox_otel._tallies import Tally
from ox_otel._tasks import core_wait
from ox_otel._tickers import Ticker
from ox_otel._ticks import read_task
from ox_otel.recorders import Function

NOTABLE = 50_000_000
"""Nanoseconds of waiting from one batch to the next; with less, nobody is asked for what."""

ASKED = 4
"""Threads a batch that the kernel is asked about, those that waited longest: a file is read for each."""

FADING = 0.95
"""Part of what is known of a function that counts in the next batch: what it does may change."""

FORGOTTEN = 1_000_000
"""Nanoseconds below which it is not known any more, so that no function is remembered for ever."""


class Habit:
    """What a function did lately at the top of stacks, over all threads; nanoseconds."""

    __slots__ = ("cpu", "prompt", "seen", "waited")

    def __init__(self) -> None:
        self.cpu = self.seen = 0.0
        self.waited = 0.0  # what is left of the time; by chance, less than nothing
        self.prompt = 0.0  # seen by samples that were not late, so while nobody held the GIL

    def fade(self) -> bool:
        """Let what is known count for less; return whether it is worth knowing."""
        self.cpu *= FADING
        self.seen *= FADING
        self.waited *= FADING
        self.prompt *= FADING
        return self.cpu + self.seen > FORGOTTEN

    @property
    def hidden(self) -> float:
        """The part of its CPU, from 0 to 1, that is used with the GIL; there must be some."""
        return max(1 - self.prompt / self.cpu, 0.0)

    @property
    def waiting(self) -> float:
        """The part of the time that it was seen, from 0 to 1, that is waiting."""
        return min(max(self.waited / self.seen, 0.0), 1.0) if self.seen else 0.0


class Waits:
    """Places what threads that tick have waited."""

    def __init__(self) -> None:
        self._habits: dict[Function, Habit] = {}

    def place(self, tickers: Collection[Ticker], parted: Collection[Ticker]) -> None:
        """Place the waits since the last batch, of those *parted* with too, and begin a new one."""
        self._habits = {name: habit for name, habit in self._habits.items() if habit.fade()}
        active = [ticker for ticker in tickers if ticker.waits or ticker.ticked]
        notable = [ticker for ticker in active if ticker.waited >= NOTABLE]
        asked = nlargest(ASKED, notable, key=lambda ticker: ticker.waited)
        for ticker in active:
            if ticker in asked:
                self._place_core_wait(ticker)
            else:
                ticker.core_wait = None
        everyone = [*active, *parted]
        for ticker in everyone:
            self._learn(ticker)
        for ticker in everyone:
            self._learn_of_holding(ticker)
        for ticker in everyone:
            parts = {t: round(seen * self._habit(t).waiting) for t, seen in ticker.seen.items()}
            _move(ticker.waited, ticker.waits, parts)
        for ticker in active:
            ticker.close()

    def _place_core_wait(self, ticker: Ticker) -> None:
        """Count what a thread waited for a core since the last batch where it has ticked."""
        before, ticker.core_wait = ticker.core_wait, _core_wait(ticker.thread)
        if before is None or ticker.core_wait < before:
            return  # nobody had asked before, or it has ended
        waited = min(ticker.core_wait - before, ticker.waited)
        _move(waited, ticker.waits, ticker.ticked)
        for tally, part in _shares(waited, ticker.ticked):
            self._habit(tally).waited -= part

    def _learn(self, ticker: Ticker) -> None:
        """Take note of where a thread was seen, and of its CPU."""
        ticker.settle()
        for tally, seen in ticker.seen.items():
            habit = self._habit(tally)
            habit.seen += seen
            habit.waited += seen
            habit.prompt += ticker.prompt.get(tally, 0)
        for tally, cpu in ticker.ticked.items():
            habit = self._habit(tally)
            habit.cpu += cpu
            habit.waited -= cpu

    def _learn_of_holding(self, ticker: Ticker) -> None:
        """Take note of the time for which a thread that held the GIL was seen elsewhere."""
        burned = {t: round(cpu * self._habit(t).hidden) for t, cpu in ticker.ticked.items()}
        for tally, part in _shares(ticker.held, burned):
            self._habit(tally).waited += part

    def _habit(self, tally: Tally) -> Habit:
        function = tally.stack[-1]
        habit = self._habits.get(function)
        if habit is None:
            habit = self._habits[function] = Habit()
        return habit


def _core_wait(thread: Thread) -> int:
    clock = thread.clock
    return 0 if clock is None else core_wait(native_id_of(clock), read_task)


def _move(waited: int, sources: dict[Tally, int], targets: Mapping[Tally, int]) -> None:
    """Count so much waiting, at most all of it, no longer at *sources*, but in parts at *targets*.

    Where no target has a part, nothing is moved.
    """
    if any(targets.values()):
        for tally, part in _shares(waited, sources):
            tally.wait -= part
            sources[tally] -= part
        for tally, part in _shares(waited, targets):
            tally.wait += part


def _shares(whole: int, parts: Mapping[Tally, int]) -> Iterator[tuple[Tally, int]]:
    """Yield what each has of a whole, in proportion to its part: to the nanosecond, all of it."""
    total = sum(parts.values())
    for tally, part in parts.items():
        share = whole * part // total if total else 0
        yield tally, share
        whole -= share
        total -= part
