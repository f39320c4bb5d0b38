"""What the interpreter and the kernel tell of other threads, asked for without harm."""

import gc
import os
import sys
import threading
import time
from types import FrameType

_COLLECTS_BETWEEN_INSTRUCTIONS = sys.version_info >= (3, 12)

_survivor: threading.Thread | None = None  # of a fork: the only thread of this process then


def _after_fork() -> None:
    global _survivor  # noqa: PLW0603 - there is one a process
    _survivor = threading.current_thread()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def unsupported() -> str:
    """Return why this interpreter must not be sampled, or nothing."""
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} does not show the frames of its threads reliably"
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "without the GIL, looking at the frames of a running thread is not safe"
    return ""


def current_frames() -> dict[int, FrameType]:
    """Return the topmost frame of each thread, by ident."""
    if _COLLECTS_BETWEEN_INSTRUCTIONS:
        return sys._current_frames()
    # Below 3.12 a garbage collection may start inside of the call while it holds the lock over
    # the list of threads; a destructor that then lets go of the GIL deadlocks the process
    # (python/cpython#106883).
    enabled = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        if enabled:
            gc.enable()


def clock_of(ident: int) -> tuple[int | None, int]:
    """Return the CPU clock of the thread *ident* and its time in nanoseconds.

    Returns `None, 0` where there is none that we can read: off Linux, and for threads that
    Python's `threading` does not know.
    """
    if sys.platform != "linux":
        return None, 0
    try:
        # not `enumerate()`, which takes a lock, nor `.native_id`, which a subclass may replace
        thread = threading._active[ident]  # type: ignore[attr-defined]
        # CPython leaves the survivor of a fork the native id that it had in the parent
        survived = thread is _survivor
        native_id = (
            os.getpid() if survived else object.__getattribute__(thread, "__dict__")["_native_id"]
        )
        # the kernel's number for the clock of one thread of this process (clock_getres(2)); to
        # ask by number fails cleanly for a dead thread, where pthread_getcpuclockid may crash
        clock = (~native_id << 3) | 6
        return clock, time.clock_gettime_ns(clock)
    except (AttributeError, KeyError, OSError, TypeError):
        return None, 0


def schedule_of(clock: int | None = None) -> tuple[float, int]:
    """Return how the kernel has treated the thread with this CPU clock, or our own.

    That is, how many seconds it has waited for a core so far, and how often it got one; zeros where
    the kernel does not tell.
    """
    task = "thread-self" if clock is None else f"self/task/{~(clock >> 3)}"
    try:
        file = os.open(f"/proc/{task}/schedstat", os.O_RDONLY)
    except OSError:
        return 0.0, 0
    try:
        # nanoseconds on a core, waiting for one, times (sched-stats in the kernel's documentation)
        _, waited, times = os.read(file, 80).split()
        return int(waited) * 1e-9, int(times)
    except (OSError, ValueError):
        return 0.0, 0
    finally:
        os.close(file)
