"""Does memory stay bounded when everything that has a bound is at it?"""

import os
import threading
import time
from itertools import cycle

from prometheus_client import generate_latest

import ox_otel
from bench.alone import in_rounds
from bench.batch import functions
from bench.report import spread, table

THREADS = 40
FUNCTIONS = 20_000
HOT = 400  # of them, as many as there are series for, are seen every other time
LONG = "x" * 130
ABOUT = f"""\
Resident memory above the start in MiB (at most 8), while {THREADS} threads go through {FUNCTIONS}
functions with names of 140 characters, sampled as fast as possible and scraped once a second."""

PAGE = os.sysconf("SC_PAGESIZE") / (1 << 20)


def measure(seconds: float) -> list[list[float]]:
    """Return, second by second, MiB of memory above the start, series and stacks of a batch.

    The functions have long names, and all of them are seen anew all the time.
    """
    made = functions(FUNCTIONS, LONG)
    over = threading.Event()

    def walk(number: int) -> None:
        while not over.is_set():
            for cold, hot in zip(made[number::THREADS], cycle(made[:HOT]), strict=False):
                cold(lambda: time.sleep(0.002))
                hot(lambda: time.sleep(0.002))
                if over.is_set():
                    break

    threads = [threading.Thread(target=walk, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(5.0)  # until they themselves need no more memory
    stacks = [0]

    class Count:
        def record(self, batch: ox_otel.Batch) -> None:
            stacks[0] = max(stacks[0], len(batch.stacks))

    began_with = _resident()
    profiler = ox_otel.install(interval=0.001, max_overhead=1.0, recorders=["prometheus", Count()])
    found = []
    for _ in range(int(seconds)):
        time.sleep(1.0)
        generate_latest()
        found.append([_resident() - began_with, profiler.status().series, stacks[0]])
    over.set()
    return found


def _resident() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * PAGE


def section(_folder: str, *, quick: bool) -> str:
    """Return the results as Markdown."""
    seconds, rounds = (10, 1) if quick else (30, 1)
    results, _ = in_rounds(measure, [(seconds,)], rounds)
    (found,) = results[seconds,]
    moments = [n for n in (1, 2, 5, 10, 20, 30) if n <= len(found)]
    return "\n".join(
        [
            "## Memory",
            "",
            ABOUT,
            "",
            table(
                ["seconds", *map(str, moments)],
                [
                    ["MiB", *(spread([found[n - 1][0]]) for n in moments)],
                    ["series", *(f"{found[n - 1][1]:.0f}" for n in moments)],
                    ["most stacks in a batch", *(f"{found[n - 1][2]:.0f}" for n in moments)],
                ],
            ),
        ]
    )
