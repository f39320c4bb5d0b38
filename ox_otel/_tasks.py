"""What the kernel tells of a thread of this process, in its files under /proc."""

import os
import re
from collections.abc import Callable

Read = Callable[[int, str], bytes]
"""Returns the beginning of a thread's file, after the kernel's number of the thread and a name."""


def read_task(native_id: int, name: str) -> bytes:
    """Return the beginning of a file that the kernel has for a thread of this process.

    Lets go of the GIL three times, which a busy process gives back only after 5 ms: not for every
    sample. `_ticks.read_task` keeps it.

    Raises:
        OSError: there is no such thread, or the system has no such file.
    """
    file = os.open(f"/proc/self/task/{native_id}/{name}", os.O_RDONLY)
    try:
        return os.read(file, 16384)
    finally:
        os.close(file)


def blocked_by(native_id: int, read: Read = read_task) -> int | None:
    """Return the signals that a thread of this process blocks, as bits from 0 for signal 1.

    Returns None where there is no such thread, or the system does not tell.
    """
    try:
        blocked = re.search(rb"SigBlk:\s*(\w+)", read(native_id, "status"))
    except OSError:
        return None
    return None if blocked is None else int(blocked[1], 16)


def core_wait(native_id: int) -> int:
    """Return how many nanoseconds a thread of this process has waited for a core.

    Returns 0 where there is no such thread, or the kernel does not tell.
    """
    try:
        # nanoseconds on a core, and waiting for one (sched-stats in the kernel's documentation)
        return int(read_task(native_id, "schedstat").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
