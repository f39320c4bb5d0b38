"""When to sample next: a jittered schedule that keeps its budget."""

import time
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from math import inf
from random import Random

LONGEST_INTERVAL = 10.0
"""Seconds: the budget never stretches the interval beyond this."""

QUIET_INTERVAL = 0.5
"""Seconds: the longest interval that a process comes to in which nothing moves."""

DELAY_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, inf)
"""Upper bounds, in seconds, of the classes in which delays of wake-ups are counted."""

_QUIET_SHARE = 0.01  # of the time in which nothing has moved, the next gap may take
_MARGIN = 0.9  # of the budget is aimed at, since costs are known only afterwards
_JITTER = 0.5
_SMOOTHING = 0.3  # weight of the newest batch in the estimate of what a sample costs


def since_epoch() -> float:
    """Return the seconds since 1970, for stamps alone: that clock jumps, so it measures nothing."""
    return time.time()


@dataclass
class Delays:
    """How late samples came: how many by how much, and how many so late that they were missed."""

    counts: Counter[float] = field(default_factory=Counter)
    seconds: float = 0.0
    missed: int = 0


class Schedule:
    """Gaps between samples: *interval* seconds on average, at most *max_overhead* of one core.

    Gaps are drawn evenly from half to one and a half times the interval: a sampler in lockstep
    with a periodic program would always see the same part of it.

    Attributes:
        interval: seconds between samples as asked for.
        pace: after how many intervals a sample is due; an engine that has other means needs fewer.
        delays: how late the samples came since somebody last took them away.
    """

    def __init__(self, interval: float, max_overhead: float, random: Random | None = None) -> None:
        self.interval = interval
        self.pace = 1
        self.delays = Delays()
        self._max_overhead = max_overhead
        self._uniform = (random or Random()).uniform  # noqa: S311 - not a secret
        self._sample_cost = 0.0
        self._due = inf
        self._moved_at = 0.0
        self._quiet = 0.0

    @property
    def stretched(self) -> float:
        """Seconds between samples as the budget allows them, never less than asked for."""
        needed = self._sample_cost / (_MARGIN * self._max_overhead * self.pace)
        return max(self.interval, min(needed, LONGEST_INTERVAL))

    def restart(self, now: float) -> None:
        """Begin anew at *now*: what happened before is neither late nor missed."""
        self._moved_at = now
        self._quiet = 0.0
        self._due = now + self._gap()

    def rest(self) -> None:
        """Have nothing due, so that nothing is missed, until `restart`."""
        self._due = inf

    def wait(self, now: float) -> float:
        """Return the seconds from *now* until the next sample is due."""
        # an interval made shorter holds at once, and once: however often somebody asks meanwhile
        self._due = min(self._due, now + self._mean_gap() * (1 + _JITTER))
        return max(self._due - now, 0.0)

    def ahead(self, now: float, until: float, most: int) -> list[float]:
        """Return when the next samples are due, up to the first not before *until*, *most* at most."""
        dues = [now + self.wait(now)]
        while dues[-1] < until and len(dues) < most:
            dues.append(dues[-1] + self._gap())
        return dues

    def resume(self, now: float) -> None:
        """Take note that until *now* a batch was made: no sample could be taken then.

        Those that were due are missed, but the next one is not late: nobody else held it up.
        """
        if self._due < now:
            self.delays.missed += int((now - self._due) / self._mean_gap())
            self._due = now

    def delay(self, now: float) -> float:
        """Return by how many seconds a sample taken at *now* is late."""
        return max(now - self._due, 0.0)

    def sampled(self, now: float, *, moved: bool, following: float | None = None) -> None:
        """Set the next due time, the sample that was due having been taken at *now*.

        That is *following*, where it was agreed ahead. A process in which nothing has *moved* is
        looked at more rarely, the longer the more.
        """
        delay = self.delay(now)
        delays = self.delays
        delays.counts[DELAY_BOUNDS[bisect_left(DELAY_BOUNDS, delay)]] += 1
        delays.seconds += delay
        self._moved_at = now if moved else self._moved_at
        self._quiet = now - self._moved_at
        self._due = min(self._due, now) + self._gap() if following is None else following
        if self._due < now:
            delays.missed += 1 + int((now - self._due) / self._mean_gap())
            self._due = now + self._gap()

    def charge(self, cpu_seconds: float, samples: int) -> None:
        """Learn what profiling cost, all told, while *samples* were taken."""
        if samples:
            newest = cpu_seconds / samples
            smoothed = self._sample_cost + _SMOOTHING * (newest - self._sample_cost)
            self._sample_cost = max(newest, smoothed)  # dearer at once, cheaper by and by

    def _mean_gap(self) -> float:
        quiet_gap = min(self._quiet * _QUIET_SHARE, QUIET_INTERVAL)
        return max(self.stretched * self.pace, quiet_gap)

    def _gap(self) -> float:
        return self._mean_gap() * self._uniform(1 - _JITTER, 1 + _JITTER)
