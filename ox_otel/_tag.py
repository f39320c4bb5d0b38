"""Say which route the work at hand is for."""

import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ox_otel._accounts import Account, Meter, Template, at_hand, measured, meter, turn
from ox_otel._books import books
from ox_otel._greenlets import follow_switches
from ox_otel._notices import warn

T = TypeVar("T")


@contextmanager
def tag(*, route: str | None = None) -> Iterator[None]:
    """Count what the calling thread does within as one request of *route*.

    Within another tag, the inner one has the time. Without a route it is work for the request
    that the context belongs to, in a thread of a pool, which has to leave it, too.

    In a coroutine it counts CPU if the coroutine does not wait within, or is driven (see
    `tagged`); else the request only. In a generator, what is done while that waits counts, too.
    """
    if route is None:
        its, before = meter(), meter().account
        its.turn(measured())
        try:
            yield
        finally:
            if meter() is its:  # a generator may be left on another thread, whose time is its own
                its.turn(before)
        return
    account = begin(lambda: route)
    try:
        yield
    finally:
        if account is not None:
            end(account)
            if account.is_lost:
                warn("ox_otel: `tag` was in a coroutine that waits; `tagged` would know its CPU")


async def tagged(coroutine: Coroutine[Any, Any, T], *, route: str) -> T:
    """Await *coroutine*, with all tasks that it starts, as one request of *route*."""
    from ox_otel._driving import driven

    async def within() -> T:
        with tag(route=route):
            return await coroutine

    return await driven(within())


def begin(template: Template) -> Account | None:
    """Open an account for a request of which *template* will tell the route.

    Returns None while nobody samples.
    """
    its_books, its = books(), meter()
    if its_books is None:
        return None
    follow_switches(its)
    account = its_books.open_account(template, at_hand.get())
    account.before = its.account
    at_hand.set(account)
    loop = _running_loop()
    if loop is not None and account.weight and not _is_driven(its):
        if its.steps:  # an eager task within another one's step: that has all of the time
            account.is_lost = True
            return account
        _watch(account, loop)
    turn(its)
    return account


def end(account: Account) -> None:
    """Close an account, at hand or, if a generator was left late, not any more.

    Its CPU is not known if somebody else had the thread meanwhile, unseen, and has it still.
    """
    its = meter()
    if at_hand.get() is account:
        at_hand.set(account.outer)
    if its.account is (account if account.weight else None):
        before = account.before
        if before is not None and not before.is_open:
            before = None
        if its.account is not before:
            its.turn(before)
    elif account.books is books():  # else it was not followed to its end
        account.is_lost = True
    account.books.close_account(account)


def _running_loop() -> Any:
    asyncio = sys.modules.get("asyncio")
    return asyncio and asyncio._get_running_loop()


def _is_driven(its: Meter) -> bool:
    from ox_otel._driving import is_driven

    return is_driven(its)


def _watch(account: Account, loop: Any) -> None:
    """Notice if a coroutine waits that nobody drives: the loop does other work then."""
    from ox_otel._driving import follow

    follow(loop)
    account.is_watched = True
    loop.call_soon(_lose, account, loop)  # before the coroutine goes on, if it waits


def _lose(account: Account, loop: Any) -> None:
    from ox_otel._driving import follow_all

    if account.is_open:
        account.lose()
        follow_all(loop)  # the next one will be driven
