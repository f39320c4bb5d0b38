"""What requests use, by route: from the CPU clocks of the threads that work for them, not sampled.

Each request has an *account*. A context variable says which one is at hand, so it follows into
tasks and threads as the context does; a *meter*, one a native thread, says to which account CPU
goes from one *turn* to the next. Nothing here takes a lock, so signal handlers and destructors may
come in between: an addition to an attribute is one step under the GIL.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from functools import cache
from math import ceil
from operator import add, sub
from random import random
from typing import Protocol

from ox_otel._fork import follow_forks
from ox_otel._names import UNKNOWN, valid
from ox_otel._native import get_native_id, local
from ox_otel.recorders import OTHER, UNMATCHED, RouteUsage

_SHARE = 0.25
"""Of the budget, what the clocks of requests may take."""

_MOST_WEIGHT = 1000


class Handle(Protocol):
    """What an event loop has been asked to do, as far as we know it."""

    def cancel(self) -> None:
        """Have it not done."""


class Route:
    """What all requests of one route have used; times in nanoseconds."""

    __slots__ = ("cpu", "name", "requests", "wait")

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests = self.cpu = self.wait = 0


class Account:
    """What one request uses; times in nanoseconds.

    Attributes:
        weight: how many requests it stands for; 0 if it is not measured itself.
        outer: the account that was at hand when it was opened.
        route: whose it is, as soon as that is known.
        meter: the one that works for it, or was the last to do so.
        watch: tells it that it is lost, where nobody drives its coroutine.
    """

    __slots__ = (
        "began",
        "books",
        "cpu",
        "inner",
        "is_lost",
        "is_open",
        "meter",
        "outer",
        "route",
        "watch",
        "weight",
    )

    def __init__(self, books: "Books", outer: "Account | None", weight: int) -> None:
        self.books = books
        self.outer = outer
        self.weight = weight
        self.route: Route | None = None
        self.meter: Meter | None = None
        self.is_open = True
        self.is_lost = False
        self.watch: Handle | None = None
        self.cpu = 0
        self.inner = 0  # time that accounts opened within have taken
        self.began = time.monotonic_ns()

    def charge(self, used: int) -> None:
        """Take so much CPU; a request that is over takes none."""
        self.books.charges += 1
        if self.is_open and not self.is_lost:
            self.cpu += used
            if self.route is not None:
                self.route.cpu += used * self.weight

    def name(self, route: str | None) -> None:
        """Say whose it is, unless that is known; None where no route has matched."""
        if self.route is None:
            self.route = self.books.route(route)
            self.route.cpu += self.cpu * self.weight

    def lose(self) -> None:
        """Take note that from now on nobody knows which CPU is the request's."""
        meter().turn(None)
        self.is_lost = True
        if self.route is not None:
            self.route.cpu -= self.cpu * self.weight

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


class Meter:
    """Says whose the CPU of one native thread is.

    Attributes:
        account: whose it has been since the last turn.
        since: what the clock of the thread was then, in nanoseconds.
        clock: the kernel's number for that clock, None where other threads cannot read it.
        steps: how many steps of driven coroutines are being made, one within the other.
    """

    __slots__ = ("account", "clock", "since", "steps")

    def __init__(self) -> None:
        self.account: Account | None = None
        self.since = 0
        self.clock = (~get_native_id() << 3) | 6 if sys.platform == "linux" else None
        self.steps = 0

    def turn(self, account: Account | None) -> None:
        """Work for *account* from now on; charge what was used up to now to the one before."""
        now = time.thread_time_ns()
        before, since = self.account, self.since
        self.account, self.since = account, now
        if account is not None:
            account.meter = self
        if before is not None:
            before.charge(now - since)


