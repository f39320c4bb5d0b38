"""The end of a process, also where it comes past `atexit`: nothing of ours is lost or remains.

`multiprocessing` ends its children by `os._exit`, but not without calling finalizers of its own.
"""

import atexit
import sys
from collections.abc import Callable
from contextlib import suppress

LAST = -100
"""Priority among the finalizers of `multiprocessing`: the host's own work is over."""

_acts: list[Callable[[], None]] = []
_has_told = False  # multiprocessing of us; a child inherits both


def at_end(act: Callable[[], None]) -> None:
    """Have *act* called when this process ends, and before what was given earlier."""
    not_at_end(act)
    _acts.append(act)
    atexit.register(act)
    _tell_multiprocessing()


def not_at_end(act: Callable[[], None]) -> None:
    """Have *act* called no more, if it was to be."""
    with suppress(ValueError):
        _acts.remove(act)
    atexit.unregister(act)


def _tell_multiprocessing() -> None:
    """Have the processes of `multiprocessing` call us when they end, if the host has imported it."""
    global _has_told  # noqa: PLW0603 - there is one a process
    util = sys.modules.get("multiprocessing.util")
    register = getattr(util, "register_after_fork", None)  # none: it is just being imported
    if register is not None and not _has_told:
        _has_told = True
        register(_end, _end_as_process)


def _end_as_process(end: Callable[[], None]) -> None:
    """In such a process, which has forgotten the finalizers of its parent."""
    sys.modules["multiprocessing.util"].Finalize(None, end, exitpriority=LAST)


def _end() -> None:
    for act in reversed(_acts[:]):
        with suppress(Exception):
            act()
