"""What the profiler says of itself."""

from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

State = Literal["running", "paused", "suspended", "stopped", "failed", "unsupported"]

ERROR_KINDS = (
    *("thread", "torn", "timer", "sample", "batch", "recorder", "scrape", "request", "budget"),
)
"""Where an error can happen: looking at one thread, at its stack in a tick, giving it a timer, a whole
sample, making a batch, handing it to a recorder, answering a scrape, answering another request; or
suspension by the budget."""

OWN_SERIES = 11 + len(ERROR_KINDS) + 8
"""Series that tell of the profiler itself; all others belong to functions."""


Wish = Literal["paused", "interval"]
"""One of the `Wishes`."""


class Wishes(NamedTuple):
    """What can be wished of a profiler that runs: rest, and an interval in seconds."""

    paused: bool
    interval: float


@dataclass(frozen=True, slots=True)
class Status:
    """The profiler at one moment.

    Attributes:
        state: `suspended` means that sampling waits by itself and will try again.
        reason: why it is suspended, failed or unsupported, or what is not as asked; else empty.
        engine: the engine in use.
        interval: mean seconds between samples, as asked for or as far as the budget stretches it; with
            ticks a thread has two in so much of its CPU, and samples come each five intervals.
        samples: samples taken.
        missed: samples that came too late to be taken.
        errors: errors of all kinds.
        overhead_ratio: CPU seconds a second, lately, of all that the budget bounds: answers over HTTP
            cost beside it, and are in `ox_profile_overhead_seconds_total` alone.
        series: series published.
        series_limit: most series that are ever published.
        last_sample_age: seconds since the last sample that is counted in *samples*, None before the
            first; with ticks, those without the GIL are counted by the batch.
        pid: the process.
    """

    state: State
    reason: str
    engine: str
    interval: float
    samples: int
    missed: int
    errors: int
    overhead_ratio: float
    series: int
    series_limit: int
    last_sample_age: float | None
    pid: int


@cache
def package_version() -> str:
    """Return the version of the installed distribution."""
    from importlib.metadata import PackageNotFoundError, version  # dear to import

    try:
        return version("ox-otel")
    except PackageNotFoundError:  # a source tree on the path
        return "unknown"
