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

from ox_otel._interpreter import core_wait
from ox_otel._tallies import Tally
from ox_otel._tickers import Ticker
from ox_otel.recorders import Function

NOTABLE = 50_000_000
"""Nanoseconds of waiting from one batch to the next; with less, nobody is asked for what."""

ASKED = 4
"""Threads a batch that the kernel is asked about, those that waited longest: a file is read for each."""

FADING = 0.95
"""Part of what is known of a function that counts in the next batch: what it does may change."""

FORGOTTEN = 1_000_000
"""Nanoseconds below which it is not known any more, so that no function is remembered for ever."""


class Waits:
    """Places what threads have waited, by what is known of each function that was seen lately.

    Times in nanoseconds, over all threads; those of a function may be less than nothing by chance.
    """

    def __init__(self) -> None:
        self._seen: dict[Function, float] = {}  # how long it was at the top of a stack
        self._waited: dict[Function, float] = {}  # how long it waited there

    def place(self, tickers: Collection[Ticker], parted: Collection[Ticker]) -> None:
        """Place the waits since the last batch, of those *parted* with too, and begin a new one."""
        self._seen, self._waited = _faded(self._seen), _faded(self._waited)
        notable = [ticker for ticker in tickers if ticker.waited >= NOTABLE]
        asked = nlargest(ASKED, notable, key=lambda ticker: ticker.waited)
        for ticker in tickers:
            if ticker in asked:
                self._place_core_wait(ticker)
            else:
                ticker.core_wait = None
        for ticker in (*tickers, *parted):
            self._learn(ticker)
        for ticker in (*tickers, *parted):
            shares = {tally: round(seen * self._part(tally)) for tally, seen in ticker.seen.items()}
            _move(ticker.waited, ticker.waits, shares)
        for ticker in tickers:
            ticker.close()

    def _place_core_wait(self, ticker: Ticker) -> None:
        """Count what a thread waited for a core since the last batch where it has ticked."""
        before, ticker.core_wait = ticker.core_wait, round(1e9 * core_wait(ticker.thread.clock))
        if before is None or ticker.core_wait < before:
            return  # nobody had asked before, or it has ended
        waited = min(ticker.core_wait - before, ticker.waited)
        _move(waited, ticker.waits, ticker.ticked)
        for tally, part in _shares(waited, ticker.ticked):
            self._add(tally, waited=-part)

    def _learn(self, ticker: Ticker) -> None:
        """Take note of where a thread was seen, and of its CPU."""
        ticker.settle()
        for tally, seen in ticker.seen.items():
            self._add(tally, seen=seen, waited=seen)
        for tally, cpu in ticker.ticked.items():
            self._add(tally, waited=-cpu)
        for tally, part in _shares(ticker.held, ticker.ticked):
            self._add(tally, waited=part)

    def _add(self, tally: Tally, *, waited: int, seen: int = 0) -> None:
        function = tally.stack[-1]
        self._seen[function] = self._seen.get(function, 0.0) + seen
        self._waited[function] = self._waited.get(function, 0.0) + waited

    def _part(self, tally: Tally) -> float:
        """Return which part of the time that its function was seen was waiting, from 0 to 1."""
        function = tally.stack[-1]
        seen, waited = self._seen[function], self._waited[function]
        return min(max(waited / seen, 0.0), 1.0) if seen else 0.0


def _faded(times: Mapping[Function, float]) -> dict[Function, float]:
    return {function: FADING * time for function, time in times.items() if abs(time) > FORGOTTEN}


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
