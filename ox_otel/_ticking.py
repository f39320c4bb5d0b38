"""The engine `ticks`: the kernel tells who uses CPU, the portable engine who waits.

Each thread has a timer on its own CPU clock, see `_ticks.c`. A tick stands for one period of its
CPU, so that the CPU seconds of a stack are those that the kernel has counted, whoever had the GIL.
All else, hits and waiting, comes from samples, of which a few a second will do. Most of them take
no GIL either: threads that tick are watched from without, see `_ticks.c`, and only when somebody else
has moved does the portable engine make a list of all.
"""

import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from ox_otel import _ticks
from ox_otel._heat import REMEMBERED
from ox_otel._looks import Look, Site, Stranger, Thread
from ox_otel._names import Names
from ox_otel._spans import is_traced
from ox_otel._strangers import Strangers
from ox_otel._tallies import Ids, Tally
from ox_otel._threads import UNNOTICED, Threads, read_clock
from ox_otel._tickers import Ticker
from ox_otel._timers import Timers, is_deaf
from ox_otel._waits import Waits
from ox_otel.recorders import Stack, Usage

PACE = 5
"""Intervals from one sample to the next."""

RESTLESS = 5 * PACE
"""Samples, an interval apart, after one that met a new thread.

Who is not there for long is seen by chance, and has a timer only once it has been seen: where each
request has a thread of its own, all that it uses would go unseen otherwise.
"""

TICKS_AN_INTERVAL = 2
"""So many ticks come of a thread that uses CPU for one interval."""

MOST_DUE = 32
"""Ticks that may be due before they are taken; a batch takes all."""

PATIENCE = 50_000_000
"""Nanoseconds of CPU without a tick, or five periods, after which it is given up as not to be placed.

A tick takes two beats of the kernel's clock, up to 10 ms apart, that the thread meets.
"""

CHECKED = 5
"""Batches until all clocks are read, if what the process used gives no reason to."""

WATCHED = 64
"""Threads that can be watched at a time, and samples that can be taken, see `_ticks.c`."""

LOOKS = 200
"""Looks that a watch may return: to count them takes the GIL, some five microseconds each."""

SPAN_PACE = 5
"""Samples from one to the next with a list of all, where somebody traces: spans take frames."""

NO_SITE: Site = (0, 0)  # it is known who used CPU, whether it was seen running or not


