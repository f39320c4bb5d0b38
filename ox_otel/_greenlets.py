"""Requests that take turns on one thread as greenlets, of gevent or eventlet.

Each greenlet has a context of its own, so at every switch the context variable says whose turn it
is now.
"""

import sys
from typing import Any

from ox_otel._accounts import Meter, meter, turn
from ox_otel._books import books


def follow_switches(its: Meter) -> None:
    """Have the calling thread's meter turn with its greenlets, if there may be any."""
    greenlet = sys.modules.get("greenlet")
    if greenlet is None or its.follows_switches:
        return
    its.follows_switches = True
    previous = greenlet.gettrace()
    if getattr(previous, "__module__", "") == __name__:  # a child has that of its parent
        return

    def switched(event: str, which: Any) -> None:
        its = meter()
        if books() is None:  # it is over
            if greenlet.gettrace() is switched:
                greenlet.settrace(previous)
                its.follows_switches = False
        elif not its.steps:  # else a driver sees to it
            turn(its)
        if previous is not None:
            previous(event, which)

    greenlet.settrace(switched)
