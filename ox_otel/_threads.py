"""The portable engine: one native thread looks at the stacks of all others, under the GIL.

The only place that touches frames. It reads `f_code`, `f_globals`, `f_back` and `f_lasti`, keeps
no frame, and holds the GIL for well under the switch interval.

A thread's CPU clock tells how much of the time since the last look it ran. A thread whose clock
stands still has not moved: it waits where it was seen, so it is neither walked again nor written
down before it moves (or a batch is due). Nor is its clock read while the clocks of those that
moved lately explain all the CPU that the process used.
"""

import random
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from types import FrameType

from ox_otel._interpreter import clock_of, frames_of_threads
from ox_otel._looks import Look, Thread
from ox_otel._names import Names
from ox_otel._native import get_ident, own_idents
from ox_otel._placement import TOO_LONG, Placement, is_interruptible
from ox_otel._spans import Span, span_of
from ox_otel._tallies import Tallies, Tally
from ox_otel.recorders import Function, Stack, Usage

LOOKING = 1_000_000
"""Nanoseconds after which a sample looks at no further thread; chance decides who comes first."""

MAX_STACKS = 2_000
MAX_CODES = 5_000
"""Stacks and code objects remembered; a batch is due at once when there are more."""

UNNOTICED = 30_000
"""Nanoseconds of CPU in a process that may go unnoticed until they have become more."""

NEVER = -UNNOTICED  # a reading of the others' CPU after which nothing goes unnoticed