class Books:
    """The accounts of a process, and what they add up to for at most *limit* routes.

    *budget* is the CPU that profiling may use, as a fraction of one core: where to measure every
    request would cost more than a share of it, chance decides which ones are, and each stands for
    as many as its weight says.
    """

    def __init__(self, limit: int, budget: float) -> None:
        self.open: dict[Account, None] = {}
        self.charges = 0
        self.requests = 0
        self._limit = limit
        self._allowed = budget * _SHARE
        self._weight = 1
        self._routes: dict[str, Route] = {}
        self._rest = Route(OTHER)
        self._published: dict[str, tuple[int, ...]] = {}

    def open_account(self, outer: Account | None) -> Account:
        """Return the account of a request that begins now, within that of *outer*."""
        if outer is not None and outer.books is self:
            weight = outer.weight
        else:  # of another life, or of the parent's
            weight = self._weight if self._weight == 1 or random() * self._weight < 1 else 0  # noqa: S311 - not a secret
        account = Account(self, outer, weight)
        if weight:
            self.open[account] = None
        return account

    def close_account(self, account: Account, route: str | None) -> None:
        """Count a request that is over; *route* is whose it is, where it has no name yet."""
        its = account.route or self.route(route)
        its.requests += 1
        self.requests += 1
        if not account.is_lost:
            account.name(route)
        account.is_open = False
        if not account.weight:
            return
        self.open.pop(account, None)  # before its wait is added: nothing counts twice
        elapsed = time.monotonic_ns() - account.began
        if account.outer is not None:
            account.outer.inner += elapsed
        if not account.is_lost:
            its.wait += max(elapsed - account.inner - account.cpu, 0) * account.weight

    def route(self, name: str | None) -> Route:
        """Return the route of that name, or the one for all that find no place."""
        if name is None:
            name = UNMATCHED
        elif type(name) is not str:  # whose methods would be the host's
            name = UNKNOWN
        route = self._routes.get(name)
        if route is None:
            if len(self._routes) >= self._limit:  # about: `settle` is exact, this bounds memory
                return self._rest
            route = self._routes.setdefault(name, Route(valid(name)))
        return route

    def settle(self, seconds: float) -> tuple[dict[str, RouteUsage], float]:
        """Return what each route gains, and what measuring it cost, in the last *seconds*.

        What requests under way have used is among the gains, as far as their routes are known.
        """
        totals: dict[str, tuple[int, ...]] = {}
        for route, *used in (*self._closed(), *self._under_way()):
            has_place = route.name in self._published or len(self._published) < self._limit - 1
            name = route.name if has_place else OTHER
            totals[name] = _sums(totals.get(name, (0, 0, 0)), used)
            self._published.setdefault(name, (0, 0, 0))
        gains = {}
        for name, total in totals.items():
            before = self._published[name]
            # what was taken for a request's own a moment ago may turn out to be somebody else's
            now = self._published[name] = tuple(map(max, before, total))
            requests, cpu, wait = map(sub, now, before)
            gains[name] = RouteUsage(requests, cpu * 1e-9, wait * 1e-9)
        return gains, self._cost(seconds)

    def _closed(self) -> Iterator[tuple[Route, int, int, int]]:
        for route in (*self._routes.copy().values(), self._rest):
            if route.requests or route.cpu:
                yield route, route.requests, route.cpu, route.wait

    def _under_way(self) -> Iterator[tuple[Route, int, int, int]]:
        now = time.monotonic_ns()
        accounts = list(self.open.copy())
        outer = {account.outer for account in accounts}
        for account in accounts:
            if account.route is not None:
                cpu = account.running()
                elapsed = 0 if account in outer else now - account.began - account.inner
                wait = max(elapsed - account.cpu - cpu, 0)
                yield account.route, 0, cpu * account.weight, wait * account.weight

    def _cost(self, seconds: float) -> float:
        """Return what measuring cost, in seconds of CPU; measure as many requests as it may."""
        charges, self.charges = self.charges, 0
        requests, self.requests = self.requests, 0
        if not requests and not charges:
            return 0.0
        turn, account = _costs()
        cost = charges * turn + requests * account
        if seconds > 0:
            wanted = charges * turn * self._weight / (self._allowed * seconds)
            self._weight = min(max(ceil(wanted), 1), _MOST_WEIGHT)
        return cost


def _sums(first: Iterable[int], second: Iterable[int]) -> tuple[int, ...]:
    return tuple(map(add, first, second))


@cache
def _costs() -> tuple[float, float]:
    """Return what a charge costs here, and an account, in seconds of CPU."""
    books, own, rounds = Books(2, 1), Meter(), 100
    began = time.thread_time()
    for _ in range(rounds):
        account = books.open_account(None)
        books.close_account(account, None)
    opened = time.thread_time()
    for _ in range(rounds):
        own.turn(account)
        own.turn(None)
    charged = time.thread_time()
    return (charged - opened) / rounds, (opened - began) / rounds


at_hand: ContextVar[Account | None] = ContextVar("ox_otel_account", default=None)
"""The account of the request that this context belongs to."""

_own = local()
_books: Books | None = None


def meter() -> Meter:
    """Return the meter of the calling native thread."""
    try:
        its: Meter = _own.meter
    except AttributeError:
        its = _own.meter = Meter()
    return its


def books() -> Books | None:
    """Return the books that are kept now; None while nobody samples."""
    return _books


def keep(new: Books) -> None:
    """Have accounts opened in *new* books from now on."""
    global _books  # noqa: PLW0603 - there is one sampler a process
    _books = new


def leave(old: Books) -> None:
    """Open no more accounts in the *old* books."""
    global _books  # noqa: PLW0603 - as above
    if _books is old:
        _books = None


def measured() -> Account | None:
    """Return the account at hand, if it is measured."""
    account = at_hand.get()
    return account if account is not None and account.weight else None


def _renew() -> None:
    """In a forked child: its clocks begin at 0, and what its parent had begun is the parent's."""
    global _own, _books  # noqa: PLW0603 - as above
    _own = local()
    _books = None


follow_forks(_renew)
