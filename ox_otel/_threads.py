"""The portable engine: one native thread looks at the stacks of all others, under the GIL.

The only place that touches frames. It reads `f_code`, `f_globals`, `f_back` and `f_lasti`, keeps
no frame, and holds the GIL for well under the switch interval.

A thread's CPU clock tells how much of the time since the last look it ran. A thread whose clock
stands still has not moved: it waits where it was seen, so it is neither walked again nor written
down before it moves (or a batch is due).
"""

import random
import time
from collections.abc import Callable
from types import FrameType

from ox_otel._interpreter import clock_of, current_frames
from ox_otel._looks import UNSEEN, Look, Mover, Thread
from ox_otel._names import Names
from ox_otel._native import get_ident, own_idents
from ox_otel._placement import Placement, is_interruptible
from ox_otel._tallies import Tallies
from ox_otel.recorders import Stack, Usage

LOOKING = 1_000_000
"""Nanoseconds after which a sample looks at no further thread; chance decides who comes first."""

MAX_STACKS = 2_000
MAX_CODES = 5_000
"""Stacks and code objects remembered; a batch is due at once when there are more."""

UNNOTICED = 30_000
"""Nanoseconds of CPU in a process that may go unnoticed until they have become more."""

NEVER = -UNNOTICED  # a reading of the others' CPU after which no process passes for quiet


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
        self._tallies = Tallies(names)
        self._placement = Placement()
        self._threads: dict[int, Thread] = {}
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
        others = time.process_time_ns() - time.thread_time_ns()
        if self._previous and others - self._others < UNNOTICED:
            self._looks += 1
            # nobody but us has used any CPU, so every thread is where it was
            self._previous = self._now
            return False
        spent, self._others = others - self._others, others
        frames = current_frames()
        self._looks += 1
        # with the frame of this very call in it, the dictionary would keep itself alive
        for ident in {get_ident(), *own_idents} & frames.keys():
            del frames[ident]
        moved = [found for ident in frames if (found := self._moved(ident))]
        for ident in self._threads.keys() - frames.keys():
            self._lose_sight(ident)
        random.shuffle(moved)
        looks: list[Look] = []
        enough = time.monotonic_ns() + LOOKING
        for mover in moved:
            if looks and time.monotonic_ns() > enough:
                # whoever is left out now is credited with all its time when it is looked at next
                self._others = NEVER
                break
            try:
                looks.append(self._look(mover, frames[mover.ident]))
            except Exception:
                self._on_error("thread")
        frames.clear()  # from here on the GIL may be let go of: nothing of the host may end with us
        for look, running in zip(
            looks, self._placement.running(looks, lateness, spent), strict=True
        ):
            self._count(look, running=running)
        self._previous = self._now
        return bool(looks)

    def drain(self) -> dict[Stack, Usage]:
        """Return what each stack used since the last drain."""
        for thread in self._threads.values():
            self._settle_parked(thread, self._looks, self._now)
        standing = {thread.ids: thread.tally for thread in self._threads.values() if thread.ids}
        stacks = self._tallies.take(standing)
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
        self._tallies.forget()
        self._placement.forget()
        for thread in self._threads.values():
            thread.ids = ()
            thread.seen_cpu = UNSEEN
            thread.running = False
        self._others = NEVER

    def _moved(self, ident: int) -> Mover | None:
        """Return the thread *ident* if it may have moved since the last look."""
        thread = self._threads.get(ident)
        if thread is None:
            return self._meet(ident)
        if thread.clock is None:
            # it may have made itself known by now; whether it has moved, nobody can tell
            thread.clock, cpu = clock_of(ident)
            thread.cpu = cpu
        else:
            try:
                cpu = time.clock_gettime_ns(thread.clock)
            except OSError:  # it is gone, and another thread has inherited its ident
                self._settle_parked(thread, self._looks - 1, self._previous)
                return self._meet(ident)
            if cpu == thread.seen_cpu:
                return None
        self._settle_parked(thread, self._looks - 1, self._previous)
        thread.seen_cpu = UNSEEN
        if not thread.ids:  # it had no frame at the last sample: the time before is nobody's
            thread.seen_at = max(thread.seen_at, self._previous)
        return Mover(ident, cpu, time.monotonic_ns())

    def _meet(self, ident: int) -> Mover:
        """Make the acquaintance of a thread that was not there at the last sample."""
        clock, cpu = clock_of(ident)
        born_at = self._previous or self._now
        # whoever has used more CPU than there was time for was there before, unknown to Python
        counted = 0 if cpu <= self._now - born_at else cpu
        self._threads[ident] = Thread(clock, counted, born_at)
        return Mover(ident, cpu, time.monotonic_ns())

    def _lose_sight(self, ident: int) -> None:
        """Count a thread up to now that has no frame any more; forget it if it has ended.

        A thread of a server in C (uWSGI has them) has frames only while it answers a request.
        """
        thread = self._threads[ident]
        self._settle_parked(thread, self._looks - 1, self._previous)
        thread.seen_cpu = UNSEEN
        try:
            cpu = time.clock_gettime_ns(thread.clock)  # type: ignore[arg-type]
        except (OSError, TypeError):  # it is gone, or has no clock by which to tell
            del self._threads[ident]
            return
        if thread.ids:
            used = min(max(cpu - thread.cpu, 0), self._now - thread.seen_at)
            if thread.running:
                thread.tally.cpu += used
            elif used:
                self._tallies.unplaced(thread.ids, thread.ids).cpu += used
        thread.cpu = cpu
        thread.seen_at = self._now
        thread.running = False
        thread.ids = ()

    def _settle_parked(self, thread: Thread, looks: int, now: int) -> None:
        """Count a thread that has stood still, up to *looks* and *now*, where it stands."""
        if thread.seen_cpu != UNSEEN:
            thread.tally.hits += looks - thread.looks
            thread.tally.wait += now - thread.seen_at
            thread.looks = looks
            thread.seen_at = now

    def _look(self, mover: Mover, frame: FrameType) -> Look:
        """Look at a thread that has moved."""
        thread = self._threads[mover.ident]
        ids = self._walk(frame)
        instruction = frame.f_lasti
        interrupted = is_interruptible(frame.f_code, instruction)
        used = max(mover.cpu - thread.cpu, 0)
        site = (ids[0], instruction)
        return Look(thread, mover.cpu, mover.read_at, used, ids, site, interrupted)

    def _count(self, look: Look, *, running: bool) -> None:
        """Count the time since the last look at a thread."""
        thread, tally = look.thread, self._tallies.of(look.ids)
        elapsed = self._now - thread.seen_at
        used = min(look.used, elapsed)
        if running:
            tally.cpu += used
        elif thread.running:
            thread.tally.cpu += used
        elif used:
            self._tallies.unplaced(thread.ids or look.ids, look.ids).cpu += used
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
