"""What one request uses: CPU of the threads that work for it, and the time that it takes.

A context variable says which *account* is at hand, so it follows into tasks and threads as the
context does; a *meter*, one a native thread, says to which account CPU goes from one *turn* to the
next, by the clock of the thread: nothing is sampled. Nothing takes a lock either, so signal
handlers and destructors may come in between: an addition to an attribute is one step under the GIL.
"""

import sys
import time
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Protocol

from ox_otel._fork import follow_forks
from ox_otel._native import get_native_id, local


class Keeper(Protocol):
    """Who opens accounts, and takes them back.

    Attributes:
        charges: how often CPU was charged.
    """

    charges: int

    def cancel_account(self, account: "Account") -> None:
        """Forget a request, which is counted by another account."""

    def close_account(self, account: "Account") -> None:
        """Count a request that is over."""


Template = Callable[[], str | None]
"""Tells the template of the route that a request has taken; None while that is not known.

It is also called on the thread that samples, so it runs no code of the host and takes no lock.
"""


class Account:
    """What one request uses; times in nanoseconds.

    Attributes:
        template: whose it is.
        weight: how many requests it stands for; 0 if it is not measured itself.
        outer: the account that was at hand when it was opened.
        before: the one that the thread worked for then.
        meter: the one that works for it, or was the last to do so.
        is_watched: whether it will be lost if its coroutine waits, since nobody drives that.
    """

    __slots__ = (
        "before",
        "began",
        "books",
        "cpu",
        "inner",
        "is_lost",
        "is_open",
        "is_watched",
        "meter",
        "outer",
        "template",
        "weight",
    )

    def __init__(
        self, books: Keeper, template: Template, outer: "Account | None", weight: int
    ) -> None:
        self.books = books
        self.template = template
        self.outer = outer
        self.weight = weight
        self.before: Account | None = None
        self.meter: Meter | None = None
        self.is_open = True
        self.is_lost = False
        self.is_watched = False
        self.cpu = 0
        self.inner = 0  # time that accounts opened within have taken
        self.began = time.monotonic_ns()

    def charge(self, used: int) -> None:
        """Take so much CPU; what comes when the request is over, nobody counts."""
        self.books.charges += 1  # now, and not in the end: a stream may last for hours
        self.cpu += used

    def route(self) -> str | None:
        """Return the template of its route, None while that is not known."""
        try:
            return self.template()
        except Exception:  # nothing of a framework we do not know may reach its host
            return None

    def lose(self) -> None:
        """Take note that from now on nobody knows which CPU is the request's, if it goes on."""
        if self.is_open:
            meter().turn(None)
            self.is_lost = True

    def close(self) -> None:
        """Let go of all that is not its own; contexts that last may keep it for ever."""
        self.template = _unknown
        self.before = self.outer = self.meter = None

    def wait(self, elapsed: int, cpu: int) -> int:
        """Return the rest of the time that has *elapsed*, of which it was its own."""
        return max(elapsed - self.inner - cpu, 0)

    def running(self) -> int:
        """Return the CPU that is being used for it and has not been charged yet."""
        its = self.meter
        if its is None or its.clock is None or its.account is not self:
            return 0
        since = its.since
        try:
            used = time.clock_gettime_ns(its.clock) - since
        except OSError:  # its thread is gone
            return 0
        return used if its.account is self and its.since == since else 0


def _unknown() -> None:
    return None


class Meter:
    """Says whose the CPU of one native thread is.

    Attributes:
        account: whose it has been since the last turn.
        since: what the clock of the thread was then, in nanoseconds.
        clock: the kernel's number for that clock, None where other threads cannot read it.
        switches: what makes it turn with the greenlets of the thread.
        steps: how many steps of driven coroutines are being made, one within the other.
        task: asyncio's, whose step the innermost one is; None if it is no task's.
    """

    __slots__ = ("account", "clock", "since", "steps", "switches", "task")

    def __init__(self) -> None:
        self.account: Account | None = None
        self.since = 0
        self.clock = (~get_native_id() << 3) | 6 if sys.platform == "linux" else None
        self.steps = 0
        self.task: object = None
        self.switches: object = None

    def turn(self, account: Account | None) -> None:
        """Work for *account* from now on; charge what was used up to now to the one before."""
        now = time.thread_time_ns()
        before, since = self.account, self.since
        self.account, self.since = account, now
        if account is not None:
            account.meter = self
        if before is not None:
            before.charge(now - since)


at_hand: ContextVar[Account | None] = ContextVar("ox_otel_account", default=None)
"""The account of the request that this context belongs to."""

_own = local()


def meter() -> Meter:
    """Return the meter of the calling native thread."""
    try:
        its: Meter = _own.meter
    except AttributeError:
        its = _own.meter = Meter()
    return its


def measured(context: Context | None = None) -> Account | None:
    """Return the account at hand, if it is measured, and the request is not over.

    Or the one that is at hand in another *context*.
    """
    account = at_hand.get() if context is None else context.get(at_hand)
    return account if account is not None and account.weight and account.is_open else None


def turn(its: Meter) -> None:
    """Have the meter of the calling thread turn to the account at hand."""
    account = measured()
    if its.account is not account:
        its.turn(account)


def _renew() -> None:
    """In a forked child: the clocks of its threads begin at 0."""
    global _own  # noqa: PLW0603 - threads have one each, and processes, too
    _own = local()


follow_forks(_renew)
