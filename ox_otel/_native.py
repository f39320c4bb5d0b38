"""Threads of our own: native ones, whatever has been patched over `threading`.

gevent and eventlet replace the standard library's threads, locks and sockets by green ones. A sampler
on a green thread never sees the code that keeps the loop busy, and a green socket waits in a loop that
our threads have not, so everything here goes to the interpreter's own functions.
"""

import _thread
import contextlib
import os
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ox_otel._signals import take_none

own_idents: set[int] = set()
"""The idents of our live threads: no sample looks at them."""


def original(module: ModuleType, name: str) -> Any:
    """Return `module.name` as the interpreter made it."""
    # what another thread is still importing may lack a function, and has not patched anything yet
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and hasattr(gevent, "get_original"):
        return gevent.get_original(module.__name__, name)
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and hasattr(eventlet, "original"):
        return getattr(eventlet.original(module.__name__), name)
    return getattr(module, name)


def get_ident() -> int:
    """Return the ident of the calling native thread, not of the green one that runs on it."""
    ident: int = original(_thread, "get_ident")()
    return ident


def allocate_lock() -> _thread.LockType:
    """Return a lock that blocks the native thread."""
    lock: _thread.LockType = original(_thread, "allocate_lock")()
    return lock


def get_native_id() -> int:
    """Return the kernel's number of the calling thread."""
    native_id: int = original(_thread, "get_native_id")()
    return native_id


def local() -> Any:
    """Return an object whose attributes each native thread has for itself."""
    return original(_thread, "_local")()


def nap(seconds: float) -> None:
    """Let other threads run, green ones too where the caller may be one: no alarm does that."""
    if get_ident() not in own_idents:  # a green sleep needs a loop, which our threads have not
        try:
            time.sleep(seconds)
        except (AssertionError, RuntimeError):  # the loop itself calls, or a signal handler in it
            pass
        else:
            return
    original(time, "sleep")(seconds)


class Alarm:
    """Waiting and being told, in one: a wait that any other thread can end at once.

    `ring` takes no lock, so a signal handler or a destructor may call it. It also calls *wake*, which
    ends another wait that the same thread may be in.
    """

    def __init__(self, wake: Callable[[], None] | None = None) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()
        self._wake = wake

    def wait(self, seconds: float | None) -> bool:
        """Wait *seconds* (None: for ever) or until rung; return whether it was rung."""
        return self._lock.acquire(timeout=-1 if seconds is None else max(seconds, 0.0))

    def ring(self) -> None:
        """End the present wait, or the next one if nobody waits."""
        with contextlib.suppress(RuntimeError):  # it rings already
            self._lock.release()
        if self._wake:
            self._wake()


class Worker:
    """A native daemon thread that runs *target* once.

    It takes no signal (see `_signals`), and bears *name* where the system shows names of threads.

    Raises:
        RuntimeError: the system or a closing interpreter has no thread to give.
        MemoryError: as above.
    """

    def __init__(self, target: Callable[[], None], name: str) -> None:
        self._target = target
        self._name = name
        self._ended = allocate_lock()
        self._ended.acquire()
        self.ident: int = original(_thread, "start_new_thread")(self._run, ())

    def alive(self) -> bool:
        """Return whether the thread has not ended yet."""
        return self._ended.locked()

    def join(self, seconds: float) -> bool:
        """Wait at most *seconds* for the end; return whether it came."""
        if not self._ended.acquire(timeout=seconds):
            return False
        self._ended.release()
        return True

    def _run(self) -> None:
        ident = get_ident()
        own_idents.add(ident)
        try:
            take_none()
            with contextlib.suppress(OSError, AttributeError):
                comm = f"/proc/self/task/{get_native_id()}/comm"
                descriptor = os.open(comm, os.O_WRONLY)
                try:
                    os.write(descriptor, self._name.encode()[:15])
                finally:
                    os.close(descriptor)
            self._target()
        finally:
            own_idents.discard(ident)
            self._ended.release()
