"""A profile as the page shows it: its tree and the table of its functions, bounded and compact.

    {"seconds": length of the window, "times": those that the frames have, "names": [...],
     "frames": [[name, level, self cpu, self wait], ...],
     "functions": [[name, self cpu, self wait, cpu, wait], ...]}

Times are thread-seconds; a name is the place of its text in `names`. The frames are in the order of
a walk through the tree, whose root, at level 0, is all that was observed. The self times of the
frames, and those of the functions, add up to it.
"""

from collections.abc import Mapping
from typing import Any

from ox_otel._tree import DEPTH, folded
from ox_otel.profiles import Profile
from ox_otel.recorders import NOTHING, REST, Function, Stack, Usage

MAX_FUNCTIONS = 1000
"""Functions in the table; the self times of the colder ones are those of `REST`."""

NARROWEST = 1 / 2000
"""Frames of a smaller share, of all CPU and of all waiting, are one `REST` of their caller's."""

_Row = tuple[str, int, float, float]  # name, level and self times of a frame


class _Frame:
    """A function as called by those above it, and what was used there: with all below, and itself."""

    __slots__ = ("callees", "cpu", "self_cpu", "self_wait", "wait")

    def __init__(self) -> None:
        self.callees: dict[Function, _Frame] = {}
        self.cpu = self.wait = self.self_cpu = self.self_wait = 0.0

    def add(self, path: Stack, usage: Usage) -> None:
        """Count a stack, whose *path* begins below this frame."""
        cpu, wait = usage.cpu_seconds, usage.wait_seconds
        frame = self
        frame.cpu += cpu
        frame.wait += wait
        for function in path:
            callee = frame.callees.get(function)
            if callee is None:
                callee = frame.callees[function] = _Frame()
            frame = callee
            frame.cpu += cpu
            frame.wait += wait
        frame.self_cpu += cpu
        frame.self_wait += wait

    def walk(self, name: str, level: int, narrowest: Usage, rows: list[_Row]) -> None:
        """Add to *rows* this frame and those below it, by their names."""
        rows.append((name, level, self.self_cpu, self.self_wait))
        cpu = wait = 0.0
        for function, callee in sorted(self.callees.items()):
            # a share of nothing too: without CPU, or without waiting, all frames have none of it
            is_narrow = (
                callee.cpu <= narrowest.cpu_seconds and callee.wait <= narrowest.wait_seconds
            )
            if is_narrow or function == REST:
                cpu += callee.cpu
                wait += callee.wait
            else:
                callee.walk(str(function), level + 1, narrowest, rows)
        if cpu or wait:
            rows.append((str(REST), level + 1, cpu, wait))


def graph(profile: Profile, functions: Mapping[Function, Usage] | None = None) -> dict[str, Any]:
    """Return what the page shows of *profile*.

    The *functions* used what is said here, if there is anybody who knows better than the stacks.
    """
    names: dict[str, int] = {}

    def row(name: str, *figures: float) -> tuple[float, ...]:
        return names.setdefault(name, len(names)), *(round(figure, 6) for figure in figures)

    table = _hottest(_by_function(profile.stacks) if functions is None else functions)
    return {
        "seconds": round(profile.seconds, 3),
        "times": profile.times,
        "frames": [row(*frame) for frame in _frames(profile.stacks)],
        "functions": [
            row(
                str(function),
                usage.self_cpu_seconds,
                usage.self_wait_seconds,
                usage.cpu_seconds,
                usage.wait_seconds,
            )
            for function, usage in table.items()
        ],
        "names": list(names),
    }


def _frames(stacks: Mapping[Stack, Usage]) -> list[_Row]:
    root = _Frame()
    for stack, usage in stacks.items():
        root.add(folded(stack)[:DEPTH], usage)
    narrowest = Usage(cpu_seconds=root.cpu * NARROWEST, wait_seconds=root.wait * NARROWEST)
    rows: list[_Row] = []
    root.walk("total", 0, narrowest, rows)
    return rows


def _by_function(stacks: Mapping[Stack, Usage]) -> dict[Function, Usage]:
    table: dict[Function, Usage] = {}
    for stack, usage in stacks.items():
        below = usage._replace(self_cpu_seconds=0.0, self_wait_seconds=0.0)
        for function in {*stack}:
            used = usage if function == stack[-1] else below
            table[function] = table.get(function, NOTHING).plus(used)
    return table


def _hottest(table: Mapping[Function, Usage]) -> dict[Function, Usage]:
    rows = sorted(table.items(), key=_self_seconds, reverse=True)
    hottest = dict(rows[:MAX_FUNCTIONS])
    for _, usage in rows[MAX_FUNCTIONS:]:
        cpu, wait = usage.self_cpu_seconds, usage.self_wait_seconds
        # two of them may stand on one stack: what they have together is at least what is their own
        hottest[REST] = hottest.get(REST, NOTHING).plus(Usage(0, 0, cpu, wait, cpu, wait))
    return hottest


def _self_seconds(row: tuple[Function, Usage]) -> float:
    return row[1].self_cpu_seconds + row[1].self_wait_seconds
