"""How far are ticks from the truth, beyond what chance does to so many of them?"""

import sys
from collections.abc import Mapping
from math import sqrt
from typing import NamedTuple

from bench import programs
from bench.alone import Case, FailedError, alone
from bench.profilers import PROFILERS
from bench.report import failed, promises, table
from bench.truth import UNPLACED, by_short_name, weights

RATE = 125
"""Ticks a second of CPU: what there is of a kernel that beats 250 times, as each takes two beats."""

ENOUGH = 6000
SECONDS = 30.0
MOST_RUNS = 20

TRUE_CPU, FOUND_CPU, TRUE_WALL, FOUND_WALL = range(4)

ABOUT = f"""\
Points by which shares of self time were wrong under the engine `ticks`, at {RATE} ticks a second of
CPU. *Error* is the most by which the CPU share of any function was wrong, what is not placed included;
*chance* is two standard deviations of the share of that function among so many ticks, and *beyond* the
most by which any error exceeds its own. Programs in bold are held out."""


class Errors(NamedTuple):
    """How wrong ticks were on one program, in points; *chance* belongs to the function of *cpu*."""

    ticks: int
    cpu: float
    chance: float
    beyond: float
    unplaced: float
    wall: float


def measure(program: str, seconds: float) -> dict[str, list[float]]:
    """Run *program* under ticks; return for each function the seconds of CPU and wall time.

    In this order: CPU, CPU found, wall time, wall time found.
    """
    stop = PROFILERS["ox_otel ticks"].start(RATE)
    true = by_short_name(programs.run(program, seconds))
    cpu, wall = weights(stop()["ox_otel ticks seconds"], true)
    return {
        name: [
            true.get(name, programs.NOTHING).self_cpu,
            cpu.get(name, 0.0),
            true.get(name, programs.NOTHING).self_wall,
            wall.get(name, 0.0),
        ]
        for name in {*true, *cpu}
    }


def errors(seconds: dict[str, list[float]]) -> Errors:
    """Return what *seconds*, as `measure` returns them, say of the errors."""
    totals = [sum(column) or 1.0 for column in zip(*seconds.values(), strict=True)]
    shares = {
        name: [value / total for value, total in zip(values, totals, strict=True)]
        for name, values in seconds.items()
    }
    ticks = round(totals[TRUE_CPU] * RATE)
    found = []
    for name, share in shares.items():
        if name != UNPLACED:
            true = share[TRUE_CPU]
            chance = 2 * sqrt(true * (1 - true) / ticks)
            found.append((abs(share[FOUND_CPU] - true), chance))
    worst, chance = max(found)
    return Errors(
        ticks,
        100 * worst,
        100 * chance,
        100 * max(error - bound for error, bound in found),
        100 * shares.get(UNPLACED, [0.0] * 4)[FOUND_CPU],
        100 * max(abs(share[FOUND_WALL] - share[TRUE_WALL]) for share in shares.values()),
    )


def until_enough(program: str, seconds: float, enough: int) -> dict[str, list[float]]:
    """Return the seconds of runs of *program*, in processes of their own, with *enough* ticks."""
    total: dict[str, list[float]] = {}
    for run in range(MOST_RUNS):
        for name, values in alone(measure, program, seconds).items():
            before = total.get(name, [0.0] * 4)
            total[name] = [a + b for a, b in zip(before, values, strict=True)]
        ticks = RATE * sum(values[TRUE_CPU] for values in total.values())
        print(f"{run + 1} ticks {program}: {ticks:.0f}", file=sys.stderr)
        if ticks >= enough:
            break
    return total


def section(_folder: str, *, quick: bool) -> str:
    """Return the results as Markdown."""
    seconds, enough = (3.0, 300) if quick else (SECONDS, ENOUGH)
    found: dict[str, Errors] = {}
    failures: dict[Case, str] = {}
    for name in programs.PROGRAMS:
        try:
            found[name] = errors(until_enough(name, seconds, enough))
        except FailedError as failure:
            failures[name,] = str(failure)
    return "\n".join(["## Ticks", "", ABOUT, "", described(found), failed(failures, {})])


def described(found: Mapping[str, Errors]) -> str:
    """Return the errors on each program, and what was promised of them, as Markdown."""
    held_out = [found[name] for name in found if programs.PROGRAMS[name].held_out]
    return "\n".join(
        [
            table(
                ["program", "ticks", "error", "chance", "beyond", "unplaced", "wall, worst"],
                [
                    [
                        f"**{name}**" if programs.PROGRAMS[name].held_out else name,
                        str(one.ticks),
                        *(f"{value:.1f}" for value in one[1:]),
                    ]
                    for name, one in found.items()
                ],
            ),
            "",
            promises(
                [
                    (f"{which}: error of a CPU share beyond chance, points, the worst", most, 1.5)
                    for which, most in (
                        ("held-out programs", [max(one.beyond for one in held_out)]),
                        ("all programs", [max(one.beyond for one in found.values())]),
                    )
                ]
            ),
        ]
    )
