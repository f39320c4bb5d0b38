"""The portable engine: one native thread looks at the stacks of all others, under the GIL.

The only place that touches frames. It reads `f_code`, `f_globals`, `f_back` and `f_lasti`, keeps
no frame, and holds the GIL for well under the switch interval.

A thread's CPU clock tells how much of the time since the last look it ran. A thread whose clock
stands still has not moved: it waits where it was seen, so it is neither walked again nor written
down before it moves (or a batch is due).
"""

import _thread
import gc
import random
import sys
import threading
import time
from collections.abc import Callable
from itertools import takewhile
from types import FrameType
from typing import NamedTuple

from ox_otel._names import Names
from ox_otel._native import own_idents
from ox_otel._placement import BUSY, PROMPT, SWITCH, Site, Sites, is_interruptible
from ox_otel.recorders import NOTHING, UNPLACED, Function, Stack, Usage

MAX_WALKS = 128
"""Stacks walked in one sample; more threads than that are looked at in turn, by chance."""

MAX_STACKS = 5_000
MAX_CODES = 5_000
"""Stacks and code objects remembered; a batch is due at once when there are more."""

UNNOTICED = 30_000
"""Nanoseconds of CPU in a process that may go unnoticed until they have become more."""

TOO_LONG = 2_000_000
"""Nanoseconds after which a sample has lost the GIL in between, and clocks prove nothing."""

UNSEEN = -1

_COLLECTS_BETWEEN_INSTRUCTIONS = sys.version_info >= (3, 12)


def unsupported() -> str:
    """Return why this interpreter must not be sampled, or nothing."""
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} does not show the frames of its threads reliably"
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "without the GIL, looking at the frames of a running thread is not safe"
    return ""


def _current_frames() -> dict[int, FrameType]:
    """Return the topmost frame of each thread, by ident."""
    if _COLLECTS_BETWEEN_INSTRUCTIONS:
        return sys._current_frames()
    # Below 3.12 a garbage collection may start inside of the call while it holds the lock over
    # the list of threads; a destructor that then lets go of the GIL deadlocks the process
    # (python/cpython#106883).
    enabled = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        if enabled:
            gc.enable()


def _clock_of(ident: int) -> tuple[int | None, int]:
    """Return the CPU clock of the thread *ident* and its time; None, 0 if we can't read one."""
    if sys.platform != "linux":
        return None, 0
    # not `enumerate()`, which takes a lock, nor `.native_id`, which a subclass may have replaced
    thread = threading._active.get(ident)  # type: ignore[attr-defined]
    if thread is None:
        return None, 0
    native_id = object.__getattribute__(thread, "__dict__").get("_native_id")
    # the kernel's number for the clock of one thread of this process (clock_getres(2)); unlike
    # pthread_getcpuclockid it fails cleanly when the thread is gone
    if native_id is None:
        return None, 0
    clock = (~native_id << 3) | 6
    try:
        return clock, time.clock_gettime_ns(clock)
    except OSError:
        return None, 0


class _Tally:
    """What one stack used since the last drain; times in nanoseconds."""

    __slots__ = ("cpu", "hits", "stack", "wait")

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.hits = self.cpu = self.wait = 0

    def take(self) -> Usage:
        """Return what has been counted and begin anew."""
        cpu, wait = self.cpu * 1e-9, self.wait * 1e-9
        usage = Usage(self.hits, self.hits, cpu, wait, cpu, wait)
        self.hits = self.cpu = self.wait = 0
        return usage


class _Thread:
    """One thread as of the last look at it; times in nanoseconds."""

    __slots__ = ("clock", "cpu", "ids", "looks", "running", "seen_at", "seen_cpu", "tally")

    def __init__(self, clock: int | None, cpu: int, seen_at: int, tally: _Tally) -> None:
        self.clock = clock
        self.cpu = cpu  # how much of its CPU clock has been counted
        self.seen_at = seen_at  # until when its time has been counted
        self.looks = 0  # until which look of the engine its hits have been counted
        self.seen_cpu = UNSEEN  # its CPU clock when its stack was seen
        self.running = False
        self.ids: tuple[int, ...] = ()
        self.tally = tally


