"""How far are the figures from the truth? Programs that know it, profilers that are asked."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median
from typing import NamedTuple

from bench import plot, programs
from bench.alone import in_rounds
from bench.profilers import PROFILERS, Seen
from bench.report import absent, failed, promises, spread, table

RATE = 100
UNPLACED = "__unplaced__"

ABOUT = f"""\
Points by which shares of self time were wrong, at {RATE} samples a second. *Credited* is the most
CPU that any function was given and did not use; *unplaced* is CPU that ox_otel says it cannot
place. Programs in bold are held out: nothing was tuned on them. In the comparisons, hits are taken
for shares of CPU and of elapsed time alike where a profiler has nothing else, and what ox_otel does
not place counts as wrong."""

QUICK = ("gil_held_two", "alternate_two", "sleeps")
PEERS = ("ox-profile", "py-spy, twice", "Sentry", "pyinstrument")


class Errors(NamedTuple):
    """How wrong one profiler was on one program, in points (hundredths of all CPU or wall time).

    Attributes:
        cpu: most by which the CPU share of any function was wrong.
        credited: most CPU that any function was credited with and did not use.
        wall: most by which the share of elapsed time of any function was wrong.
        unplaced: CPU that the profiler said it could not place.
        functions: by how much the CPU share of each function was wrong.
    """

    cpu: float
    credited: float
    wall: float
    unplaced: float
    functions: dict[str, float]


def measure(program: str, profiler: str, seconds: float) -> dict[str, Errors]:
    """Run *program* under *profiler*; return the errors, by what the profiler calls its figures."""
    stop = PROFILERS[profiler].start(RATE)
    spent = programs.run(program, seconds)
    return {reading: errors(seen, spent) for reading, seen in stop().items()}


def errors(seen: Iterable[Seen], spent: Mapping[str, programs.Spent]) -> Errors:
    """Compare shares of self time as *seen* with those that were *spent*."""
    true = by_short_name(spent)
    cpu, wall = weights(seen, true)
    true_cpu = _points({name: value.self_cpu for name, value in true.items()})
    true_wall = _points({name: value.self_wall for name, value in true.items()})
    found_cpu, found_wall = _points(cpu), _points(wall)
    functions = {name: found_cpu.get(name, 0.0) - true_cpu[name] for name in true}
    return Errors(
        cpu=max(map(abs, functions.values())),
        credited=max(functions.values()),
        wall=max(abs(found_wall.get(name, 0.0) - true_wall[name]) for name in true),
        unplaced=found_cpu.get(UNPLACED, 0.0),
        functions=functions,
    )


def by_short_name(spent: Mapping[str, programs.Spent]) -> dict[str, programs.Spent]:
    """Return *spent* by the last part of each name: not every profiler knows qualified ones."""
    return {_short(name): value for name, value in spent.items()}


def weights(
    seen: Iterable[Seen], true: Mapping[str, programs.Spent]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return what stacks weigh, of CPU and of elapsed time, by the function that they count for."""
    cpu: dict[str, float] = defaultdict(float)
    wall: dict[str, float] = defaultdict(float)
    for names, cpu_weight, wall_weight in seen:
        stack = [_short(name) for name in names]
        name = programs.owner(stack, true)
        if name is not None:  # else a thread that is not the program's
            name = UNPLACED if stack[-1] == UNPLACED else name
            cpu[name] += cpu_weight
            wall[name] += wall_weight
    return cpu, wall


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _points(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values()) or 1.0
    return {name: 100 * weight / total for name, weight in weights.items()}


def section(folder: str, *, quick: bool) -> str:
    """Return the results as Markdown; a plot goes to *folder*."""
    seconds, rounds = (3.0, 1) if quick else (4.0, 2)
    held_out = [name for name, program in programs.PROGRAMS.items() if program.held_out]
    tuned = [name for name, program in programs.PROGRAMS.items() if not program.held_out]
    if quick:
        held_out, tuned = [name for name in held_out if name in QUICK], []
    missing = absent(PEERS)
    profilers = ["ox_otel", *(name for name in PEERS if name not in missing)]
    cases = [(program, profiler, seconds) for program in held_out for profiler in profilers]
    cases += [(program, "ox_otel", seconds) for program in tuned]
    results, failures = in_rounds(measure, cases, rounds)

    found: dict[tuple[str, str], list[Errors]] = defaultdict(list)
    for (program, _, _), outcomes in results.items():
        for outcome in outcomes:
            for reading, values in outcome.items():
                found[program, reading].append(Errors(*values))

    def worst(error: str) -> list[float]:
        errors_of = [found[program, "ox_otel seconds"] for program in held_out]
        return [median(getattr(e, error) for e in several) for several in errors_of if several]

    lines = [
        "## Truth",
        "",
        ABOUT,
        f"{rounds} round(s) of {seconds:.0f} s a program.",
        "",
        "### ox_otel, seconds",
        "",
        table(
            ["program", "CPU credited", "CPU unplaced", "wall, worst"],
            [
                [f"**{program}**" if program in held_out else program]
                + [
                    spread([getattr(e, name) for e in found[program, "ox_otel seconds"]])
                    for name in ("credited", "unplaced", "wall")
                ]
                for program in held_out + tuned
            ],
        ),
        "",
        promises(
            [
                (f"held-out programs: {words}, points, the worst", [max(values)], 8.0)
                for words, values in (
                    ("CPU credited to a function that did not use it", worst("credited")),
                    ("error of a wall share", worst("wall")),
                )
                if values
            ]
        ),
        "",
        "### Worst error of a CPU share",
        "",
        _comparison(found, held_out, "cpu"),
        "",
        "### Worst error of a wall share",
        "",
        _comparison(found, held_out, "wall"),
        "",
        "![Worst error of a CPU share](truth.svg)",
        failed(failures, missing),
    ]
    bars = {
        reading: [median(e.cpu for e in found[p, reading]) for p in held_out]
        for reading in _readings(found)
        if all(found[p, reading] for p in held_out)
    }
    plot.save(
        os.path.join(folder, "truth.svg"),
        plot.bars("Worst error of a function's CPU share, points", held_out, bars),
    )
    return "\n".join(lines)


def _readings(found: Mapping[tuple[str, str], list[Errors]]) -> list[str]:
    return list(dict.fromkeys(reading for _, reading in found))


def _comparison(
    found: Mapping[tuple[str, str], list[Errors]], held_out: list[str], error: str
) -> str:
    readings = _readings(found)
    return table(
        ["program", *readings],
        [
            [program]
            + [
                spread([getattr(e, error) for e in found.get((program, reading), [])])
                for reading in readings
            ]
            for program in held_out
        ],
    )
