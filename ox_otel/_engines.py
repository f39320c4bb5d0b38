"""Which engine samples? Ticks where they can be had and were proven, else threads."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import CodeType

from ox_otel._interpreter import clock_of
from ox_otel._looks import Stranger
from ox_otel._names import Names
from ox_otel._threads import Threads

_Sight = tuple[tuple[int | Stranger, ...] | None, list[CodeType]]

PROVEN = ((3, 11), (3, 12), (3, 13), (3, 14), (3, 15))
"""The interpreters on which `make ticks-stress` has run its full course."""


def engine_for(
    wanted: str,
    names: Names,
    max_depth: int,
    on_error: Callable[[str], None],
    gap: Callable[[], float],
) -> tuple[Threads, str]:
    """Return the engine that is *wanted*, or the one there is and why.

    *gap* returns the seconds between two samples.
    """
    obstacle = "" if wanted == "threads" else _obstacle(proven=wanted == "auto")
    if wanted == "threads" or obstacle:
        return Threads(names, max_depth, on_error), obstacle
    from ox_otel._ticking import Ticks  # needs the extension

    return Ticks(names, max_depth, on_error, gap), ""


def _obstacle(*, proven: bool) -> str:
    """Return why ticks cannot be had here, or nothing; *proven*: only where they were proven."""
    if proven and sys.version_info[:2] not in PROVEN:
        return "the engine ticks is not proven on this version of Python"
    try:
        from ox_otel import _ticks
    except ImportError as error:
        return f"the engine ticks is not in this installation ({error})"
    try:
        if taken := _ticks.claim():
            return f"somebody else handles {signal.Signals(taken).name}"
        if not _reads_true(_ticks.walk):
            return "the engine ticks cannot read this interpreter"
        ident = threading.get_ident()
        clock, _ = clock_of(ident)
        if clock is None:
            return "the engine ticks finds no clock of this thread"
        _ticks.disarm(_ticks.arm(ident, ~(clock >> 3), 10**9, 10**9))
    except (LookupError, OSError) as error:
        return f"the engine ticks has no timer ({error})"
    finally:
        _ticks.release()
    return ""


def _reads_true(walk: Callable[[], tuple[int | Stranger, ...] | None]) -> bool:
    """Return whether *walk* sees a stack as the interpreter itself does.

    That of a function, a constructor and a generator: each has frames of its own kind.
    """

    def generate() -> Iterator[_Sight]:
        yield walk(), _codes()

    class Seeing:
        def __init__(self) -> None:
            self.sight = next(generate())

    seen, codes = Seeing().sight
    return seen is not None and len(seen) >= len(codes) and all(map(_is_of, seen, codes))


def _codes() -> list[CodeType]:
    """Return the code objects of the three nearest callers."""
    callers = map(sys._getframe, (1, 2, 3))
    return [frame.f_code for frame in callers]


def _is_of(frame: int | Stranger, code: CodeType) -> bool:
    """Return whether a tick means *code*, by its address or by all that it says."""
    said = (id(code), code.co_qualname, code.co_filename, code.co_firstlineno)
    return frame in (id(code), said)
