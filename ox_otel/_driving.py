"""Coroutines whose every step is accounted for, and what works for them elsewhere meanwhile.

On an event loop many requests take turns on one thread. Whoever makes the steps of a coroutine
sees where each begins and ends; nobody else does.
"""

import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from threading import Thread
from types import CoroutineType
from typing import Any, TypeVar

from ox_otel._accounts import Account, Meter, measured, meter
from ox_otel._books import books
from ox_otel._interpreter import clock_of

T = TypeVar("T")


class Driven(Coroutine[Any, Any, T]):
    """Makes the steps of *coroutine*, each for the account that is at hand in its context.

    For all else it is the coroutine.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._errand: _Errand | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)

    def __await__(self) -> Generator[Any, Any, T]:
        return self

    def __iter__(self) -> Generator[Any, Any, T]:
        return self

    def __next__(self) -> Any:
        return self._step(self._coroutine.send, None)

    def send(self, value: Any) -> Any:
        """Make a step."""
        return self._step(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        """Make a step that begins with an error."""
        return self._step(self._coroutine.throw, *error)

    def close(self) -> None:
        """Have the coroutine end where it stands."""
        self._coroutine.close()

    def _step(self, step: Callable[..., Any], *given: Any) -> Any:
        if self._errand is not None:
            self._errand.end()
            self._errand = None
        its, account = meter(), measured()
        before, task = its.account, its.task
        if account is not before:
            its.turn(account)
        if (its_books := books()) is not None:
            its_books.steps += 1 if account is before else 2  # to look for errands is as dear
        its.steps += 1
        its.task = current_task()
        try:
            awaited = step(*given)
            if (account := measured()) is not None:
                self._errand = _errand(self._coroutine, account)
            return awaited
        finally:
            its.steps -= 1
            its.task = task
            if its.account is not before:
                its.turn(before)


class _Errand:
    """A thread of a pool works for *account* until the coroutine that waits for it goes on.

    Or until the thread is given the next piece of work, which may be a moment earlier.
    """

    def __init__(self, account: Account, clock: int, since: int) -> None:
        self._account: Account | None = account
        self._clock = clock
        self._since = since
        before, _errands[clock] = _errands.get(clock), self
        if before is not None:
            before._charge()

    def end(self) -> None:
        """Charge what the thread has used."""
        if _errands.get(self._clock) is self:
            del _errands[self._clock]
        self._charge()

    def _charge(self) -> None:
        account, self._account = self._account, None
        if account is not None:
            with suppress(OSError):  # the thread has ended
                account.charge(time.clock_gettime_ns(self._clock) - self._since)


_errands: dict[int, _Errand] = {}
"""The last one of each thread that is at work, by its clock."""


def _errand(coroutine: Coroutine[Any, Any, Any], account: Account) -> _Errand | None:
    """Return what a thread of anyio's pool is about to do for a coroutine that waits for it.

    That is how Starlette and FastAPI call endpoints that are plain functions. The thread, which
    works for nobody else meanwhile, is a variable of the function that waits.
    """
    if "anyio" not in sys.modules:
        return None
    try:
        thread = _worker(coroutine)
        if thread is None or thread.ident is None:
            return None
        clock, since = clock_of(thread.ident)
    except Exception:  # nothing of a pool we do not know may reach its host
        return None
    return None if clock is None else _Errand(account, clock, since)


def _worker(coroutine: Coroutine[Any, Any, Any]) -> Thread | None:
    innermost: Any = None
    awaited: Any = coroutine
    while type(awaited) in (CoroutineType, Driven):  # of another kind, it would run its own code
        innermost, awaited = awaited, awaited.cr_await
    if innermost is None or innermost.cr_code.co_name != "run_sync_in_worker_thread":
        return None
    for variable in gc.get_referents(innermost):
        # by its type: `isinstance` would ask a proxy of the host's what it stands for
        if issubclass(type(variable), Thread):
            thread: Thread = variable
            return thread
    return None


def driven(coroutine: Coroutine[Any, Any, T]) -> Awaitable[T]:
    """Return what to await in place of *coroutine*, so that all its steps are accounted for."""
    loop = asyncio._get_running_loop()
    if loop is not None:  # as with trio
        follow(loop)
    return coroutine if is_driven(meter()) else Driven(coroutine)


def is_driven(its: Meter) -> bool:
    """Return whether what runs now is part of a step, and not of a task that began within it."""
    return its.steps > 0 and its.task is current_task()


def current_task() -> object:
    """Return asyncio's task that runs now, None if none does."""
    loop = asyncio._get_running_loop()
    return None if loop is None else asyncio.current_task(loop)


def follow(loop: asyncio.AbstractEventLoop) -> None:
    """Have tasks that requests start on *loop* be driven, unless it makes tasks of its own kind."""
    with suppress(NotImplementedError):  # asyncio does not ask a loop for more
        if loop.get_task_factory() is None:
            loop.set_task_factory(_task_of_a_request)


def follow_all(loop: asyncio.AbstractEventLoop) -> None:
    """Have all tasks that are made on *loop* be driven, since requests begin in some of them."""
    follow(loop)
    with suppress(NotImplementedError):
        if loop.get_task_factory() is _task_of_a_request:
            loop.set_task_factory(_any_task)


def _task_of_a_request(
    loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
) -> asyncio.Task[Any]:
    if books() is not None and measured(options.get("context")) is None:
        return asyncio.Task(coroutine, loop=loop, **options)  # nobody's
    return _any_task(loop, coroutine, **options)


def _any_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    if books() is None:  # it is over: leave the loop as it was
        factory = loop.get_task_factory()
        if factory is _task_of_a_request or factory is _any_task:  # not the host's, calling ours
            loop.set_task_factory(None)
    elif asyncio.iscoroutine(coroutine):  # else asyncio refuses it
        coroutine = Driven(coroutine)
    return asyncio.Task(coroutine, loop=loop, **options)
