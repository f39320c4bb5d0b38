"""The body of the thread that samples: sample, deliver, rest, and never die."""

import os
import time
from collections.abc import Callable

from ox_otel._clock import Schedule
from ox_otel._interpreter import Unsafe
from ox_otel._native import Alarm
from ox_otel._pipeline import Pipeline
from ox_otel._settings import Settings

ERRORS_IN_A_ROW = 10
"""Failed samples after which sampling is suspended."""

INTOLERABLE = 5
"""How many times the budget profiling may cost, in spite of all, before it is suspended."""

FIRST_SUSPENSION = 1.0
LAST_SUSPENSION = 300.0
"""Seconds; suspensions double while the fault lasts."""


class Sampling:
    """Samples as long, and as often, as is wished.

    Attributes:
        stopping: whether the thread should end; whoever changes a wish rings the alarm.
        paused: whether it should wait, without waking up, until it is no longer wished.
        alarm: wakes the thread, which makes a batch and looks at the wishes again.
        suspension: why sampling rests by itself; empty while it does not.
    """

    def __init__(self, settings: Settings) -> None:
        self.stopping = True
        self.paused = False
        self.suspension = ""
        self.schedule = Schedule(settings.interval, settings.max_overhead)
        self.pipeline = Pipeline(settings, self.schedule)
        self.alarm = Alarm(self.pipeline.wake)
        self._settings = settings
        self._suspended_for = 0.0
        self._resume_at = 0.0
        self._errors_in_a_row = 0

    def run(self) -> None:
        """Sample while that is wished: the body of the thread."""
        pipeline, alarm = self.pipeline, self.alarm
        self.suspension = ""
        pipeline.adopt()
        idle = True  # the time since the last sample is not counted
        checked = 0
        while not self.stopping:
            now = time.monotonic()
            if self.suspension and now >= self._resume_at:
                self._attempt("batch", pipeline.flush)  # what it cost meanwhile, over that time
                self.suspension = ""
            if self.paused or self.suspension:
                if not idle:
                    self._attempt("batch", pipeline.rest)
                    idle = True
                if alarm.wait(None if self.paused else self._resume_at - now):
                    self._attempt("batch", pipeline.flush)
            elif idle:
                pipeline.begin(now)
                idle = False
                checked = pipeline.flushes
                self._suspend_if_killed()
            elif checked != pipeline.flushes:  # after each batch
                checked = pipeline.flushes
                self._suspend_if_killed()
                self._suspend_if_intolerable()
            else:
                taken = pipeline.samples
                self._attempt("sample", pipeline.watch)
                has_taken = pipeline.samples > taken
                if alarm.wait(0.0 if has_taken else self.schedule.wait(time.monotonic())):
                    self._attempt("batch", pipeline.flush)
                elif not has_taken:
                    self._attempt("sample", pipeline.sample)
        self._attempt("batch", pipeline.rest)
        pipeline.end()

    def _attempt(self, kind: str, act: Callable[[float], None]) -> None:
        """Do one thing at the present time; an error is counted and, if it persists, answered."""
        taken = self.pipeline.samples
        try:
            act(time.monotonic())
        except Unsafe as unsafe:
            self._suspend(str(unsafe))
        except BaseException as error:  # not even a stray SystemExit may end the thread
            self.pipeline.count_error(kind)
            self._errors_in_a_row += 1
            if self._errors_in_a_row >= ERRORS_IN_A_ROW:
                # the name only: to print an error could run code of the host
                last = type(error).__name__
                self._suspend(f"{ERRORS_IN_A_ROW} errors in a row, the last {last}")
        else:
            if self.pipeline.samples > taken:
                self._errors_in_a_row = 0

    def _suspend_if_killed(self) -> None:
        kill_file = self._settings.kill_file
        if kill_file is not None and (reason := _forbidden_by(kill_file)):
            self._suspended_for = 0.0  # it is looked for as often as ever
            self._suspend(reason)

    def _suspend_if_intolerable(self) -> None:
        ratio, budget = self.pipeline.overhead_ratio, self._settings.max_overhead
        if ratio > INTOLERABLE * budget:
            self.pipeline.count_error("budget")
            self._suspend(f"profiling cost {ratio:.1%} of a core; the budget is {budget:.1%}")
        elif not self.suspension and not self._errors_in_a_row:
            self._suspended_for = 0.0  # all is well

    def _suspend(self, reason: str) -> None:
        """Rest for *reason*, twice as long as the last time if nothing went well since."""
        longer = min(2 * self._suspended_for, LAST_SUSPENSION)
        self._suspended_for = max(longer, FIRST_SUSPENSION)
        self._resume_at = time.monotonic() + self._suspended_for
        self.suspension = reason


def _forbidden_by(kill_file: str) -> str:
    """Return why sampling must rest, or nothing; where the file is, is nobody's business over HTTP."""
    try:
        os.stat(kill_file)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # no file can bear such a name
        return ""
    except OSError as error:  # it may be there: the process has given up its rights, say
        return f"the kill file cannot be looked for: {type(error).__name__}"
    return "the kill file exists"
