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
from opcode import opmap
from types import FrameType

from ox_otel._names import Names
from ox_otel._native import own_idents
from ox_otel.recorders import NOTHING, UNPLACED, Function, Stack, Usage

MAX_WALKS = 128
"""Stacks walked in one sample; more threads than that are looked at in turn, by chance."""

MAX_STACKS = 5_000
MAX_CODES = 5_000
"""Stacks and code objects remembered; a batch is due at once when there are more."""

UNSEEN = -1

_COLLECTS_BETWEEN_INSTRUCTIONS = sys.version_info >= (3, 12)

_INTERRUPTIBLE = {opmap[name] for name in ("RESUME", "JUMP_BACKWARD") if name in opmap}


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
        self._bytecodes: dict[int, bytes] = {}
        self._threads: dict[int, _Thread] = {}
        self._looks = 0
        self._now = 0
        self._previous = 0

    @property
    def full(self) -> bool:
        """Whether a drain is due before the memory bound is passed."""
        return len(self._tallies) > MAX_STACKS or len(self._names.known) > MAX_CODES

    def sample(self) -> None:
        """Look at every thread once."""
        self._now = time.monotonic_ns()
        self._looks += 1
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
        for ident, cpu in moved:
            try:
                self._look(self._threads[ident], frames[ident], cpu)
            except Exception:
                self._on_error("thread")
        self._previous = self._now

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
        self._bytecodes = {}
        for thread in self._threads.values():
            thread.ids = ()
            thread.seen_cpu = UNSEEN

    def _moved(self, ident: int) -> tuple[int, int] | None:
        """Return *ident* and its CPU clock if the thread may have moved since the last look."""
        thread = self._threads.get(ident)
        if thread is None:
            return self._meet(ident)
        if thread.clock is None:
            return ident, 0
        try:
            cpu = time.clock_gettime_ns(thread.clock)
        except OSError:  # it is gone, and another thread has inherited its ident
            self._settle_parked(thread, self._looks - 1, self._previous)
            return self._meet(ident)
        if cpu == thread.seen_cpu:
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

    def _look(self, thread: _Thread, frame: FrameType, cpu: int) -> None:
        """Walk the stack of a thread that has moved, and count the time since the last look."""
        ids = self._walk(frame)
        tally = self._tally(ids)
        running = self._stopped_while_running(ids[0], frame.f_lasti)
        elapsed = self._now - thread.seen_at
        used = min(max(cpu - thread.cpu, 0), elapsed) if thread.clock is not None else 0
        if running or tally is thread.tally or not thread.ids:
            tally.cpu += used
        elif thread.running:
            thread.tally.cpu += used
        else:
            self._unplaced(thread.ids, ids).cpu += used
        tally.hits += 1
        tally.wait += elapsed - used
        # not *cpu*: what the clocks, read one after the other, seem to have run ahead counts next
        thread.cpu += used
        thread.seen_at = self._now
        thread.seen_cpu = cpu if thread.clock is not None else UNSEEN
        thread.looks = self._looks
        thread.running = running
        thread.ids = ids
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

    def _stopped_while_running(self, code_id: int, instruction: int) -> bool:
        """Return whether a frame stands where only a running thread can be interrupted.

        The interpreter hands over the GIL between two instructions of a running thread only when
        a function begins or a loop comes round; everywhere else the thread stands in a call,
        which may have let go of the GIL to wait.
        """
        bytecode = self._bytecodes.get(code_id)
        if bytecode is None:
            bytecode = self._bytecodes[code_id] = self._names.known[code_id][0].co_code
        return bytecode[instruction] in _INTERRUPTIBLE
