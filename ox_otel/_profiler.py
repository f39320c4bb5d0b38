"""The profiler: its one thread, its states, and the control over them."""

import _thread
import atexit
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, Self

from ox_otel._clock import Schedule
from ox_otel._ledger import SERIES_PER_FUNCTION
from ox_otel._native import Alarm, Worker, allocate_lock, own_idents
from ox_otel._pipeline import Pipeline
from ox_otel._settings import Settings, accepted
from ox_otel._status import OWN_SERIES, State, Status
from ox_otel._threads import unsupported
from ox_otel.recorders import Answer, Batch, Recorder

STOP_SECONDS = 1.0
"""How long `cancel` and the end of the interpreter wait for the thread."""

FLUSH_SECONDS = 0.5
"""How long an answer waits for the newest figures."""

ERRORS_IN_A_ROW = 10
"""Failed samples after which sampling is suspended."""

INTOLERABLE = 5
"""How many times the budget profiling may cost, in spite of all, before it is suspended."""

FIRST_SUSPENSION = 1.0
LAST_SUSPENSION = 300.0
"""Seconds; suspensions double while the fault lasts."""

Wish = Literal["run", "pause", "stop"]


class Profiler:
    """Samples the process it lives in, and lets itself be controlled from any thread.

    No method raises at run time, but for `set_interval` with a wrong value; what is wrong stands
    in `status`. Flags are plain assignments, so that signal handlers and destructors may call
    whatever they like.

    Attributes:
        url: the address of our own endpoint, empty where there is none.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.url = ""
        self._settings = settings = settings or Settings()
        self._schedule = Schedule(settings.interval, settings.max_overhead)
        self._pipeline = Pipeline(settings, self._schedule)
        self._alarm = Alarm()
        self._changing = allocate_lock()  # held while the thread is started or ended
        self._worker: Worker | None = None
        self._wish: Wish = "stop"
        self._obstacle = unsupported()
        self._failure = ""
        self._suspension = ""  # why, while it lasts
        self._suspended_for = 0.0
        self._resumed_at = 0.0
        self._errors_in_a_row = 0
        self._pid = os.getpid()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def add_recorder(self, recorder: Recorder) -> None:
        """Hand everything from now on to *recorder* too."""
        self._pipeline.add(recorder)

    def start(self) -> None:
        """Start the thread, sampling or paused as the settings have it; once it runs, do nothing."""
        if self._obstacle or not self._changing.acquire(timeout=STOP_SECONDS):
            return
        try:
            if self._alive():
                return
            self._failure = self._suspension = ""
            self._pid = os.getpid()
            self._wish = "pause" if self._settings.start_paused else "run"
            try:
                self._worker = Worker(self._work, "ox_otel")
            except (RuntimeError, MemoryError, OSError) as error:
                self._failure = f"no thread could be started: {error}"
                return
            _cancel_at_exit(self)
        finally:
            self._changing.release()

    def pause(self) -> None:
        """Stop sampling until `unpause`; paused, the thread does not wake up at all."""
        self._ask("pause")

    def unpause(self) -> None:
        """Sample again."""
        self._ask("run")

    def is_paused(self) -> bool:
        """Return whether sampling waits for `unpause`."""
        return self._wish == "pause"

    def set_interval(self, seconds: float | str) -> None:
        """Sample every *seconds* on average from now on.

        Raises:
            ConfigError: not a number from 0.001 to 60.
        """
        self._schedule.interval = accepted("interval", seconds)
        self._alarm.ring()

    def cancel(self) -> None:
        """End the thread, within a second, whatever it does; `start` would start a new one."""
        self._wish = "stop"
        self._alarm.ring()
        if not self._changing.acquire(timeout=STOP_SECONDS):
            return
        try:
            if not self._alive() or (self._worker and self._worker.join(STOP_SECONDS)):
                self._worker = None
        finally:
            self._changing.release()

    def status(self) -> Status:
        """Return the profiler as it is now."""
        pipeline = self._pipeline
        counted = pipeline.counts.snapshot()
        last = pipeline.last_sample
        state, reason = self._state()
        return Status(
            state=state,
            reason=reason,
            engine=pipeline.engine,
            interval=self._schedule.stretched,
            samples=pipeline.samples,
            missed=counted.missed,
            errors=sum(counted.errors.values()),
            overhead_ratio=pipeline.overhead_ratio if state == "running" else 0.0,
            series=len(counted.functions) * SERIES_PER_FUNCTION + OWN_SERIES,
            series_limit=self._settings.max_series,
            last_sample_age=None if last is None else time.monotonic() - last,
            pid=os.getpid(),
        )

    def snapshot(self) -> Batch:
        """Return what happened since the start, up to now."""
        self._flush()
        return self._pipeline.counts.snapshot()

    def query(self, pattern: str = "*", limit: int = 10) -> Answer:
        """Return the *limit* functions hottest at the top of the stack; see `CountingRecorder`."""
        self._flush()
        return self._pipeline.counts.query(pattern, limit)

    def show(self, limit: int = 10) -> str:
        """Return the *limit* hottest functions as a table for people."""
        self._flush()
        return self._pipeline.counts.show(limit)

    def charge(self, cpu_seconds: float) -> None:
        """Count CPU time that another thread spent on profiling."""
        self._pipeline.charge(cpu_seconds)

    @contextmanager
    def charging(self) -> Iterator[None]:
        """Count what the calling thread does within, unless it is ours and accounts for itself."""
        if _thread.get_ident() in own_idents:
            yield
            return
        began = time.thread_time()
        try:
            yield
        finally:
            self.charge(time.thread_time() - began)

    def count_error(self, kind: str) -> None:
        """Count an error of one of the kinds that the metrics know."""
        self._pipeline.count_error(kind)

    def _ask(self, wish: Wish) -> None:
        if self._wish != "stop":
            self._wish = wish
            self._alarm.ring()

    def _alive(self) -> bool:
        return self._worker is not None and self._pid == os.getpid() and self._worker.alive()

    def _worker_is_me(self) -> bool:
        return self._worker is not None and self._worker.ident == _thread.get_ident()

    def _state(self) -> tuple[State, str]:
        if self._obstacle:
            return "unsupported", self._obstacle
        if self._failure:
            return "failed", self._failure
        if self._wish == "stop":
            return "stopped", ""
        if self._pid != os.getpid():
            return "stopped", f"forked from process {self._pid}, which it was started for"
        if not self._alive():
            return "failed", "the thread has ended"
        if self._wish == "pause":
            return "paused", ""
        return ("suspended", self._suspension) if self._suspension else ("running", "")

    def _flush(self) -> None:
        """Have the thread make a batch of what it has; wait for it half a second at the most."""
        if not self._alive() or self._worker_is_me():
            return
        before, deadline = self._pipeline.flushes, time.monotonic() + FLUSH_SECONDS
        self._alarm.ring()
        while self._pipeline.flushes == before and time.monotonic() < deadline:
            time.sleep(0.001)

    def _work(self) -> None:
        """Sample while that is the wish: the body of the thread."""
        pipeline, alarm = self._pipeline, self._alarm
        pipeline.adopt()
        resting = True  # the time since the last sample is nobody's
        checked = -1
        while self._wish != "stop":
            if self._wish == "pause" or self._suspension:
                if not resting:
                    self._attempt("batch", pipeline.flush)
                    resting = True
                if alarm.wait(None if self._wish == "pause" else self._suspended_for):
                    self._attempt("batch", pipeline.flush)
                else:
                    self._suspension = ""  # try again
                continue
            if resting:
                self._resumed_at = time.monotonic()
                pipeline.begin(self._resumed_at)
                resting = False
                checked = -1
            if checked != pipeline.flushes:  # at the beginning and after each batch
                checked = pipeline.flushes
                self._suspension = self._reason_to_rest()
                continue
            if alarm.wait(self._schedule.wait(time.monotonic())):
                self._attempt("batch", pipeline.flush)
            else:
                self._attempt("sample", pipeline.sample)
        self._attempt("batch", pipeline.flush)

    def _attempt(self, kind: str, act: Callable[[float], None]) -> None:
        """Do one thing at the present time; an error is counted and, if it persists, answered."""
        try:
            act(time.monotonic())
        except BaseException as error:  # not even a stray SystemExit may end the thread
            self._pipeline.count_error(kind)
            self._errors_in_a_row += 1
            if self._errors_in_a_row >= ERRORS_IN_A_ROW:
                self._rest_longer()
                # the name only: to print an error could run code of the host
                last = type(error).__name__
                self._suspension = f"{ERRORS_IN_A_ROW} errors in a row, the last {last}"
        else:
            if kind == "sample":
                self._errors_in_a_row = 0

    def _reason_to_rest(self) -> str:
        """Return why sampling must be suspended now, nothing if it need not be."""
        settings, ratio = self._settings, self._pipeline.overhead_ratio
        if settings.kill_file is not None and os.path.exists(settings.kill_file):
            self._suspended_for = FIRST_SUSPENSION
            return f"the kill file {settings.kill_file} exists"
        if ratio > INTOLERABLE * settings.max_overhead:
            self._pipeline.count_error("budget")
            self._rest_longer()
            return (
                f"profiling cost {ratio:.1%} of a core; the budget is {settings.max_overhead:.1%}"
            )
        return ""

    def _rest_longer(self) -> None:
        """Make the next suspension twice as long as the last, unless all went well for longer."""
        if time.monotonic() - self._resumed_at > 2 * self._suspended_for:
            self._suspended_for = FIRST_SUSPENSION
        else:
            self._suspended_for = min(2 * self._suspended_for, LAST_SUSPENSION)


def _cancel_at_exit(profiler: Profiler) -> None:
    """Have the interpreter's end wait for the thread, without keeping *profiler* alive."""
    reference = weakref.ref(profiler)

    def cancel() -> None:
        left = reference()
        if left is not None:
            left.cancel()

    atexit.register(cancel)
