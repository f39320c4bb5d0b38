"""Which engine samples? Ticks where they can be had, by default only where they were proven."""

import sys
from collections.abc import Callable

from ox_otel._names import Names
from ox_otel._threads import Threads

PROVEN = (3, 11), (3, 12), (3, 13), (3, 14), (3, 15)
"""The versions of Python on which `make ticks-stress` has passed its half hour."""


def engine_for(
    wanted: str,
    names: Names,
    max_depth: int,
    on_error: Callable[[str], None],
    interval: Callable[[], float],
) -> tuple[Threads, str]:
    """Return the engine that is *wanted*, or the portable one and why.

    *interval* returns the seconds of one interval, as far as the budget has stretched it.
    """
    portable = Threads(names, max_depth, on_error)
    proven = sys.platform == "linux" and sys.version_info[:2] in PROVEN
    if wanted == "threads" or (wanted == "auto" and not proven):
        return portable, ""
    try:
        # they need the extension, which not every installation has
        from ox_otel._probe import obstacle
        from ox_otel._ticking import Ticks
    except ImportError:  # its text has a path of the host, and the reason stands in answers
        return portable, "the engine ticks is not in this installation"
    if reason := obstacle():
        return portable, f"the engine ticks cannot be had: {reason}"
    return Ticks(names, max_depth, on_error, interval), ""
