"""What does a profiler cost? CPU time of its threads, beside a bare thread that only wakes up."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import ox_otel
from bench import plot
from bench.alone import alone, in_rounds
from bench.profilers import PROFILERS
from bench.report import absent, failed, promises, spread, table
from bench.world import world
from ox_otel._clock import Schedule
from ox_otel._pipeline import Pipeline

BARE, FREE, TICKS, BUDGET = "bare thread", "ox_otel", "ox_otel ticks", "ox_otel, budget"
PEERS = ("ox-profile", "Sentry", "Pyroscope", "ddtrace", "py-spy")


ABOUT = """\
CPU time of the threads and child processes that a profiler brings with it, in percent of a core,
beside a bare thread that only wakes up as often. What a profiler does on the program's own threads
is not in it. `ox_otel` has no budget, `ox_otel, budget` the one it has by default, `ox_otel ticks` as
many ticks a second of CPU and a tenth of the samples; ddtrace has its own budget and rate, and py-spy
is a process of its own."""


class Scene(NamedTuple):
    """What is looked at, and how often."""

    parked: int = 20
    depth: int = 30
    busy: int = 1
    rate: int = 100


AXES = {
    "parked": (1, 20, 200, 500),
    "depth": (10, 30, 100),
    "busy": (0, 1, 4),
    "rate": (20, 50, 100),
}

AT_WORK = [Scene(parked=parked, busy=busy) for parked in (20, 500) for busy in (1, 4)]
"""For which there is a promise of what ticks cost."""


def measure(profiler: str, scene: Sequence[int], settle: float, seconds: float) -> list[float]:
    """Return what *profiler* costs in percent of a core, after *settle* seconds of grace.

    That is the CPU time of all threads and child processes that came with it. The second figure is
    what it says itself, 0 if it says nothing.
    """
    parked, depth, busy, rate = scene
    with world(parked, depth, busy):
        before = _clocks()
        PROFILERS[profiler].start(rate)
        time.sleep(settle)
        said, used, began = _said(), _used(before), time.monotonic()
        time.sleep(seconds)
        said, used = _said() - said, _used(before) - used
        elapsed = time.monotonic() - began
    return [100 * used / elapsed, 100 * said / elapsed]


def idle(settle: float, seconds: float) -> float:
    """Return what ox_otel costs an idle process after *settle* seconds, in percent of a core.

    Another process looks: to read a clock would be work.
    """
    parked, depth, _, rate = Scene()
    with world(parked, depth, busy=0):
        PROFILERS[FREE].start(rate)
        return float(alone(seen_from_outside, os.getpid(), settle, seconds))


def seen_from_outside(pid: int, settle: float, seconds: float) -> float:
    """Return what the threads of ox_otel in another process use, in percent of a core."""
    time.sleep(settle)
    used, began = _used_in(pid), time.monotonic()
    time.sleep(seconds)
    return 100 * (_used_in(pid) - used) / (time.monotonic() - began)


def _used_in(pid: int) -> float:
    """Return the CPU seconds of the threads of ox_otel in a process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    ours = [task for task in tasks if (task / "comm").read_text().startswith("ox_otel")]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in ours) * 1e-9


def _clocks() -> set[int]:
    """Return the CPU clocks of the threads and of the child processes of this process.

    Their numbers are the kernel's, see clock_getres(2).
    """
    tasks = Path("/proc/self/task")
    threads = {(~int(name) << 3) | 6 for name in os.listdir(tasks)}
    children = {int(pid) for file in tasks.glob("*/children") for pid in file.read_text().split()}
    return threads | {(~pid << 3) | 2 for pid in children}


def _used(before: set[int]) -> float:
    """Return the CPU seconds so far of all that was not there *before*."""
    return sum(time.clock_gettime(clock) for clock in _clocks() - before)


def _said() -> float:
    """Return the CPU seconds that ox_otel says it cost so far."""
    profiler = ox_otel.get()
    return profiler.snapshot().overhead_seconds if profiler else 0.0


def stall(parked: int, depth: int, nap: float, seconds: float) -> list[float]:
    """Return how much CPU and elapsed time 99 % of samples take at most, in milliseconds.

    Batches are in it: about one sample in a hundred makes one.
    """
    pipeline = Pipeline(ox_otel.Settings(engine="threads"), Schedule(0.01, 1.0))
    cpu, elapsed = [], []
    pipeline.begin(time.monotonic())
    with world(parked, depth, 0, nap):
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            used = time.thread_time()
            pipeline.sample(now)
            cpu.append(1000 * (time.thread_time() - used))
            elapsed.append(1000 * (time.monotonic() - now))
            time.sleep(0.01)
    return [quantiles(values, n=100)[98] for values in (cpu, elapsed)]


