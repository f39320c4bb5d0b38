"""The life of the profiler in one process: its thread, started and ended, and the state it is in."""

import time
from collections.abc import Callable
from typing import Self

from ox_otel._ending import at_end, not_at_end
from ox_otel._fork import WAIT_SECONDS
from ox_otel._native import Worker, allocate_lock, get_ident, nap
from ox_otel._sampling import Sampling
from ox_otel._settings import Settings
from ox_otel._status import State

STOP_SECONDS = 1.0
"""How long `cancel` and the end of the interpreter wait for the thread."""

FLUSH_SECONDS = 0.5
"""How long an answer waits for the newest figures."""


class Life:
    """Starts and ends the thread that samples this process, from any thread; a child has its own.

    Attributes:
        sampling: what the thread does, and what is wished of it, whether there is one or not.
        handed_over: whether the workers that this process forks are profiled in its place.
    """

    def __init__(self, settings: Settings, obstacle: str, cancel: Callable[[], None]) -> None:
        self.sampling = Sampling(settings)
        self.handed_over = False
        self._settings = settings
        self._obstacle = obstacle  # why this interpreter must not be sampled
        self._cancel = cancel  # for the end of the process
        self._changing = allocate_lock()  # held while the thread is started or ended
        self._worker: Worker | None = None
        self._failure = ""

    def in_child(self) -> Self:
        """Return the life of a forked child: all wishes, but no locks, figures and threads."""
        self.sampling.pipeline.captures.end()  # a green thread that waits for one lives on here
        not_at_end(self._cancel)
        child = type(self)(self._settings, self._obstacle, self._cancel)
        child.sampling.stopping = self.sampling.stopping and not self.handed_over
        child.sampling.paused = self.sampling.paused
        child.sampling.schedule.interval = self.sampling.schedule.interval
        return child

    def start(self) -> None:
        """Start the thread, sampling or paused as the settings have it; once it runs, do nothing."""
        if self._obstacle or not self._changing.acquire(timeout=STOP_SECONDS):
            return
        try:
            if self._worker is not None and self.sampling.stopping:
                self._worker.join(STOP_SECONDS)  # `end` has not waited any longer for it
            if not self._alive():
                self.sampling.paused = self._settings.start_paused
                self._launch()
        finally:
            self._changing.release()

    def resume(self) -> None:
        """Start the thread in a child, sampling or paused as its parent was, unless that had ended."""
        if not self.sampling.stopping:
            self._launch()

    def _launch(self) -> None:
        self._failure = ""
        self.handed_over = False
        self.sampling.stopping = False
        try:
            self._worker = Worker(self.sampling.run, "ox_otel")
        except (RuntimeError, MemoryError, OSError) as error:
            self._failure = f"no thread could be started: {error}"
        else:
            at_end(self._cancel)

    def end(self) -> None:
        """End our threads, but for those of recorders that hang."""
        self._end(STOP_SECONDS)

    def hand_over(self) -> None:
        """Leave it to the workers of a server, which this process, its master, is about to fork."""
        if self._alive() and not self._settings.master:
            self._end(WAIT_SECONDS)  # a fork waits for no recorder longer than that
            self.handed_over = True

    def _end(self, seconds: float) -> None:
        """End our threads; wait for those of recorders *seconds* at most."""
        deadline = time.monotonic() + seconds
        self.sampling.stopping = True
        self.handed_over = False  # workers that a master forks from now on are not sampled either
        self.sampling.alarm.ring()
        if self.is_caller() or not self._changing.acquire(timeout=STOP_SECONDS):
            return
        try:
            self.sampling.stopping = True  # if somebody has started it in the meantime
            self.sampling.alarm.ring()
            if not self._alive() or (self._worker and self._worker.join(STOP_SECONDS)):
                self.sampling.pipeline.join(deadline)
                self._worker = None
                not_at_end(self._cancel)
        finally:
            self._changing.release()

    def is_caller(self) -> bool:
        """Return whether the calling thread is the one that samples."""
        return self._worker is not None and self._worker.ident == get_ident()

    def state(self) -> tuple[State, str]:
        """Return the state, and its reason as `Status` has it."""
        sampling = self.sampling
        if self._obstacle:
            return "unsupported", self._obstacle
        if self._failure:
            return "failed", self._failure
        if self.handed_over:
            return "stopped", "the workers that this process forks are profiled in its place"
        if sampling.stopping:
            return "stopped", ""
        if not self._alive():
            return "failed", "the thread has ended"
        if sampling.paused:
            return "paused", ""
        if suspension := sampling.suspension:
            return "suspended", suspension
        if hanging := sampling.pipeline.hanging():
            return "running", f"does not return from a delivery: {', '.join(hanging)}"
        return "running", sampling.pipeline.reason

    def flush(self) -> None:
        """Have the thread make a batch of what it has; wait for it half a second at the most."""
        pipeline = self.sampling.pipeline
        if not self._alive() or self.is_caller() or pipeline.is_recorder():
            return  # or what a recorder asks would give it the next batch, on and on
        before, deadline = pipeline.flushes, time.monotonic() + FLUSH_SECONDS
        self.sampling.alarm.ring()
        while pipeline.flushes == before and time.monotonic() < deadline:
            nap(0.001)

    def _alive(self) -> bool:
        return self._worker is not None and self._worker.alive()
