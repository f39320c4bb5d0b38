"""Captures: profiles of a window of time, of the very batches that the recorders get.

A capture begins and ends with a batch that is made for it, and adds up the stacks of those between.
So it holds what happened in its window, to one sample at both ends, and changes no figure of
anybody else.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import main_thread
from types import MappingProxyType

from ox_otel._clock import since_epoch
from ox_otel._native import nap
from ox_otel._settings import ConfigError
from ox_otel._sums import Sum
from ox_otel._values import as_number
from ox_otel.profiles import Profile
from ox_otel.recorders import Stack, Usage

MAX_CAPTURES = 4
"""Captures at once: half of the connections that our endpoint answers, so that scrapes get through."""

SHORTEST, LONGEST = 0.1, 300.0
"""Seconds that a capture may last."""

ANSWER_SECONDS = 5.0
"""How long the thread that samples may take for a batch before it is given up."""

_LOOK_SECONDS = 0.1  # how often whoever waits looks whether the capture has been ended


class CaptureError(RuntimeError):
    """There is no such profile; the message says why."""


class TooManyCapturesError(CaptureError):
    """As many captures as can be are being made; there is room again when one has ended."""


class Capture:
    """One capture. The thread that samples adds to it; whoever asked for it waits.

    Attributes:
        began: whether the window has begun.
        ended: whether it has ended, and nothing is added any more.
        last: whether it is to end with the next batch.
    """

    def __init__(self) -> None:
        self.began = False
        self.ended = False
        self.last = False
        self._sum = Sum()
        self._started = self._from = self._to = 0.0

    def take(self, stacks: Mapping[Stack, Usage], now: float) -> None:
        """Add the stacks of a batch made at *now*; the first batch is what was before."""
        if self.ended:
            return
        if not self.began:
            self._started = since_epoch()
            self._from = self._to = now
            self.began = True
            return
        self._sum.add(stacks)
        self._to = now
        self.ended = self.last

    def profile(self, interval: float) -> Profile:
        """Return what has been added, sampled at this *interval*, see `Profile`."""
        stacks = MappingProxyType(self._sum.stacks)
        return Profile(stacks, self._started, self._to - self._from, interval)


class Captures:
    """The captures that are being made in this process, at most `MAX_CAPTURES`.

    Any thread may use it; steps of a list are whole, so it takes no lock.
    """

    def __init__(self) -> None:
        self._running: list[Capture] = []

    def take(self, stacks: Mapping[Stack, Usage], now: float) -> None:
        """Add the stacks of a batch made at *now* to all of them."""
        for capture in tuple(self._running):
            capture.take(stacks, now)

    def end(self) -> None:
        """End all of them with what they have."""
        for capture in tuple(self._running):
            capture.ended = True

    @contextmanager
    def another(self) -> Iterator[Capture]:
        """Make one more.

        Raises:
            TooManyCapturesError: there are too many.
        """
        capture = Capture()
        self._running.append(capture)
        try:
            if len(self._running) > MAX_CAPTURES:  # afterwards: two may come at once
                raise TooManyCapturesError(f"{MAX_CAPTURES} captures are being made already")
            yield capture
        finally:
            self._running.remove(capture)


def window(seconds: object, shortest: float = SHORTEST, longest: float = LONGEST) -> float:
    """Return how long a capture, or whatever may last from *shortest* to *longest*, is to last.

    Raises:
        ConfigError: that is not accepted.
    """
    try:
        return as_number(shortest, longest)(seconds)
    except (ValueError, TypeError, OverflowError):
        raise ConfigError(
            f"seconds: {repr(seconds)[:100]} is not accepted; "
            f"accepted: a number from {shortest:g} to {longest:g}"
        ) from None


def wait_for(
    capture: Capture, seconds: float, ring: Callable[[], None], gone: Callable[[], bool]
) -> None:
    """Let *capture* go on for so long, or until it is ended, or whoever asked has *gone*.

    *ring* has the thread that samples make a batch.

    Raises:
        CaptureError: nothing could be captured.
    """
    ring()
    _until(lambda: capture.began or capture.ended)
    deadline = time.monotonic() + seconds
    while not capture.ended and not gone() and (left := deadline - time.monotonic()) > 0:
        if not main_thread().is_alive():  # the interpreter waits for all others before it ends
            break
        nap(min(left, _LOOK_SECONDS))
    capture.last = True
    ring()
    _until(lambda: capture.ended)
    if not capture.began:
        raise CaptureError("sampling has ended before the capture began")


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ANSWER_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise CaptureError("the thread that samples does not answer")
        nap(0.001)
