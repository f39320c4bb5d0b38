"""The data frame of Grafana's flame graph panel, as JSON for its Infinity data source."""

import json
from typing import NamedTuple

from ox_otel.profiles import Profile
from ox_otel.recorders import Function


class Row(NamedTuple):
    """A function as called by those above it: *value* with all below it, *self* alone, in ns."""

    level: int
    label: str
    value: int
    self: int


class _Call:
    __slots__ = ("below", "own")

    def __init__(self) -> None:
        self.own = 0
        self.below: dict[Function, _Call] = {}


def rows(profile: Profile, time: str) -> list[Row]:
    """Return the calls in *profile* in the order of a walk from the root, `total`, down."""
    root = _Call()
    for stack, nanoseconds in profile.nanoseconds(time).items():
        call = root
        for function in stack:
            call = call.below.setdefault(function, _Call())
        call.own += nanoseconds
    found: list[Row] = []
    waiting = [(0, "total", root)]
    while waiting:
        level, label, call = waiting.pop()
        found.append(Row(level, label, 0, call.own))
        below = sorted(call.below.items(), key=lambda item: str(item[0]), reverse=True)
        waiting += [(level + 1, str(function), callee) for function, callee in below]
    return _summed(found)


def _summed(found: list[Row]) -> list[Row]:
    """Return the rows with their values: each its own time and those of the rows below it."""
    sums: list[int] = []  # by level, of rows whose parent comes yet
    summed = []
    for row in reversed(found):
        sums += [0] * (row.level + 2 - len(sums))
        value = row.self + sums[row.level + 1]
        sums[row.level + 1] = 0
        sums[row.level] += value
        summed.append(row._replace(value=value))
    return summed[::-1]


def write(profile: Profile, time: str) -> bytes:
    """Return the rows with their *time* in nanoseconds."""
    # one by one: the encoder does not let go of the GIL before it is done
    lines = [json.dumps(row._asdict()) for row in rows(profile, time)]
    return f"[{','.join(lines)}]".encode()
