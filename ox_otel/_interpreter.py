"""What the interpreter and the kernel tell of other threads, asked for without harm."""

import _thread
import gc
import importlib
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType
from typing import Any

from ox_otel._fork import follow_forks
from ox_otel._native import get_ident

if sys.platform == "linux":
    import resource

_interpreters: Any = None  # the module that knows of subinterpreters, by its names
for _name in ("_interpreters", "_xxsubinterpreters"):
    with suppress(ImportError):
        _interpreters = importlib.import_module(_name)
        break

_COLLECTS_BETWEEN_INSTRUCTIONS = sys.version_info >= (3, 12)

# each with a GIL of its own, from 3.12 on
_LISTS_ALL_INTERPRETERS = _interpreters is not None and sys.version_info >= (3, 12)

_main_ident = 0  # of the main thread of this process, as far as we know
_suspended = False  # garbage collection, by us


def _know_main_thread() -> None:
    """Keep the ident of the calling thread if the kernel has it for the main one."""
    global _main_ident  # noqa: PLW0603 - there is one a process
    if _thread.get_native_id() == os.getpid():
        _main_ident = get_ident()


def _renew() -> None:
    global _suspended  # noqa: PLW0603 - there is one a process
    _know_main_thread()
    if _suspended:  # by a thread that does not exist here
        gc.enable()
        _suspended = False


_know_main_thread()
follow_forks(_renew)


class Unsafe(Exception):  # noqa: N818 - it is a state of the process, not an error of anybody
    """Frames must not be looked at now; the message says why."""


def unsupported(engine: str) -> str:
    """Return why this interpreter must not be sampled by an *engine* so named, or nothing."""
    if sys.implementation.name != "cpython" and engine != "threads":
        return (
            f"{sys.implementation.name} does not show the frames of its threads reliably; "
            "OX_OTEL_ENGINE=threads samples it all the same"
        )
    if _interpreters is not None and _interpreters.get_current() != _interpreters.get_main():
        return "only the main interpreter of a process can be sampled, and this is another"
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "without the GIL, looking at the frames of a running thread is not safe"
    uwsgi = sys.modules.get("uwsgi")  # which only a program that uWSGI runs has
    if uwsgi is not None and not _lets_threads_run(uwsgi):
        return "uWSGI runs no threads but its own: start it with enable-threads"
    return ""


def risk() -> str:
    """Return what this release of the interpreter is known to do wrong, or nothing."""
    # python/cpython#99110, #106092: frames of other threads read while they are not whole
    if sys.implementation.name == "cpython" and (
        sys.version_info < (3, 11, 5) or (3, 12) <= sys.version_info < (3, 12, 0, "final")
    ):
        return "may crash when frames of other threads are read; 3.11.5 and 3.12.0 do not"
    return ""


def _lets_threads_run(uwsgi: Any) -> bool:
    """Return whether uWSGI lets go of the GIL while it waits for a request."""
    release = tuple(int(number) for number in re.findall(rb"\d+", uwsgi.version)[:3])
    return release >= (2, 0, 27) or bool(uwsgi.opt.keys() & {"enable-threads", "threads"})


@contextmanager
def frames_of_threads() -> Iterator[dict[int, FrameType]]:
    """Yield the topmost frame of each thread, by ident; only within, walk from there.

    Below 3.12 whatever allocates may collect garbage, and a destructor that lets go of the GIL
    then. In the listing of frames, which holds the lock over the list of threads, that deadlocks
    the process (python/cpython#106883). In `f_back`, which makes a frame object out of what lies on
    the stack of its thread, the thread goes on meanwhile, and what it has left is read: a crash.

    Raises:
        Unsafe: there are subinterpreters, whose frames would be listed too.
    """
    # The listing goes through all interpreters without the GIL of each, and ends the process with
    # an abort (3.12, 3.13, python/cpython#158364). No other thread can make one in between.
    if _LISTS_ALL_INTERPRETERS and len(_interpreters.list_all()) > 1:
        raise Unsafe("there are subinterpreters, whose threads cannot be told apart safely")
    frames: dict[int, FrameType] = {}
    with nullcontext() if _COLLECTS_BETWEEN_INSTRUCTIONS else uncollected():
        try:
            frames = sys._current_frames()
            yield frames
        finally:
            frames.clear()  # nothing of the host may end with us, once the GIL may be let go of


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage within, on the thread that samples; a child forked meanwhile does again."""
    global _suspended  # noqa: PLW0603 - collection is the whole process's
    collecting = gc.isenabled()
    if collecting:
        _suspended = True
        gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
            _suspended = False


def clock_of(ident: int) -> tuple[int | None, int]:
    """Return the CPU clock of the thread *ident* and its time in nanoseconds.

    Returns `None, 0` where there is none that we can read: off Linux, and for threads that
    Python's `threading` does not know.
    """
    if sys.platform != "linux":
        return None, 0
    try:
        if ident == _main_ident:
            # `threading` has the parent's id for the survivor of a fork, and under gevent none
            native_id = os.getpid()
        else:
            # not `enumerate()`, which takes a lock, nor `.native_id`, which a subclass may replace
            thread = threading._active[ident]  # type: ignore[attr-defined]
            native_id = object.__getattribute__(thread, "__dict__")["_native_id"]
        # the kernel's number for the clock of one thread of this process (clock_getres(2)); to
        # ask by number fails cleanly for a dead thread, where pthread_getcpuclockid may crash
        clock = (~native_id << 3) | 6
        return clock, time.clock_gettime_ns(clock)
    except (AttributeError, KeyError, OSError, TypeError):
        return None, 0


def native_id_of(clock: int) -> int:
    """Return the kernel's number of the thread that has this CPU clock, as `clock_of` returns it."""
    return ~(clock >> 3)


def waits_of_ours() -> int:
    """Return how often the calling thread has given up its core in order to wait; without a pause.

    Returns 0 where the system, or the interpreter, does not tell.
    """
    if sys.platform != "linux" or not hasattr(resource, "RUSAGE_THREAD"):  # which PyPy leaves out
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
