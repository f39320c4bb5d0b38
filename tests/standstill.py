"""When threads stand still: a busy machine takes its time until they do."""

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Thread

PATIENCE = 60.0
"""Seconds after which threads that go on are a failure."""

_LOOK = 0.006
"""Seconds from one look to the next: more than the switch interval.

Who waits for the GIL is awake once in that time, and who waits for a core is not asleep.
"""


def until_still(threads: Iterable[Thread]) -> None:
    """Return when all of *threads*, which are started, wait for something that lasts.

    It is not enough that they use no CPU: on a busy machine one that is about to go on uses none
    either, for want of a core.
    """
    if sys.platform != "linux":  # which tells nobody else's state
        time.sleep(0.05)
        return
    numbers = [thread.native_id or 0 for thread in threads]
    deadline, used = time.monotonic() + PATIENCE, [-1]
    while True:
        time.sleep(_LOOK)
        asleep = all(_state(number) == "S" for number in numbers)
        before, used = used, [time.clock_gettime_ns(~number << 3 | 6) for number in numbers]
        if asleep and before == used:
            return
        assert time.monotonic() < deadline


def _state(number: int) -> str:
    """Return the kernel's letter for what a thread of this process does."""
    stat = Path(f"/proc/self/task/{number}/stat").read_text("ascii", "replace")
    return stat.rpartition(")")[2].split()[0]
