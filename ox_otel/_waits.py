"""Where threads that tick have waited: how long is known, where is estimated, batch by batch.

Looks that take no lock come at random moments, so a thread is found still at each place as often as
it waits there: for a file, a lock, the GIL or a core. All that it waited is shared out over the
places where it was found so.

But to look takes a core, and where all are busy, one from a thread that burns: that stands still for
as long as it is looked at. How often is known: of the CPU that threads have used, so much was never
found in use. That much, in proportion to the CPU that ticks have found there, is not waiting.
"""

import random
from collections.abc import Callable, Collection, Iterator, Mapping

from ox_otel._tallies import Tally
from ox_otel._tickers import Ticker
from ox_otel.recorders import Function

FADING = 0.95
"""Part of what is known of a function that counts in the next batch: what it does may change."""

FORGOTTEN = 1_000_000
"""Nanoseconds below which it is not known any more, so that no function is remembered for ever."""


class Habit:
    """What a function did lately at the top of stacks, over all threads; nanoseconds."""

    __slots__ = ("cpu", "still")

    def __init__(self) -> None:
        self.cpu = self.still = 0.0

    def fade(self) -> bool:
        """Let what is known count for less; return whether it is worth knowing."""
        self.cpu *= FADING
        self.still *= FADING
        return self.cpu + self.still > FORGOTTEN


class Waits:
    """Places what threads that tick have waited, and the hits of looks that found them running."""

    def __init__(self) -> None:
        self._habits: dict[Function, Habit] = {}
        self._used = 0.0
        self._running = 0.0

    def place(self, tickers: Collection[Ticker], somewhere: Callable[[Ticker], Tally]) -> None:
        """Count what is known since the last batch, and begin a new one.

        *somewhere* returns the place for what is not known where, of a thread.
        """
        self._habits = {name: habit for name, habit in self._habits.items() if habit.fade()}
        self._used *= FADING
        self._running *= FADING
        active = [t for t in tickers if t.waited or t.still or t.runs or t.ticked]
        for ticker in active:
            self._learn(ticker)
        for ticker in active:
            parts = {t: round(still * self._waiting(t)) for t, still in ticker.still.items()}
            if not any(parts.values()):
                parts = ticker.waits
            if not any(parts.values()):
                parts = {somewhere(ticker): 1}
            for tally, wait in _shares(ticker.waited, parts):
                tally.wait += wait
            places = ticker.ticked or {somewhere(ticker): 1}
            for tally in random.choices(list(places), list(places.values()), k=ticker.runs):  # noqa: S311
                tally.hits += 1
            ticker.close()

    def _learn(self, ticker: Ticker) -> None:
        self._used += ticker.used
        self._running += ticker.running
        for tally, still in ticker.still.items():
            self._habit(tally).still += still
        for tally, cpu in ticker.ticked.items():
            self._habit(tally).cpu += cpu

    def _waiting(self, tally: Tally) -> float:
        """Return the part of the time that a place was found still, from 0 to 1, that is waiting."""
        habit = self._habit(tally)
        hidden = max(1 - self._running / self._used, 0.0) if self._used else 0.0
        return max(1 - hidden * habit.cpu / habit.still, 0.0) if habit.still else 0.0

    def _habit(self, tally: Tally) -> Habit:
        function = tally.stack[-1]
        habit = self._habits.get(function)
        if habit is None:
            habit = self._habits[function] = Habit()
        return habit


def _shares(whole: int, parts: Mapping[Tally, int]) -> Iterator[tuple[Tally, int]]:
    """Yield what each has of a whole, in proportion to its part: to the nanosecond, all of it."""
    total = sum(parts.values())
    for tally, part in parts.items():
        share = whole * part // total if total else 0
        yield tally, share
        whole -= share
        total -= part
