"""The truth a program knows about itself: seconds of wall and CPU per function, its own only.

The decorator `accounted` charges the time between two switches, from one accounted function into
another and back, to the function that was running: so nested calls are not counted twice.
"""

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Account:
    """What one function used itself, in seconds, over all threads."""

    kind: str
    calls: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0


# Threads add to accounts without a lock: CPython does not change threads within `x.y += z`.
accounts: dict[str, Account] = {}


@dataclass
class Clock(threading.local):
    """Which account the time of this thread goes to, and since when."""

    account: Account = field(default_factory=lambda: Account("outside of accounted functions"))
    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.thread_time)

    def switch(self, account: Account) -> Account:
        """Charge the time since the last switch, go on with `account`, return the one before."""
        wall, cpu = time.perf_counter(), time.thread_time()
        before, self.account = self.account, account
        before.wall_seconds += wall - self.wall
        before.cpu_seconds += cpu - self.cpu
        self.wall, self.cpu = wall, cpu
        return before


clock = Clock()


class Accounted:
    """A function with an account; in a profile, its wrapper's frame is `Accounted.__call__`."""

    def __init__(self, function: Callable[..., Any], kind: str):
        functools.update_wrapper(self, function)
        self.function = function
        name = f"{function.__module__}.{function.__qualname__}"
        self.account = accounts.setdefault(name, Account(kind))

    def __call__(self, *args: Any) -> Any:
        """Call the function on its own account."""
        before = clock.switch(self.account)
        self.account.calls += 1
        try:
            return self.function(*args)
        finally:
            clock.switch(before)


def accounted(kind: str) -> Callable[[Callable[..., Any]], Accounted]:
    """Decorate a function: account for its time; `kind` says what it spends it on."""
    return functools.partial(Accounted, kind=kind)
