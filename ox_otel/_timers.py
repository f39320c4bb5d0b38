"""Timers on the CPU clocks of threads: which threads have one, and which must not.

A process has one set of them and one signal, so one profiler of it can have them.
"""

import random
import signal
from collections.abc import Callable, Iterable, Iterator

from ox_otel import _ticks
from ox_otel._fork import follow_forks
from ox_otel._interpreter import native_id_of
from ox_otel._looks import Stranger, Thread
from ox_otel._tasks import blocked_by
from ox_otel._threads import read_clock
from ox_otel._tickers import Ticker

_owner: "Timers | None" = None


def _after_fork() -> None:
    """In a child nobody ticks."""
    global _owner  # noqa: PLW0603
    _owner = None


follow_forks(_after_fork)


class Timers:
    """The timers of threads that tick every *period* nanoseconds of their CPU.

    *on_error* is called with `timer` where the system has none for a thread.

    Attributes:
        period: that of timers to come.
        tickers: the threads that have a timer, by ident.
        deaf: those that block the signal, or can have no timer.
    """

    def __init__(self, on_error: Callable[[str], None]) -> None:
        self.period = 0
        self.tickers: dict[int, Ticker] = {}
        self.deaf: set[Thread] = set()
        self._by_handle: dict[int, Ticker] = {}
        self._on_error = on_error

    def claim(self) -> str:
        """Have the timers of this process and their signal; return why that cannot be, or nothing."""
        global _owner  # noqa: PLW0603 - a process has one set of timers and one signal
        if _owner not in (None, self):
            return "another profiler of this process has the ticks"
        _owner = self  # before anything is called: another thread may ask meanwhile
        if taken := _ticks.claim():
            return f"somebody else handles {signal.Signals(taken).name}"
        return ""

    def are_ours(self) -> bool:
        """Return whether nobody else has them, since `claim` was called."""
        return _owner is self

    def may_be_ours(self) -> bool:
        """Return whether that is so or may be soon."""
        return _owner in (None, self)

    def release(self) -> None:
        """Give the signal back; no thread may have a timer by then."""
        global _owner  # noqa: PLW0603
        if _owner is self:
            _ticks.forget()
            _ticks.release()
            _owner = None
        self.deaf = set()

    def arm(self, threads: Iterable[Thread]) -> None:
        """Give a timer to each of the threads that can have one."""
        for thread in threads:
            if thread.clock is None or thread in self.deaf:
                continue
            if is_deaf(thread):
                self.deaf.add(thread)
                continue
            first = random.randint(1, self.period)  # noqa: S311 - not a secret
            try:
                handle = _ticks.arm(thread.ident, native_id_of(thread.clock), first, self.period)
            except LookupError:
                continue  # it ends
            except OSError:
                if read_clock(thread):  # or it has ended
                    self._on_error("timer")
                    self.deaf.add(thread)  # not to be asked for at each sample, in vain
                continue
            ticker = Ticker(thread, handle)
            self.tickers[thread.ident] = self._by_handle[handle] = ticker

    def disarm(self, ticker: Ticker) -> None:
        """Take away the timer of a thread, dead or alive."""
        _ticks.disarm(ticker.handle)
        del self._by_handle[ticker.handle]
        del self.tickers[ticker.thread.ident]

    def keep_to(self, threads: Iterable[Thread]) -> None:
        """Forget who was deaf and is not among *threads*."""
        if self.deaf:
            self.deaf.intersection_update(threads)

    def ticks(self) -> Iterator[tuple[Ticker, int, bytes | tuple[int | Stranger, ...] | None]]:
        """Yield the ticks since the last time: of whom, for how many periods, and the stack."""
        for handle, weight, stack in _ticks.drain() if _owner is self else ():
            if ticker := self._by_handle.get(handle):  # or it comes late
                yield ticker, weight, stack


def is_deaf(thread: Thread) -> bool:
    """Return whether a thread blocks the signal of the ticks, or is gone."""
    if thread.clock is None:
        return False
    blocked = blocked_by(native_id_of(thread.clock), _ticks.read_task)
    return blocked is None or bool(blocked >> (signal.SIGURG - 1) & 1)
