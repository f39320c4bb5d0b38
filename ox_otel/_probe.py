"""Is what the ticks need allowed here, and do they see what there is? Asked once, at the start."""

import signal
import sys
import threading
from collections.abc import Iterator
from types import CodeType

from ox_otel import _ticks
from ox_otel._looks import Stranger
from ox_otel._native import get_ident
from ox_otel._tasks import blocked_by


def obstacle() -> str:
    """Return why there can be no ticks in this process, or nothing."""
    if taken := _ticks.taken():
        return f"somebody else handles {signal.Signals(taken).name}"
    if not _ticks.may_read():
        return "process_vm_readv is not allowed"
    if blocked_by(threading.get_native_id()) is None:
        return "/proc does not tell which signals a thread blocks"
    if not reads_true():
        return "the stacks of this interpreter are not as expected"
    try:
        _ticks.disarm(_ticks.arm(get_ident(), threading.get_native_id(), 10**9, 10**9))
    except (LookupError, OSError) as error:
        return f"there is no timer: {error}"
    return ""


def reads_true() -> bool:
    """Return whether a tick would see a stack as the interpreter itself shows it.

    That of a function, a constructor and a generator: each has frames of its own kind.
    """

    def generate() -> Iterator[tuple[tuple[int | Stranger, ...] | None, list[CodeType]]]:
        callers = sys._getframe(0), sys._getframe(1), sys._getframe(2)
        yield _ticks.walk(), [frame.f_code for frame in callers]

    class Looking:
        def __init__(self) -> None:
            self.seen = next(generate())

    stack, codes = Looking().seen
    return stack is not None and len(stack) > 3 and all(map(_is_of, stack, codes))


def _is_of(frame: int | Stranger, code: CodeType) -> bool:
    """Return whether a tick means *code*, by its address or by all that it says."""
    said = (id(code), code.co_qualname, code.co_filename, code.co_firstlineno)
    return frame in (id(code), said)
