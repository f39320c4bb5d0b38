"""Requests that take turns on one thread as greenlets, of gevent or eventlet.

Each greenlet has a context of its own, so at every switch the context variable says whose turn it
is now.
"""

import sys
from typing import Any

from ox_otel._accounts import Meter, meter, turn
from ox_otel._books import books


class Switches:
    """What greenlet calls at every switch on one thread; it calls what was there before."""

    def __init__(self, greenlet: Any, previous: Any) -> None:
        self._greenlet = greenlet
        self.previous = previous
        self.is_set = True
        self.current = id(greenlet.getcurrent())  # not itself: it may be over and hold much

    def __call__(self, event: str, which: Any) -> None:
        """Turn the meter to whoever goes on now."""
        its, its_books = meter(), books()
        if its.switches is self:
            self.current = id(self._greenlet.getcurrent())
            if its_books is None or not its_books.open:  # nobody is measured
                self._leave()
            else:
                its_books.steps += 1
            if not its.steps:  # else a driver sees to it
                turn(its)
        if self.previous is not None:
            self.previous(event, which)

    def is_told(self) -> bool:
        """Return whether greenlet calls it, as far as one can know, maybe by way of the host's own.

        A host may set another trace function at any time.
        """
        trace = self._greenlet.gettrace()
        is_called = trace is not None and self.current == id(self._greenlet.getcurrent())
        return trace is self or (self.is_set and is_called)

    def _leave(self) -> None:
        if self._greenlet.gettrace() is self:
            self._greenlet.settrace(self.previous)
            self.is_set = False


def follow_switches(its: Meter) -> None:
    """Have the calling thread's meter turn with its greenlets, if there may be any."""
    greenlet = sys.modules.get("greenlet")
    if greenlet is None or (isinstance(its.switches, Switches) and its.switches.is_told()):
        return
    previous = greenlet.gettrace()
    while isinstance(previous, Switches):  # a child has that of its parent
        previous = previous.previous
    its.switches = Switches(greenlet, previous)
    greenlet.settrace(its.switches)