class Threads:
    """Samples the stacks of all threads but our own and the calling one.

    At most *max_depth* frames of each are seen, from the top.

    *on_error* is called with a kind of error whenever a thread could not be looked at; the
    others do not suffer.
    """

    name = "threads"
    pace = 1
    """Intervals from one sample to the next."""
    watched = 0
    """Samples that `watch` takes at a time, at most."""
    reason = ""
    """Why it does less than it should; empty while it does not."""

    def __init__(self, names: Names, max_depth: int, on_error: Callable[[str], None]) -> None:
        self._names = names
        self._max_depth = max_depth
        self._on_error = on_error
        self._tallies = Tallies(names)
        self._placement = Placement()
        self._threads: dict[int, Thread] = {}
        self._away: dict[int, Thread] = {}  # those that live, but have no frame now
        self._idents: list[int] = []  # of the others, in the order of the interpreter's list
        self._moving: set[int] = set()  # idents of those that moved since the last drain
        self._samples = 0
        self._now = 0
        self._previous = 0
        self._others = 0  # CPU of all threads but ours, when they were looked at
        self._explained = 0  # of that, what their own clocks have told us of
        self._spans: dict[Function, Span] = {}

    @property
    def full(self) -> bool:
        """Whether a drain is due before the memory bound is passed."""
        return len(self._tallies) > MAX_STACKS or len(self._names.known) > MAX_CODES

    def sample(self, delay: float) -> bool:
        """Look at every thread once; return whether any has moved since the last sample.

        *delay* is how long after its due time the sample is taken, in seconds.
        """
        self._now = time.monotonic_ns()
        others = cpu_of_others()
        spent = others - self._others
        if self._previous and spent < UNNOTICED:
            self._samples += 1
            # nobody but us has used any CPU, so every thread is where it was
            self._previous = self._now
            return False
        self._others = others
        with frames_of_threads() as frames:
            self._samples += 1
            looks = self._look_around(frames)
        verdicts = self._placement.running(looks, delay, spent)
        for look, running in zip(looks, verdicts, strict=True):
            self._count(look, running=running)
        self._previous = self._now
        return bool(looks)

    def watch(self, _dues: Sequence[float]) -> list[tuple[float, bool]]:
        """Take no sample without the GIL."""
        return []

    def wake(self) -> None:
        """End a watch: there is none."""

    def _look_around(self, frames: dict[int, FrameType]) -> list[Look]:
        """Look at all threads that may have moved, or as many as there is time for."""
        # with the frame of this very call in it, the dictionary would keep itself alive
        for ident in (get_ident(), *own_idents):
            frames.pop(ident, None)
        if self._idents != (idents := list(frames)):
            self._part(frames.keys())
            self._idents = idents
        moved = self._movers()
        if len(moved) > 1:
            random.shuffle(moved)
        looks: list[Look] = []
        enough = time.monotonic_ns() + LOOKING
        for thread in moved:
            if looks and time.monotonic_ns() > enough:
                # whoever is left out now is credited with all its time when it is looked at next
                self._others = NEVER
                break
            try:
                looks.append(self._look(thread, frames[thread.ident]))
            except Exception:
                self._on_error("thread")
        return looks

    def drain(self) -> dict[Stack, Usage]:
        """Return what each stack used since the last drain."""
        for thread in self._threads.values():
            self._count_parked(thread, self._samples, self._now)
        stacks = self._tallies.take({t.tally for t in self._threads.values() if t.ids})
        if len(self._names.known) > MAX_CODES:
            self._forget()
        self._away = {ident: one for ident, one in self._away.items() if read_clock(one)}
        self._recheck()
        return stacks

    def take_spans(self) -> dict[Function, Span]:
        """Return a span in which each function was seen running, at the top, since the last time."""
        spans, self._spans = self._spans, {}
        return spans

    def cost(self) -> float:
        """Return the CPU seconds that it took from other threads since the last call: none."""
        return 0.0

    def reset(self) -> None:
        """Forget the threads: the time until the next sample is nobody's."""
        self._threads = {}
        self._away = {}
        self._idents = []
        self._moving = set()
        self._previous = 0
        self._explained = NEVER

    def _forget(self) -> None:
        """Let go of all code objects and everything that is keyed by their ids."""
        self._names.forget()
        self._tallies.forget()
        self._placement.forget()
        for thread in self._threads.values():
            thread.ids = ()
            thread.seen = False
            thread.running = False
        self._others = NEVER

    def _recheck(self) -> None:
        """Have the next sample read all clocks: none goes unread from one batch to the next."""
        self._moving = set()
        self._explained = NEVER

    def _part(self, idents: AbstractSet[int]) -> None:
        """Part with threads that are not among *idents*; have new ones asked whether they moved."""
        for ident in self._threads.keys() - idents:
            self._lose_sight(self._threads.pop(ident))
        self._moving = (self._moving & idents) | (idents - self._threads.keys())

    def _lose_sight(self, thread: Thread) -> None:
        """Count a thread up to now that has no frame any more, and remember it while it lives.

        A thread of a server in C, like uWSGI, has frames only while it answers a request.
        """
        self._count_parked(thread, self._samples - 1, self._previous)
        cpu = read_clock(thread)
        if not cpu:
            return
        used = min(max(cpu - thread.counted, 0), self._now - thread.counted_at)
        if thread.running:
            thread.tally.cpu += used
        elif used and thread.ids:
            self._tallies.unplaced(thread.ids, thread.ids).cpu += used
        thread.cpu = thread.counted = cpu
        thread.seen = thread.running = False
        thread.ids = ()
        self._away[thread.ident] = thread

    def _movers(self) -> list[Thread]:
        """Return the threads that may have moved since the last sample.

        Those that moved lately, and new ones, are asked first. If they have used all the CPU that
        was used, nobody else has moved, and the clocks of all the others need not be read.
        """
        moved = [thread for ident in self._moving if (thread := self._moved(ident))]
        # once more: the kernel brings the sum up to date for a thread when we read its own clock
        if cpu_of_others() - self._explained >= UNNOTICED:
            parked = (ident for ident in self._idents if ident not in self._moving)
            moved += [thread for ident in parked if (thread := self._moved(ident))]
            self._moving.update(thread.ident for thread in moved)
            self._explained = cpu_of_others()
        return moved

    def _moved(self, ident: int) -> Thread | None:
        """Return the thread *ident* if it may have moved since it was asked last."""
        thread = self._threads.get(ident)
        if thread is None:
            return self._meet(ident)
        if thread.clock is None:
            # it may have made itself known by now; whether it has moved, nobody can tell
            thread.clock, cpu = clock_of(ident)
            thread.cpu = thread.counted = cpu
        else:
            try:
                cpu = time.clock_gettime_ns(thread.clock)
            except OSError:  # it is gone, and another thread has inherited its ident
                self._count_parked(thread, self._samples - 1, self._previous)
                return self._meet(ident)
            if thread.seen and cpu == thread.cpu:
                return None
        self._count_parked(thread, self._samples - 1, self._previous)
        return self._read(thread, cpu)

    def _meet(self, ident: int) -> Thread:
        """Make the acquaintance of a thread that had no frame at the last sample."""
        known = self._away.pop(ident, None)
        if known and (cpu := read_clock(known)):
            known.counted_at = self._previous or self._now  # the time before is nobody's
            self._threads[ident] = known
            return self._read(known, cpu)
        clock, cpu = clock_of(ident)
        born_at = self._previous or self._now
        # whoever has used more CPU than there was time for was there before, unknown to Python
        counted = 0 if cpu <= self._now - born_at else cpu
        thread = self._threads[ident] = Thread(ident, clock, counted, born_at)
        return self._read(thread, cpu)

    def _read(self, thread: Thread, cpu: int) -> Thread:
        """Take note of what the clock of a thread to be looked at has been read to be."""
        self._explained += cpu - thread.cpu
        thread.cpu = cpu
        thread.read_at = time.monotonic_ns()
        thread.seen = False
        return thread

    def _count_parked(self, thread: Thread, samples: int, now: int) -> None:
        """Count a thread that has stood still, up to *samples* and *now*, where it stands."""
        if thread.seen:
            thread.tally.hits += samples - thread.samples
            thread.tally.wait += now - thread.counted_at
            thread.samples = samples
            thread.counted_at = now

    def _look(self, thread: Thread, frame: FrameType) -> Look:
        """Look at a thread that has moved."""
        ids = self._walk(frame)
        instruction = frame.f_lasti
        interrupted = is_interruptible(frame.f_code, instruction)
        used = max(thread.cpu - thread.counted, 0)
        span = span_of(thread.ident)
        if time.monotonic_ns() - self._now > TOO_LONG:  # it may have gone on since its walk
            span = None
        return Look(thread, used, ids, (ids[0], instruction), interrupted, span)

    def _count(self, look: Look, *, running: bool) -> None:
        """Count the time since the last look at a thread."""
        thread, tally = look.thread, self._tallies.of(look.ids)
        elapsed = self._now - thread.counted_at
        used = min(look.used, elapsed)
        self._place(look, used, running=running)
        if running and look.span is not None:
            self._spans[tally.stack[-1]] = look.span
        tally.hits += 1
        self._count_wait(thread, tally, elapsed, used)
        # not the clock: what it seems to have run ahead of the time counts next time
        thread.counted += used
        thread.counted_at = self._now
        thread.samples = self._samples
        thread.seen = True
        thread.running = running
        thread.ids = look.ids
        thread.tally = tally

    def _place(self, look: Look, used: int, *, running: bool) -> None:
        """Count the CPU that a thread used since the last look at it."""
        thread = look.thread
        if running:
            self._tallies.of(look.ids).cpu += used
        elif thread.running:
            thread.tally.cpu += used
        elif used:
            self._tallies.unplaced(thread.ids or look.ids, look.ids).cpu += used

    def _count_wait(self, _thread: Thread, tally: Tally, elapsed: int, used: int) -> None:
        """Count the time since the last look at a thread that it has not *used* where it stands now."""
        tally.wait += elapsed - used

    def _walk(self, frame: FrameType | None) -> tuple[int, ...]:
        """Return the ids of the code objects on a stack, leaf first."""
        known = self._names.known
        ids: list[int] = []
        while frame is not None and len(ids) < self._max_depth:
            code = frame.f_code
            key = id(code)
            if key not in known:
                # not `.get`: the globals may be a subclass of dict with a method of the host's
                self._names.add(code, dict.get(frame.f_globals, "__name__"))
            ids.append(key)
            frame = frame.f_back
        return tuple(ids)


def read_clock(thread: Thread) -> int:
    """Return what the CPU clock of a thread reads; 0 if it has none, or has ended."""
    try:
        return 0 if thread.clock is None else time.clock_gettime_ns(thread.clock)
    except OSError:
        return 0


def cpu_of_others() -> int:
    """Return how much CPU all threads but the calling one have used, in nanoseconds."""
    return time.process_time_ns() - time.thread_time_ns()