class Ticks(Threads):
    """Counts CPU by ticks, the rest by samples; both keep to the seconds that *interval* returns.

    A thread that cannot have a timer, or blocks the signal, is left to the portable engine; all
    are when somebody else takes the signal, which `reason` then says.
    """

    name = "ticks"
    pace = PACE
    watched = WATCHED

    def __init__(
        self,
        names: Names,
        max_depth: int,
        on_error: Callable[[str], None],
        interval: Callable[[], float],
    ) -> None:
        super().__init__(names, max_depth, on_error)
        self._interval = interval
        self._timers = Timers(on_error)
        self._tickers = self._timers.tickers
        self._strangers = Strangers(names)
        self._ids: dict[bytes, Ids] = {}  # of stacks, as ticks write them down
        self._due = 0  # the CPU of all threads that tick since their ticks were taken
        self._parted: list[Ticker] = []  # whose waits are yet to be placed
        self._waits = Waits()
        self._looked: dict[int, tuple[Ticker, int, Ids | None]] = {}  # with what their clocks read
        self._looked_at = 0
        self._is_pending = False  # that sample, until it takes a list
        self._restless = 0  # samples to be taken an interval apart
        self._batches = 0  # since all clocks were read because it was time
        self._batch_at = 0

    def watch(self, dues: Sequence[float]) -> list[tuple[float, bool]]:
        """Take samples at these times, without the GIL, until that is needed or somebody rings.

        Returns when they were taken, in seconds like *dues*, and whether any thread had moved. What is
        seen at a time that needs the GIL, too, is kept for `sample`, to be called now.
        """
        if self._is_pending or not self._is_ready():
            return []
        most = self._samples_before_a_list()
        tickers = [t for ident in self._moving if (t := self._tickers.get(ident))]
        if not most or len(tickers) > WATCHED:
            return []
        if tickers:
            most = min(most, LOOKS // len(tickers))
        samples = _ticks.watch(
            [(t.handle, t.thread.clock or 0, t.thread.cpu, t.thread.seen) for t in tickers],
            [round(1e9 * due) for due in dues[:most]],
            self._explained,
            UNNOTICED,
        )
        taken = []
        for at, others, is_complete, looks in samples:
            self._looked_at = at
            self._is_pending = not is_complete
            for number, cpu, stack in looks:
                ticker = tickers[number]
                ids = None if stack is None else self._ids_of(stack)
                self._looked[ticker.thread.ident] = ticker, cpu, ids
                self._count_parked(ticker.thread, self._samples, self._previous)
                self._read(ticker.thread, cpu)
            if is_complete:
                self._now = at
                self._others = min(others, self._explained)  # the rest is yet to be looked for
                self._samples += 1
                self._restless = max(self._restless - 1, 0)
                self._count_looks()
                self._previous = at
                taken.append((at * 1e-9, bool(looks)))
        self._catch_up()
        return taken

    def _samples_before_a_list(self) -> int:
        """Return how many samples may be taken until one is to list all frames, or the pace changes."""
        most = self._restless or WATCHED
        return min(most, -self._samples % SPAN_PACE) if is_traced() else most

    def wake(self) -> None:
        """End a watch."""
        if self._timers.may_be_ours():  # we may be about to take them, and to watch
            _ticks.ring()

    def sample(self, delay: float) -> bool:
        """Look at every thread once, as `Threads` does, but for those that have been looked at."""
        if not self._is_ready():
            return super().sample(delay)
        moved = super().sample(delay) or bool(self._looked)
        self._is_pending = False
        now, self._now = self._now, self._looked_at
        self._count_looks()
        self._now = now
        new = self._moving & self._threads.keys() - self._tickers.keys()
        self._timers.arm(self._threads[ident] for ident in new)
        self._restless = max(self._restless - 1, 0)
        self._catch_up()
        return moved

    def _is_ready(self) -> bool:
        """Return whether there can be ticks; where there cannot, stand back."""
        if not self.reason and (reason := self._timers.claim()):
            self._stand_back(reason)
        if self.reason:
            return False
        self._set_period(round(1e9 * self._interval() / TICKS_AN_INTERVAL))
        return True

    def _catch_up(self) -> None:
        """Take the ticks if there are many; have the ticks know what has become known."""
        self.pace = Threads.pace if self._restless else PACE
        if self._due > MOST_DUE * self._timers.period:
            self._take()
            self._leave_alone()
        self._strangers.introduce()

    def _count_looks(self) -> None:
        """Count the time since the last look at the threads that have been looked at now."""
        looked, self._looked = self._looked, {}
        for ticker, cpu, ids in looked.values():
            thread = ticker.thread
            if self._tickers.get(thread.ident) is not ticker:
                continue  # it has ended since
            elapsed = self._now - thread.counted_at
            used = min(max(cpu - thread.counted, 0), elapsed)
            if ids is None:
                self._count_run(ticker, elapsed, used)
            else:
                look = Look(thread, used, ids, NO_SITE, interrupted=False, span=None)
                self._count(look, running=False)
                ticker.look(thread.tally, elapsed, used)
                thread.seen = cpu == thread.cpu  # or it has gone on since

    def _count_run(self, ticker: Ticker, elapsed: int, used: int) -> None:
        """Count the time since the last look at a thread that runs: where, ticks will tell."""
        ticker.due += used
        self._due += used
        ticker.waited += elapsed - used
        ticker.look(None, elapsed, used)
        thread = ticker.thread
        thread.counted += used
        thread.counted_at = self._now

    def _moved(self, ident: int) -> Thread | None:
        """Return the thread *ident* if it may have moved since it was asked, or looked at, last."""
        if ident not in self._looked:
            return super()._moved(ident)
        thread = self._looked[ident][0].thread
        if cpu := read_clock(thread):
            self._read(thread, cpu)  # what it has used since explains nobody else's
        return None

    def drain(self) -> dict[Stack, Usage]:
        """Return what each stack used since the last drain."""
        self._take()
        if len(self._ids) > REMEMBERED:
            self._ids = {}
        for ticker in list(self._tickers.values()):
            if ticker.due > self._patience:
                if not ticker.ticks and is_deaf(ticker.thread):
                    self._disarm(ticker)
                else:
                    self._give_up(ticker)
        self._waits.place([*self._tickers.values(), *self._parted], self._somewhere)
        self._parted = []
        return super().drain()

    def cost(self) -> float:
        """Return the CPU seconds that ticks have taken from their threads since the last call."""
        return _ticks.cost() * 1e-9 if self._timers.are_ours() else 0.0

    def reset(self) -> None:
        """Forget the threads, and have no timer and no signal until the next sample."""
        self._stand_back("")
        self.name, self.pace, self.watched = Ticks.name, Ticks.pace, Ticks.watched
        self._restless = 0
        super().reset()

    def _stand_back(self, reason: str) -> None:
        """Leave all threads to the portable engine, for *reason*."""
        self._disarm_all()
        self._looked, self._is_pending = {}, False
        self._strangers.forget()
        self._timers.release()
        self.reason = reason
        self.name, self.pace, self.watched = Threads.name, Threads.pace, Threads.watched

    def _set_period(self, period: int) -> None:
        """Have each thread tick every *period* from now on, if that differs much."""
        if not 0.8 < self._timers.period / period < 1.25:
            self._disarm_all()
            self._timers.period = period

    @property
    def _patience(self) -> int:
        return max(PATIENCE, 5 * self._timers.period)

    def _leave_alone(self) -> None:
        """End the ticks of threads that have come to block the signal: they may wait for it."""
        for ident in self._moving & self._tickers.keys():
            ticker = self._tickers[ident]
            if ticker.due > self._patience and is_deaf(ticker.thread):
                self._disarm(ticker)

    def _disarm_all(self) -> None:
        """End the ticks of all threads."""
        if self._tickers:
            self._take()
        for ticker in list(self._tickers.values()):
            self._disarm(ticker)

    def _disarm(self, ticker: Ticker) -> None:
        """End the ticks of a thread; what is due is not to be placed, what ticks told early is told."""
        self._timers.disarm(ticker)
        if ticker.due < 0:
            ticker.thread.counted -= ticker.due
        self._give_up(ticker)
        self._parted.append(ticker)

    def _give_up(self, ticker: Ticker) -> None:
        if ticker.due > 0:
            self._unplaced(ticker).cpu += ticker.due
            ticker.given_up += ticker.due
        ticker.due = 0

    def _somewhere(self, ticker: Ticker) -> Tally:
        """Return where a thread was seen last, as far as that is known."""
        thread = ticker.thread
        return thread.tally if thread.ids else self._tallies.unplaced((), ())

    def _unplaced(self, ticker: Ticker) -> Tally:
        return self._tallies.unplaced(ticker.ids, ticker.ids)

    def _take(self) -> None:
        """Count the ticks since the last time."""
        self._due = 0
        for ticker, weight, stack in self._timers.ticks():
            if stack is None:
                self._on_error("torn")
                tally = self._unplaced(ticker)
            elif not stack:
                tally = self._tallies.unplaced((), ())
            else:
                ticker.ids = self._ids_of(stack)
                tally = self._tallies.of(ticker.ids)
            ticker.tick(tally, weight, weight * self._timers.period)

    def _ids_of(self, stack: bytes | tuple[int | Stranger, ...]) -> Ids:
        """Return the ids of a stack that a tick has written down, as deep as is looked at."""
        if isinstance(stack, bytes):  # of a thread whose code is all known
            ids = self._ids.get(stack)
            if ids is None:
                addresses = memoryview(stack).cast("P").tolist()
                ids = self._ids[stack] = tuple(addresses[: self._max_depth])
            return ids
        id_of = self._strangers.id_of
        frames = stack[: self._max_depth]
        return tuple([frame if isinstance(frame, int) else id_of(frame) for frame in frames])

    def _place(self, look: Look, used: int, *, running: bool) -> None:
        """Count the CPU of a thread that ticks as due, that of others as the portable engine does."""
        ticker = self._tickers.get(look.thread.ident)
        if ticker is None:
            super()._place(look, used, running=running)
        else:
            ticker.due += used
            self._due += used

    def _count_wait(self, thread: Thread, tally: Tally, elapsed: int, used: int) -> None:
        """Keep the waiting of a thread that ticks until it is known where that was."""
        ticker = self._tickers.get(thread.ident)
        if ticker is None:
            super()._count_wait(thread, tally, elapsed, used)
        else:
            ticker.wait(tally, elapsed - used)

    def _recheck(self) -> None:
        """Have all clocks read after some batches; until then ask those first that moved lately."""
        if self._batches % CHECKED == 0:
            super()._recheck()
        else:
            threads, since = self._threads, self._batch_at
            self._moving = {i for i in self._moving if i in threads and threads[i].read_at > since}
        self._batches += 1
        self._batch_at = time.monotonic_ns()

    def _part(self, idents: AbstractSet[int]) -> None:
        """Part with threads that have ended, once their last ticks are counted."""
        if ended := self._tickers.keys() - idents:
            self._take()
            for ident in ended:
                self._disarm(self._tickers[ident])
        super()._part(idents)
        self._timers.keep_to(self._threads.values())

    def _meet(self, ident: int) -> Thread:
        """Make the acquaintance of a new thread, which may have the ident of one that has ended."""
        if ident in self._tickers:
            self._take()
            self._disarm(self._tickers[ident])
        if ident not in self._away:
            self._restless = RESTLESS
        return super()._meet(ident)

    def _forget(self) -> None:
        """Let go of all code objects, the ticks first."""
        if self._timers.are_ours():
            _ticks.forget()
        self._strangers.forget()
        self._ids = {}
        self._looked = {}
        for ticker in self._tickers.values():
            ticker.ids = ()
        self._batches = 0
        super()._forget()
