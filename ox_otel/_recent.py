"""The last minute: what each stack used lately, kept only while somebody looks at it."""

import time
from collections.abc import Mapping
from itertools import accumulate
from math import inf
from types import MappingProxyType
from typing import NamedTuple

from ox_otel._clock import since_epoch
from ox_otel.profiles import Profile
from ox_otel.recorders import NOTHING, Stack, Usage

KEPT_SECONDS = 60.0
"""How far back it goes."""

MAX_STACKS = 8_000
"""Stacks kept, counted once for each batch that has them; with more, less than a minute is kept."""

FORGET_SECONDS = 30.0
"""After so long that nobody has asked, nothing is kept any more."""


class _Kept(NamedTuple):
    stacks: Mapping[Stack, Usage]
    seconds: float


class Recent:
    """Keeps the stacks of the last batches from the first question on, until nobody asks any more.

    The thread that samples adds; any thread may ask. An assignment publishes, so there is no lock.
    """

    def __init__(self) -> None:
        self._kept: tuple[_Kept, ...] = ()  # the newest first
        self._ended = 0.0  # the newest batch, in seconds of Unix time
        self._asked = -inf

    def take(self, stacks: Mapping[Stack, Usage], seconds: float, now: float) -> None:
        """Keep the stacks of a batch made at *now*, on the monotonic clock, of so many *seconds*.

        A batch without any was made while sampling rested.
        """
        if now - self._asked > FORGET_SECONDS:
            self._kept = ()
        elif stacks:
            self._kept = _newest((_Kept(stacks, seconds), *self._kept), KEPT_SECONDS)
            self._ended = since_epoch()

    def profile(self, seconds: float, interval: float) -> Profile:
        """Return what was used in the last *seconds*, or what is kept of them.

        Asked for the first time, that is nothing; from then on batches are kept.
        """
        self._asked = time.monotonic()
        kept = _newest(self._kept, seconds)
        stacks: dict[Stack, Usage] = {}
        for batch in kept:
            for stack, usage in batch.stacks.items():
                stacks[stack] = stacks.get(stack, NOTHING).plus(usage)
        length = sum(batch.seconds for batch in kept)
        return Profile(MappingProxyType(stacks), self._ended - length, length, interval)


def _newest(kept: tuple[_Kept, ...], seconds: float) -> tuple[_Kept, ...]:
    """Return those of the last *seconds*, as many as there is room for, and one at least."""
    before = accumulate((batch.seconds for batch in kept), initial=0.0)
    stacks = accumulate(len(batch.stacks) for batch in kept)
    whole = [s < seconds and n <= MAX_STACKS for s, n in zip(before, stacks, strict=False)]
    return kept[: max(sum(whole), 1)]