class _Look(NamedTuple):
    """A thread as it is seen now; times in nanoseconds."""

    thread: _Thread
    cpu: int  # its CPU clock
    used: int  # of it, what has not been counted yet
    ids: tuple[int, ...]
    tally: _Tally
    site: Site
    running: bool  # beyond doubt


class Threads:
    """Samples the stacks of all threads but our own and the calling one.

    At most *max_depth* frames of each are seen, from the top.

    *on_error* is called with a kind of error whenever a thread could not be looked at; the
    others do not suffer.
    """

    name = "threads"

    def __init__(self, names: Names, max_depth: int, on_error: Callable[[str], None]) -> None:
        self._names = names
        self._max_depth = max_depth
        self._on_error = on_error
        self._tallies: dict[tuple[int, ...], _Tally] = {}
        self._sites = Sites()
        self._threads: dict[int, _Thread] = {}
        self._looks = 0
        self._now = 0
        self._previous = 0
        self._others = 0  # CPU of all threads but ours, when they were looked at

    @property
    def full(self) -> bool:
        """Whether a drain is due before the memory bound is passed."""
        return len(self._tallies) > MAX_STACKS or len(self._names.known) > MAX_CODES

    def sample(self, lateness: float) -> bool:
        """Look at every thread once; return whether any has moved since the last sample.

        *lateness* is how long after its due time the sample is taken, in seconds.
        """
        self._now = time.monotonic_ns()
        self._looks += 1
        others = time.process_time_ns() - time.thread_time_ns()
        if self._previous and others - self._others < UNNOTICED:
            # nobody but us has used any CPU, so every thread is where it was
            self._previous = self._now
            return False
        spent, self._others = others - self._others, others
        frames = _current_frames()
        # with the frame of this very call in it, the dictionary would keep itself alive
        for ident in {_thread.get_ident(), *own_idents} & frames.keys():
            del frames[ident]
        moved = [found for ident in frames if (found := self._moved(ident))]
        for ident in self._threads.keys() - frames.keys():
            self._settle_parked(self._threads.pop(ident), self._looks - 1, self._previous)
        if len(moved) > MAX_WALKS:
            # whoever is left out now is credited with all its time when it is looked at next
            moved = random.sample(moved, MAX_WALKS)
        looks = []
        for ident, cpu in moved:
            try:
                looks.append(self._look(ident, frames[ident], cpu))
            except Exception:
                self._on_error("thread")
        self._weigh(looks, lateness, spent)
        self._previous = self._now
        return True

    def drain(self) -> dict[Stack, Usage]:
        """Return what each stack used since the last drain."""
        for thread in self._threads.values():
            self._settle_parked(thread, self._looks, self._now)
        used = {
            ids: tally
            for ids, tally in self._tallies.items()
            if tally.hits or tally.wait or tally.cpu
        }
        stacks: dict[Stack, Usage] = {}
        for tally in used.values():
            stacks[tally.stack] = stacks.get(tally.stack, NOTHING).plus(tally.take())
        # what was not seen this time is forgotten, but for the stacks that threads still stand at
        self._tallies = used | {t.ids: t.tally for t in self._threads.values() if t.ids}
        if len(self._names.known) > MAX_CODES:
            self._forget()
        return stacks

    def reset(self) -> None:
        """Forget the threads: the time until the next sample is nobody's."""
        self._threads = {}
        self._previous = 0

    def _forget(self) -> None:
        """Let go of all code objects and everything that is keyed by their ids."""
        self._names.forget()
        self._tallies = {}
        self._sites.forget()
        for thread in self._threads.values():
            thread.ids = ()
            thread.seen_cpu = UNSEEN
            thread.running = False

    def _moved(self, ident: int) -> tuple[int, int] | None:
        """Return *ident* and its CPU clock if the thread may have moved since the last look."""
        thread = self._threads.get(ident)
        if thread is None:
            return self._meet(ident)
        try:
            cpu = 0 if thread.clock is None else time.clock_gettime_ns(thread.clock)
        except OSError:  # it is gone, and another thread has inherited its ident
            self._settle_parked(thread, self._looks - 1, self._previous)
            return self._meet(ident)
        if cpu == thread.seen_cpu and thread.clock is not None:
            return None
        self._settle_parked(thread, self._looks - 1, self._previous)
        thread.seen_cpu = UNSEEN
        return ident, cpu

    def _meet(self, ident: int) -> tuple[int, int]:
        """Make the acquaintance of a thread that was not there at the last sample."""
        clock, cpu = _clock_of(ident)
        born_at = self._previous or self._now
        # whoever has used more CPU than there was time for was there before, unknown to Python
        counted = 0 if cpu <= self._now - born_at else cpu
        self._threads[ident] = _Thread(clock, counted, born_at, _Tally(()))
        return ident, cpu

    def _settle_parked(self, thread: _Thread, looks: int, now: int) -> None:
        """Count a thread that has stood still, up to *looks* and *now*, where it stands."""
        if thread.seen_cpu != UNSEEN:
            thread.tally.hits += looks - thread.looks
            thread.tally.wait += now - thread.seen_at
            thread.looks = looks
            thread.seen_at = now

    def _look(self, ident: int, frame: FrameType, cpu: int) -> _Look:
        """Look at a thread that has moved."""
        thread = self._threads[ident]
        ids = self._walk(frame)
        instruction = frame.f_lasti
        running = is_interruptible(frame.f_code, instruction)
        used = max(cpu - thread.cpu, 0)
        return _Look(thread, cpu, used, ids, self._tally(ids), (ids[0], instruction), running)

    def _weigh(self, looks: list[_Look], lateness: float, others: int) -> None:
        """Find out who of those that stand in a call was running, and count everybody's time."""
        interrupted = any(look.running for look in looks)
        for look in looks:
            running = look.running
            if not running:
                alone = look.used > BUSY and others - look.used < BUSY
                burning = self._ticks(look) or (alone and lateness >= SWITCH)
                waiting = lateness < PROMPT and not interrupted
                running = self._sites.burns(look.site, burning=burning, waiting=waiting)
            self._count(look, running=running)

    def _ticks(self, look: _Look) -> bool:
        """Return whether the thread's clock has gone on while we hold the GIL."""
        elapsed = time.monotonic_ns() - self._now
        if look.thread.clock is None or elapsed > TOO_LONG:
            return False
        return time.clock_gettime_ns(look.thread.clock) - look.cpu >= elapsed // 2

    def _count(self, look: _Look, *, running: bool) -> None:
        """Count the time since the last look at a thread."""
        thread, tally = look.thread, look.tally
        elapsed = self._now - thread.seen_at
        used = min(look.used, elapsed) if thread.clock is not None else 0
        if running:
            tally.cpu += used
        elif thread.running:
            thread.tally.cpu += used
        elif used:
            self._unplaced(thread.ids or look.ids, look.ids).cpu += used
        tally.hits += 1
        tally.wait += elapsed - used
        # not the clock: what it seems to have run ahead of the time counts next time
        thread.cpu += used
        thread.seen_at = self._now
        thread.seen_cpu = look.cpu
        thread.looks = self._looks
        thread.running = running
        thread.ids = look.ids
        thread.tally = tally

    def _walk(self, frame: FrameType | None) -> tuple[int, ...]:
        """Return the ids of the code objects on a stack, leaf first."""
        names = self._names
        ids: list[int] = []
        while frame is not None and len(ids) < self._max_depth:
            code = frame.f_code
            if id(code) not in names.known:
                # not `.get`: the globals may be a subclass of dict with a method of the host's
                names.add(code, dict.get(frame.f_globals, "__name__"))
            ids.append(id(code))
            frame = frame.f_back
        return tuple(ids)

    def _tally(self, ids: tuple[int, ...]) -> _Tally:
        tally = self._tallies.get(ids)
        if tally is None:
            tally = self._tallies[ids] = _Tally(self._names.stack(ids))
        return tally

    def _unplaced(self, before: tuple[int, ...], after: tuple[int, ...]) -> _Tally:
        """Return the tally for CPU used somewhere below the callers that two stacks share."""
        pairs = zip(reversed(before), reversed(after), strict=False)
        shared = tuple(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))[::-1]
        ids = (0, *shared)  # no code object has the id 0
        tally = self._tallies.get(ids)
        if tally is None:
            callers = self._names.stack(shared)
            unplaced = Function(callers[-1].module, UNPLACED)
            tally = self._tallies[ids] = _Tally((*callers, unplaced) if shared else (unplaced,))
        return tally
