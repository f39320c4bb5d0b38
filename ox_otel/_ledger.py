"""Which series does an increment land in? Bounded, conserved counting: the heart.

A function earns a series of its own by being hot. What has none counts under `OTHER` of its
module, or of the module `OTHER` where even that has not earned a series. So every stack lands in
exactly one series for its top, and once in each series that stands for one of its frames.

The heat of a function is its share of the stacks seen plus its share of the CPU used. The last
eighth of the table is kept for the `OTHER` of modules.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from ox_otel._heat import REMEMBERED, RETIRE_AFTER, Heat
from ox_otel.recorders import OTHER, REST, Function, Stack, Usage

SERIES_PER_FUNCTION = 6
"""Hits, self hits, and seconds and self seconds in two states each."""


class _Landing(NamedTuple):
    """Where a stack lands, as long as the table of series is what it is.

    Attributes:
        homes: the series that stand for its frames.
        top: the one of these that stands for its top.
        unknown: its functions that have no series.
        homeless: what would be a series for those of them that only `REST` stands for.
    """

    homes: tuple[Function, ...]
    top: Function
    unknown: tuple[Function, ...]
    homeless: tuple[Function, ...]


class Ledger:
    """Assigns what stacks used to at most *limit* functions, `OTHER` and retired ones included."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._last_used = {REST: 0.0}  # the functions with a series, and when it last grew
        self._heat: Heat[Function] = Heat(limit)  # of those without one
        self._heir: Function | None = None
        self._retirements = 0
        # those of the last batch, if it was small: most stacks come again; none once the table has changed
        self._landings: dict[Stack, _Landing] = {}

    def __len__(self) -> int:
        return len(self._last_used)

    def settle(
        self, stacks: Mapping[Stack, Usage], now: float
    ) -> tuple[dict[Function, Usage], dict[Function, Function]]:
        """Return what each series gains, and the series that end, each with its heir.

        *now* is in seconds of any clock that does not go back.
        """
        self._heat.cool(now)
        heats = _heats(stacks.values())
        self._heat.observe(sum(heats))
        known = self._landings
        self._landings = {stack: known.get(stack) or self._landing(stack) for stack in stacks}
        for landing, heat in zip(self._landings.values(), heats, strict=True):
            self._heat.warm(landing.unknown, heat)
        retired = self._admit(now)
        if not self._landings:  # the table has changed
            self._landings = {stack: self._landing(stack) for stack in stacks}

        # in the order of the fields of `Usage`
        gains = {REST: [0, 0, 0.0, 0.0, 0.0, 0.0]}  # always there, so that it can be seen to be 0
        landings = zip(self._landings.values(), stacks.values(), heats, strict=True)
        for landing, usage, heat in landings:
            self._heat.warm(landing.homeless, heat)
            hits, self_hits, cpu, wait, self_cpu, self_wait = usage
            for home in landing.homes:
                gain = gains.get(home)
                if gain is None:
                    gain = gains[home] = [0, 0, 0.0, 0.0, 0.0, 0.0]
                gain[0] += hits
                gain[2] += cpu
                gain[3] += wait
            top = gains[landing.top]
            top[1] += self_hits
            top[4] += self_cpu
            top[5] += self_wait
        self._last_used.update(dict.fromkeys(gains, now))
        if len(stacks) > REMEMBERED:
            self._landings = {}
        return {home: Usage._make(gain) for home, gain in gains.items()}, retired

    def home(self, function: Function) -> Function:
        """Return the series that stands for *function* now."""
        if function in self._last_used:
            return function
        rest = Function(function.module, OTHER)
        return rest if rest in self._last_used else REST

    def _landing(self, stack: Stack) -> _Landing:
        homes = {function: self.home(function) for function in stack}
        homeless = {Function(f.module, OTHER) for f, home in homes.items() if home == REST}
        return _Landing(
            # once a series, however many frames of the stack it stands for
            homes=tuple(set(homes.values())),
            top=homes[stack[-1]],
            unknown=tuple([function for function, home in homes.items() if home != function]),
            homeless=tuple(homeless - {REST}),
        )

    def _admit(self, now: float) -> dict[Function, Function]:
        """Give series to those that earned one; return what was retired for it."""
        retired: dict[Function, Function] | None = None
        for heat, function in self._heat.worthy():
            if not self._heat.matters(heat) and len(self._last_used) >= self._limit // 2:
                break
            limit = self._limit if function.name == OTHER else self._limit - self._limit // 8
            if len(self._last_used) >= limit and retired is None:
                retired = self._retire(now)
            if len(self._last_used) < limit:
                self._landings = {}
                self._last_used[function] = now
                self._heat.forget(function)
        return retired or {}

    def _retire(self, now: float) -> dict[Function, Function]:
        """End the series that have not grown for long, all at once.

        Their totals move to a series that is new each time: it appears with its value and stays
        flat, so that no rate sees them a second time, and the sums stay what they were.
        """
        old = [
            function
            for function, used in self._last_used.items()
            if now - used >= RETIRE_AFTER and function not in (REST, self._heir)
        ]
        if len(old) < 2:  # one place goes to the heir
            return {}
        if self._heir is not None:
            old.append(self._heir)
        self._retirements += 1
        self._heir = Function(OTHER, f"__retired_{self._retirements}__")
        self._landings = {}
        for function in old:
            del self._last_used[function]
        self._last_used[self._heir] = now
        return dict.fromkeys(old, self._heir)


def _heats(usages: Collection[Usage]) -> list[float]:
    """Return the heat of each stack, in hits: its own, and as many again shared out by CPU.

    Threads that only wait are many in most services; without the second half they would be all
    the heat there is.
    """
    hits = sum(usage.hits for usage in usages)
    cpu_seconds = sum(usage.cpu_seconds for usage in usages)
    hits_per_cpu_second = hits / cpu_seconds if cpu_seconds else 0.0
    return [usage.hits + usage.cpu_seconds * hits_per_cpu_second for usage in usages]
