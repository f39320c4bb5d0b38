"""What all requests use, by route: accounts are opened here, and closed, and settled once a second.

Like accounts, without a lock.
"""

import time
from collections.abc import Iterable, Iterator
from functools import cache
from math import ceil
from operator import add, sub
from random import random

from ox_otel._accounts import Account, Meter, Template
from ox_otel._fork import follow_forks
from ox_otel._names import UNKNOWN, valid
from ox_otel.recorders import OTHER, UNMATCHED, RouteUsage

_SHARE = 0.25
"""Of the budget, what the clocks of requests may take."""

_MOST_WEIGHT = 1000

_WINDOW = 0.5
"""Seconds after which weights are set anew: in less, a single request looks like a flood."""

_STEP = 0.4
"""What a step of a coroutine costs in charges, beside that of one that is measured."""


class Route:
    """What all requests of one route have used; times in nanoseconds."""

    __slots__ = ("cpu", "name", "requests", "wait")

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests = self.cpu = self.wait = 0


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
        self.steps = 0  # of coroutines; each that was measured counts twice
        self._limit = limit
        self._allowed = budget * _SHARE
        self._weight = 1
        self._window = 0.0  # seconds since the weight was set
        self._weighed = 0  # charges in them
        self._routes: dict[str, Route] = {}
        self._rest = Route(OTHER)
        self._published: dict[str, tuple[int, ...]] = {}

    def open_account(self, template: Template, outer: Account | None) -> Account:
        """Return the account of a request that begins now, within that of *outer*."""
        if outer is not None and (outer.books is not self or not outer.is_open):
            outer = None  # of a parent's, or over
        if outer is not None:
            weight = outer.weight
        else:
            weight = self._weight if self._weight == 1 or random() * self._weight < 1 else 0  # noqa: S311 - not a secret
        account = Account(self, template, outer, weight)
        if weight:
            self.open[account] = None
        return account

    def cancel_account(self, account: Account) -> None:
        """Forget a request, which is counted by another account."""
        account.is_open = False
        self.open.pop(account, None)
        account.close()

    def close_account(self, account: Account) -> None:
        """Count a request that is over, unless it is counted already, or cancelled."""
        if not account.is_open:
            return
        route = self.route(account.route())
        self.requests += 1
        route.requests += 1
        account.is_open = False
        if account.weight:
            self._add(account, route)
        account.close()

    def _add(self, account: Account, route: Route) -> None:
        self.open.pop(account, None)  # before it is added: nothing counts twice
        elapsed = time.monotonic_ns() - account.began
        if account.outer is not None:
            account.outer.inner += elapsed
        if not account.is_lost:
            wait = account.wait(elapsed, account.cpu)  # before it is added: no call within a sum
            route.cpu += account.cpu * account.weight
            route.wait += wait * account.weight

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
            if route.requests:
                yield route, route.requests, route.cpu, route.wait

    def _under_way(self) -> Iterator[tuple[Route, int, int, int]]:
        now = time.monotonic_ns()
        accounts = list(self.open.copy())
        busy = {account.outer for account in accounts}  # with one that is within
        for account in accounts:
            name = account.route()
            if name is None or account.is_lost or account.is_watched:
                continue
            cpu = account.cpu + account.running()
            wait = 0 if account in busy else account.wait(now - account.began, cpu)
            yield self.route(name), 0, cpu * account.weight, wait * account.weight

    def _cost(self, seconds: float) -> float:
        """Return what measuring cost, in seconds of CPU; measure as many requests as it may."""
        charges, self.charges = self.charges, 0
        requests, self.requests = self.requests, 0
        steps, self.steps = self.steps, 0
        self._window += seconds
        self._weighed += charges
        if self._window >= _WINDOW:
            self._set_weight()
        if not requests and not charges and not steps:
            return 0.0
        turn, account = _costs()
        return (charges + steps * _STEP) * turn + requests * account

    def _set_weight(self) -> None:
        wanted = 0.0
        if self._weighed:
            measuring = self._weighed * _costs()[0] * (1 + 2 * _STEP)
            wanted = measuring * self._weight / (self._allowed * self._window)
        self._weight = min(max(ceil(wanted), 1), _MOST_WEIGHT)
        self._window, self._weighed = 0.0, 0


def _sums(first: Iterable[int], second: Iterable[int]) -> tuple[int, ...]:
    return tuple(map(add, first, second))


@cache
def _costs() -> tuple[float, float]:
    """Return what a charge costs here, and an account, in seconds of CPU."""
    books, own, rounds = Books(2, 1), Meter(), 100
    began = time.thread_time()
    for _ in range(rounds):
        account = books.open_account(lambda: None, None)
        books.close_account(account)
    opened = time.thread_time()
    for _ in range(rounds):
        own.turn(account)
        own.turn(None)
    charged = time.thread_time()
    return (charged - opened) / rounds, (opened - began) / rounds


_books: Books | None = None


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


def _renew() -> None:
    """In a forked child: what its parent had begun is the parent's."""
    global _books  # noqa: PLW0603 - as above
    _books = None


follow_forks(_renew)
