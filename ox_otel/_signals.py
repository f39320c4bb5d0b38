"""Signals that threads of ours take: none but their own faults, or, for code of the host, as it does.

A process that blocks a signal in order to wait for it must not lose it to us. But what code of the
host starts from our threads, programs above all, inherits what they block: it could not be ended.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from ox_otel._tasks import blocked_by

_FAULTS = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT"}
"""Signals of the thread itself, which faulthandler must be able to take wherever it crashes."""


def take_none() -> None:
    """Have the calling thread take no signal but its own faults."""
    if hasattr(signal, "pthread_sigmask"):
        others = {s for s in signal.valid_signals() if getattr(s, "name", "") not in _FAULTS}
        signal.pthread_sigmask(signal.SIG_BLOCK, others)


@contextmanager
def as_host() -> Iterator[None]:
    """Have the calling thread, one of ours, block within what the main thread blocks now.

    What the main thread takes the kernel gives to it, not to us. Where the system does not tell
    what that is, everything remains blocked.
    """
    blocked = blocked_by(os.getpid())
    if blocked is None:
        yield
        return
    wanted = {s for s in signal.valid_signals() if blocked >> (s - 1) & 1}
    before = signal.pthread_sigmask(signal.SIG_SETMASK, wanted)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