def section(folder: str, *, quick: bool) -> str:
    """Return the results as Markdown; plots go to *folder*."""
    rounds, seconds = (1, 1.5) if quick else (3, 1.5)
    along = (Scene(**{axis: n}) for axis in AXES for n in AXES[axis])
    scenes = list(dict.fromkeys([*along, *AT_WORK]))
    if quick:
        scenes = [Scene(), Scene(parked=200), Scene(busy=0)]
    missing = absent(PEERS)
    profilers = [BARE, FREE, TICKS, BUDGET, *(name for name in PEERS if name not in missing)]
    cases = [
        (profiler, scene, *((5.0, 5.0) if profiler in (TICKS, BUDGET) else (0.5, seconds)))
        for scene in scenes
        for profiler in profilers
    ]
    results, failures = in_rounds(measure, cases, rounds)
    found = {(case[0], case[1]): outcomes for case, outcomes in results.items()}
    percent = {key: [used for used, _ in outcomes] for key, outcomes in found.items()}
    factors = {
        (profiler, scene): [
            used / bare for used, bare in zip(values, percent[BARE, scene], strict=False)
        ]
        for (profiler, scene), values in percent.items()
    }
    text = [
        "## Cost",
        "",
        ABOUT,
        f"{rounds} round(s) of {seconds:g} s, for ticks and the budget 5 s after 5 s.",
        "",
        table(
            ["parked, depth, busy, samples/s", *profilers],
            [
                [", ".join(map(str, scene)), *(spread(percent[p, scene], 2) for p in profilers)]
                for scene in scenes
            ],
        ),
        "",
        "The same as multiples of the bare thread in the same round:",
        "",
        table(
            ["parked, depth, busy, samples/s", *profilers[1:]],
            [
                [", ".join(map(str, scene)), *(spread(factors[p, scene]) for p in profilers[1:])]
                for scene in scenes
            ],
        ),
        "",
        _promises(found, factors),
        "",
    ]
    if not quick:
        for axis, values in AXES.items():
            name = f"cost-{axis}.svg"
            curves = {
                profiler: [median(percent[profiler, Scene(**{axis: n})]) for n in values]
                for profiler in profilers
                if all(percent[profiler, Scene(**{axis: n})] for n in values)
            }
            drawing = plot.lines(f"CPU, percent of a core, against {axis}", axis, values, curves)
            plot.save(os.path.join(folder, name), drawing)
            text.append(f"![Cost against {axis}]({name})")
    return "\n".join([*text, failed(failures, missing)])


def _promises(
    found: Mapping[tuple[str, Scene], list[list[float]]],
    factors: Mapping[tuple[str, Scene], list[float]],
) -> str:
    """Return what was promised beside what was measured."""
    at_work, in_peace = (FREE, Scene(), 1.0, 4.0), (60.0, 20.0)
    working, _ = in_rounds(measure, [at_work], 1)
    resting, _ = in_rounds(idle, [in_peace], 1)
    shares = [
        100 * cost / used
        for cost, (used, _) in zip(resting[in_peace], working[at_work], strict=False)
    ]
    restless, at_rest = (500, 300, 0.05, 4.0), (500, 300, 0.0, 4.0)
    stalls, _ = in_rounds(stall, [restless, at_rest], 1)
    ticks = {s: [used for used, _ in values] for (p, s), values in found.items() if p == TICKS}
    budgeted = [values for (p, _), values in found.items() if p == BUDGET and values]
    most = [max(median(used for used, _ in values) for values in budgeted)]
    apart = [
        max(median(100 * abs(said / used - 1) for used, said in values) for values in budgeted)
    ]
    rows = [
        ("20 parked, 30 deep, 1 busy: times the bare thread", factors[FREE, Scene()], 1.5),
        ("200 parked: times the bare thread", factors[FREE, Scene(parked=200)], 3.0),
        *(
            (
                f"ticks, {scene.parked} parked, {scene.busy} busy: % of a core",
                ticks.get(scene, []),
                0.2 if scene.parked == 20 else 0.5,
            )
            for scene in AT_WORK
        ),
        ("with the budget, the dearest scene: % of a core", most, 1.0),
        ("published overhead against the kernel's, the worst scene: % apart", apart, 10.0),
        ("idle for a minute: % of what it costs while 1 thread works", shares, 10.0),
        (
            "500 threads 300 deep, each waking every 50 ms: ms of CPU of 99 % of samples",
            [cpu for cpu, _ in stalls[restless]],
            5.0,
        ),
        ("the same: ms of elapsed time", [elapsed for _, elapsed in stalls[restless]], 5.0),
        ("all parked: ms of elapsed time", [elapsed for _, elapsed in stalls[at_rest]], 5.0),
    ]
    return promises(rows)
