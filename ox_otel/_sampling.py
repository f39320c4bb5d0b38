"""The body of the one thread: sample, deliver, rest, and never die."""

import os
import time
from collections.abc import Callable
from typing import Literal

from ox_otel._clock import Schedule
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

Wish = Literal["run", "pause", "stop"]


class Sampling:
    """Does what is wished.

    Attributes:
        wish: what the thread should do; whoever changes it rings the alarm.
        alarm: wakes the thread, which makes a batch and looks at the wish again.
        suspension: why sampling rests by itself; empty while it does not.
    """

    def __init__(self, settings: Settings) -> None:
        self.wish: Wish = "stop"
        self.alarm = Alarm()
        self.suspension = ""
        self.schedule = Schedule(settings.interval, settings.max_overhead)
        self.pipeline = Pipeline(settings, self.schedule)
        self._settings = settings
        self._suspended_for = 0.0
        self._resumed_at = 0.0
        self._errors_in_a_row = 0

    def run(self) -> None:
        """Sample while that is the wish: the body of the thread."""
        pipeline, alarm = self.pipeline, self.alarm
        self.suspension = ""
        pipeline.adopt()
        resting = True  # the time since the last sample is nobody's
        checked = -1
        while self.wish != "stop":
            if self.wish == "pause" or self.suspension:
                if not resting:
                    self._attempt("batch", pipeline.flush)
                    resting = True
                if alarm.wait(None if self.wish == "pause" else self._suspended_for):
                    self._attempt("batch", pipeline.flush)
                else:
                    self.suspension = ""  # try again
                continue
            if resting:
                self._resumed_at = time.monotonic()
                pipeline.begin(self._resumed_at)
                resting = False
                checked = -1
            if checked != pipeline.flushes:  # at the beginning and after each batch
                checked = pipeline.flushes
                self.suspension = self._reason_to_rest()
                continue
            if alarm.wait(self.schedule.wait(time.monotonic())):
                self._attempt("batch", pipeline.flush)
            else:
                self._attempt("sample", pipeline.sample)
        self._attempt("batch", pipeline.flush)

    def _attempt(self, kind: str, act: Callable[[float], None]) -> None:
        """Do one thing at the present time; an error is counted and, if it persists, answered."""
        try:
            act(time.monotonic())
        except BaseException as error:  # not even a stray SystemExit may end the thread
            self.pipeline.count_error(kind)
            self._errors_in_a_row += 1
            if self._errors_in_a_row >= ERRORS_IN_A_ROW:
                self._rest_longer()
                # the name only: to print an error could run code of the host
                last = type(error).__name__
                self.suspension = f"{ERRORS_IN_A_ROW} errors in a row, the last {last}"
        else:
            if kind == "sample":
                self._errors_in_a_row = 0

    def _reason_to_rest(self) -> str:
        """Return why sampling must be suspended now, nothing if it need not be."""
        settings, ratio = self._settings, self.pipeline.overhead_ratio
        if settings.kill_file is not None and os.path.exists(settings.kill_file):
            self._suspended_for = FIRST_SUSPENSION
            return "the kill file exists"  # where, is nobody's business over HTTP
        if ratio > INTOLERABLE * settings.max_overhead:
            self.pipeline.count_error("budget")
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
