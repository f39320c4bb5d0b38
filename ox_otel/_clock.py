"""When to sample next: a jittered schedule that keeps its budget."""

from random import Random

LONGEST_INTERVAL = 10.0
"""Seconds: the budget never stretches the interval beyond this."""

_JITTER = 0.5
_SMOOTHING = 0.3  # weight of the newest batch in the estimate of what a sample costs


class Schedule:
    """Gaps between samples: *interval* seconds on average, at most *max_overhead* of one core.

    Gaps are drawn evenly from half to one and a half times the interval: a sampler in lockstep
    with a periodic program would always see the same part of it.

    Attributes:
        interval: seconds between samples as asked for.
        missed: samples that came so late that the next one was due already.
    """

    def __init__(self, interval: float, max_overhead: float, random: Random | None = None) -> None:
        self.interval = interval
        self.missed = 0
        self._max_overhead = max_overhead
        self._uniform = (random or Random()).uniform  # noqa: S311 - not a secret
        self._sample_cost = 0.0
        self._due = 0.0

    @property
    def stretched(self) -> float:
        """Seconds between samples as the budget allows them, never less than asked for."""
        needed = self._sample_cost / self._max_overhead
        return max(self.interval, min(needed, LONGEST_INTERVAL))

    def restart(self, now: float) -> None:
        """Begin anew at *now*: what happened before is neither late nor missed."""
        self._due = now + self._gap()

    def wait(self, now: float) -> float:
        """Return the seconds from *now* until the next sample is due."""
        # an interval made shorter holds at once, whatever was agreed under the longer one
        return max(min(self._due - now, self.stretched * (1 + _JITTER)), 0.0)

    def sampled(self, now: float) -> None:
        """Set the next due time, the sample that was due having been taken at *now*."""
        self._due = min(self._due, now) + self._gap()
        if self._due < now:
            self.missed += 1 + int((now - self._due) / self.stretched)
            self._due = now + self._gap()

    def charge(self, cpu_seconds: float, samples: int) -> None:
        """Learn what profiling cost, all told, while *samples* were taken."""
        if samples:
            newest = cpu_seconds / samples
            self._sample_cost += _SMOOTHING * (newest - self._sample_cost)

    def _gap(self) -> float:
        return self.stretched * self._uniform(1 - _JITTER, 1 + _JITTER)
