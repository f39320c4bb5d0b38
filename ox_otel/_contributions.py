"""What other threads contribute to a batch: errors that they met, CPU seconds that they spent.

No lock is taken: a signal handler may come in the middle, on the thread that would hold it.
"""

from collections import Counter, deque
from contextlib import suppress
from typing import NamedTuple

MANY = 1000
"""Contributions that wait for a batch before they become one."""


class Contribution(NamedTuple):
    """Errors by kind, and CPU seconds: *published*, and counted *in_budget*."""

    errors: dict[str, int]
    published: float
    in_budget: float


class Contributions:
    """Is added to by any thread, and taken from by any; each step of a deque is whole."""

    def __init__(self) -> None:
        self._waiting: deque[Contribution] = deque()

    def add(self, *errors: str, published: float = 0.0, in_budget: float = 0.0) -> None:
        """Have the next batch count these."""
        if errors or published or in_budget:
            self._waiting.append(Contribution(dict(Counter(errors)), published, in_budget))
        if len(self._waiting) > MANY:  # paused, there are no batches
            self._waiting.append(self.take())

    def take(self) -> Contribution:
        """Return the sum of all that waits, which waits no more."""
        errors: dict[str, int] = {}
        published = in_budget = 0.0
        with suppress(IndexError):  # another thread has taken the last one
            while self._waiting:
                one = self._waiting.popleft()
                for kind, count in one.errors.items():
                    errors[kind] = errors.get(kind, 0) + count
                published += one.published
                in_budget += one.in_budget
        return Contribution(errors, published, in_budget)
