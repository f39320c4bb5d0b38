"""What the interpreter and the kernel tell of other threads, asked for without harm."""

import gc
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ox_otel._fork import follow_forks

if sys.platform == "linux":
    import resource

_COLLECTS_BETWEEN_INSTRUCTIONS = sys.version_info >= (3, 12)

_survivor: threading.Thread | None = None  # of a fork: the only thread of this process then
_suspended = False  # garbage collection, by us


def _renew() -> None:
    global _survivor, _suspended  # noqa: PLW0603 - there is one of each a process
    _survivor = threading.current_thread()
    if _suspended:  # by a thread that does not exist here
        gc.enable()
        _suspended = False


follow_forks(_renew)


def unsupported() -> str:
    """Return why this interpreter must not be sampled, or nothing."""
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} does not show the frames of its threads reliably"
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "without the GIL, looking at the frames of a running thread is not safe"
    return ""


@contextmanager
def frames_of_threads() -> Iterator[dict[int, FrameType]]:
    """Yield the topmost frame of each thread, by ident; only within, walk from there.

    Below 3.12 whatever allocates may collect garbage, and a destructor that lets go of the GIL
    then. In the listing of frames, which holds the lock over the list of threads, that deadlocks
    the process (python/cpython#106883). In `f_back`, which makes a frame object out of what lies on
    the stack of its thread, the thread goes on meanwhile, and what it has left is read: a crash.
    """
    global _suspended  # noqa: PLW0603 - collection is the whole process's
    frames: dict[int, FrameType] = {}
    collecting = not _COLLECTS_BETWEEN_INSTRUCTIONS and gc.isenabled()
    if collecting:
        _suspended = True
        gc.disable()
    try:
        frames = sys._current_frames()
        yield frames
    finally:
        frames.clear()  # nothing of the host may end with us, once the GIL may be let go of
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


def waits_of_ours() -> int:
    """Return how often the calling thread has given up its core in order to wait; without a pause.

    Returns 0 where the system does not tell.
    """
    if sys.platform != "linux":
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def core_wait(clock: int | None = None) -> float:
    """Return how many seconds the thread with this CPU clock, or our own, has waited for a core.

    Lets go of the GIL three times, which a busy process gives back only after 5 ms: not for every
    sample. Returns 0 where the kernel does not tell.
    """
    task = "thread-self" if clock is None else f"self/task/{~(clock >> 3)}"
    try:
        file = os.open(f"/proc/{task}/schedstat", os.O_RDONLY)
    except OSError:
        return 0.0
    try:
        # nanoseconds on a core, and waiting for one (sched-stats in the kernel's documentation)
        return int(os.read(file, 80).split()[1]) * 1e-9
    except (OSError, ValueError, IndexError):
        return 0.0
    finally:
        os.close(file)
