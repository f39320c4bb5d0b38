"""Say which route the work at hand is for."""

import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ox_otel._accounts import Account, at_hand, books, measured, meter
from ox_otel._notices import warn

T = TypeVar("T")


@contextmanager
def tag(*, route: str | None = None) -> Iterator[None]:
    """Count what the calling thread does within as one request of *route*.

    Within another tag, the inner one has the time. Without a route it is work for the request
    that the context belongs to, in a thread of a pool.

    In a coroutine it counts CPU if the coroutine does not wait within, or is driven (see
    `tagged`); else the request only.
    """
    if route is None:
        its, before = meter(), meter().account
        its.turn(measured())
        try:
            yield
        finally:
            its.turn(before)
        return
    account = begin(route)
    try:
        yield
    finally:
        if account is not None:
            end(account, route)


async def tagged(coroutine: Coroutine[Any, Any, T], *, route: str) -> T:
    """Await *coroutine*, with all tasks that it starts, as one request of *route*."""
    from ox_otel._driving import driven

    async def within() -> T:
        with tag(route=route):
            return await coroutine

    return await driven(within())


def begin(route: str | None = None) -> Account | None:
    """Open an account for a request of *route*, None if that is not known yet.

    Returns None while nobody samples.
    """
    its_books, its = books(), meter()
    if its_books is None:
        return None
    account = its_books.open_account(at_hand.get())
    at_hand.set(account)
    wanted = account if account.weight else None
    if wanted is not its.account:
        its.turn(wanted)
    if not account.weight:
        return account
    loop = None if its.steps else _running_loop()
    if loop is not None:
        _watch(account, loop)
    elif route is not None:
        account.name(route)
    return account


def end(account: Account, route: str | None) -> None:
    """Close an account; *route* is that of the request, None where none has matched."""
    at_hand.set(account.outer)
    its, wanted = meter(), measured()
    if wanted is not its.account:
        its.turn(wanted)
    if account.watch is not None:
        account.watch.cancel()
    account.books.close_account(account, route)


def _running_loop() -> Any:
    asyncio = sys.modules.get("asyncio")
    return asyncio and asyncio._get_running_loop()


def _watch(account: Account, loop: Any) -> None:
    """Notice if a coroutine waits that nobody drives: the loop does other work then."""
    from ox_otel._driving import follow

    follow(loop)  # the next one will be driven

    def lose() -> None:
        account.lose()
        warn("ox_otel: a coroutine has waited within `tag`; its CPU is known to `tagged` only")

    account.watch = loop.call_soon(lose)
