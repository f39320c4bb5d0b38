"""Forks: no work of ours is cut in two by one, and a child begins anew by itself.

What `record` or a scrape does may hold locks of third parties; a child forked meanwhile would find
them locked for ever. So such work is done within `uncut`, and a fork waits for it, for a moment.
"""

import _thread
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from types import FrameType, MethodType, TracebackType
from typing import NamedTuple
from weakref import WeakMethod

from ox_otel._native import Alarm, allocate_lock, get_ident, own_idents
from ox_otel._notices import warn

WAIT_SECONDS = 0.1
"""How long a fork waits for work that must not be cut."""

MASTERS = {"gunicorn.arbiter": "gunicorn.arbiter", "billiard.popen_fork": "celery.concurrency."}
"""Modules in which servers (gunicorn, Celery) fork workers, and how the name of one begins that is at
work there: pools of billiard are anybody's. The master of a server does no work itself."""

STARTERS = {"subprocess", "gevent.subprocess"}
"""Modules that fork in order to run another program; nothing is worth starting before that."""

Act = Callable[[], None]


class _Gate:
    """A context manager for work that a fork waits for; the other methods are the fork's.

    Such work may be part of other such work.
    """

    _door: _thread.LockType  # held while a process is being forked
    _left: Alarm
    _inside: dict[int, int]  # how deep, by ident
    _closed_by: int | None

    def __init__(self) -> None:
        self.renew()

    def __enter__(self) -> None:
        ident = get_ident()
        if depth := self._inside.get(ident, 0):
            self._inside[ident] = depth + 1  # the fork at the door waits for this very thread
        else:
            with self._door:
                self._inside[ident] = 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        ident = get_ident()
        if depth := self._inside.get(ident, 1) - 1:  # 1: it has been given up
            self._inside[ident] = depth
        else:
            self._inside.pop(ident, None)
            self._left.ring()

    def renew(self) -> None:
        """Begin anew in a child: who has held the lock, or was inside, does not exist there."""
        self._door = allocate_lock()
        self._left = Alarm()
        self._inside = {}
        self._closed_by = None

    def close(self) -> None:
        """Let nobody in, and wait until all are out; who does not come in time is given up."""
        deadline = time.monotonic() + WAIT_SECONDS
        if not self._door.acquire(timeout=WAIT_SECONDS):
            return
        self._closed_by = get_ident()
        while self._inside.keys() - {self._closed_by}:  # work may fork, too
            self._left.wait(deadline - time.monotonic())
            if time.monotonic() > deadline:
                self._inside.clear()

    def open(self) -> None:
        """Let everybody in again."""
        if self._closed_by == get_ident():
            self._closed_by = None
            self._door.release()


class _Follower(NamedTuple):
    """Who is told of forks: a function, or a method as long as its object lives."""

    renew: Callable[[], Act | None]
    resume: Callable[[], Act | None]
    hand_over: Callable[[], Act | None]


def _nothing() -> None:
    pass


uncut = _Gate()
"""Within it, a thread does what no fork may cut in two."""

_followers: list[_Follower] = []
_begun = {os.getpid(): object()}  # the process in which everything has begun: one key


def follow_forks(renew: Act, resume: Act = _nothing, hand_over: Act = _nothing) -> None:
    """Have these called when the process forks, in the order in which they were given.

    In the child first every *renew*, then, unless it is about to run another program, every
    *resume*; in a server's master *hand_over*, before it forks a worker. Methods are held weakly.
    What one of them raises keeps none of the others from being called.
    """
    for one in _followers[:]:
        if one.renew() is None:
            with suppress(ValueError):  # another thread has found it too
                _followers.remove(one)
    _followers.append(_Follower(_weakly(renew), _weakly(resume), _weakly(hand_over)))


def _weakly(act: Act) -> Callable[[], Act | None]:
    return WeakMethod(act) if isinstance(act, MethodType) else lambda: act


def notice_fork() -> None:
    """Begin anew in a child that was forked without Python's hooks, as uWSGI does it."""
    pid, mine = os.getpid(), object()
    if pid not in _begun and _begun.setdefault(pid, mine) is mine:  # one of its threads does it
        _begin()


def follow_uwsgi() -> bool:
    """Have uWSGI tell of its forks; return whether this process is its master.

    By itself it calls no hooks of Python. Its module exists in its processes only.
    """
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is None or not uwsgi.masterpid():
        return False
    with suppress(ImportError):  # else workers notice when they are asked for anything
        import_module("uwsgidecorators").postfork(notice_fork)
    return bool(uwsgi.masterpid() == os.getpid())


def _begin(*, resuming: bool = True) -> None:
    """Begin anew: this is a child."""
    pid = os.getpid()
    _begun[pid] = object()
    for other in _begun.keys() - {pid}:
        del _begun[other]
    own_idents.clear()
    uncut.renew()
    followers = _followers[:]
    for follower in followers:
        _call(follower.renew)
    if resuming:
        for follower in followers:
            _call(follower.resume)


def _begin_by_hook() -> None:
    modules = (name for name in _modules(sys._getframe().f_back) if name != "gevent.os")
    _begin(resuming=next(modules, "") not in STARTERS)


def _before() -> None:
    if _is_master(sys._getframe().f_back):  # none if C code forks
        for follower in _followers[:]:
            _call(follower.hand_over)
    uncut.close()


def _call(act: Callable[[], Act | None]) -> None:
    living = act()
    try:
        if living is not None:
            living()
    except Exception as error:
        warn("ox_otel: not in order after a fork: %s", type(error).__name__)


def _is_master(forking: FrameType | None) -> bool:
    """Return whether the code of a frame that forks is a server's, which forks a worker."""
    # gevent wraps `os.fork`
    own = [module for module in _modules(forking) if not module.startswith("gevent.")]
    server = MASTERS.get(own[0]) if own else None
    return server is not None and any(module.startswith(server) for module in own)


def _modules(frame: FrameType | None) -> Iterator[str]:
    """Yield the names of the modules on the stack from *frame* on."""
    while frame is not None:
        yield str(dict.get(frame.f_globals, "__name__"))
        frame = frame.f_back


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=uncut.open, after_in_child=_begin_by_hook)
