"""The last minute: what each stack used lately, kept only while somebody looks at it."""

import time
from collections.abc import Mapping
from itertools import accumulate
from math import inf
from types import MappingProxyType
from typing import NamedTuple

from ox_otel._clock import since_epoch
from ox_otel._sums import Sum
from ox_otel.profiles import Profile
from ox_otel.recorders import Stack, Usage

KEPT_SECONDS = 60.0
"""How far back it goes."""

MAX_STACKS = 8_000
"""Stacks kept, counted once for each batch that has them; with more, less than a minute is kept."""

FORGET_SECONDS = 30.0
"""After so long that nobody has asked, nothing is kept any more."""


class _Kept(NamedTuple):
    stacks: Mapping[Stack, Usage]
    seconds: float
    ended: float  # on the monotonic clock


class Recent:
    """Keeps the stacks of the last batches from the first question on, until nobody asks any more.

    The thread that samples adds; any thread may ask. An assignment publishes, so there is no lock.
    """

    def __init__(self) -> None:
        self._kept: tuple[_Kept, ...] = ()  # the newest first
        self._asked = -inf
        self._without = 0.0  # seconds of batches without stacks, since the last that had some

    def begin(self) -> None:
        """Begin afresh after a rest, whose batches are of no time that anybody looks at."""
        self._without = 0.0

    def take(self, stacks: Mapping[Stack, Usage], seconds: float, now: float) -> None:
        """Keep the stacks of a batch made at *now*, on the monotonic clock, of so many *seconds*.

        What was seen later than a batch without any was going on in its time too.
        """
        if now - self._asked > FORGET_SECONDS:
            self._kept = ()
        elif stacks:
            newest = _Kept(stacks, self._without + seconds, now)
            self._kept = _newest((newest, *self._kept), KEPT_SECONDS, now)
        self._without = 0.0 if stacks else self._without + seconds

    def profile(self, seconds: float, interval: float) -> Profile:
        """Return what was used in the last *seconds*, or what is kept of them.

        Asked for the first time, that is nothing; from then on batches are kept.
        """
        self._asked = now = time.monotonic()
        kept = _newest(self._kept, seconds, now)
        used = Sum()
        for batch in kept:
            used.add(batch.stacks)
        length = sum(batch.seconds for batch in kept)
        age = now - kept[-1].ended + kept[-1].seconds if kept else 0.0
        return Profile(MappingProxyType(used.stacks), since_epoch() - age, length, interval)


def _newest(kept: tuple[_Kept, ...], seconds: float, now: float) -> tuple[_Kept, ...]:
    """Return those that ended in the last *seconds*, as many as there is room for.

    What is longer than that stands until the next one may be due, for as long as it is itself.
    """
    stacks = accumulate(len(batch.stacks) for batch in kept)
    return tuple(
        batch
        for batch, count in zip(kept, stacks, strict=True)
        if now - batch.ended < max(seconds, batch.seconds)
        and (count <= MAX_STACKS or batch is kept[0])
    )
