"""What profiling costs, as ratios within one run: CPU time of the calling thread, no wall clock.

The bounds are two to four times what a quiet machine shows: a loaded one does not break them, a
regression by a factor of ten does. `bench/` has the figures proper.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import pytest
from prometheus_client import CollectorRegistry
from standstill import until_still

from ox_otel import Profiler, Settings
from ox_otel._clock import Schedule
from ox_otel._names import Names
from ox_otel._pipeline import Pipeline
from ox_otel._threads import Threads
from ox_otel.prometheus import PrometheusRecorder

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has clocks of other threads"
)

ROUNDS = 5

Act = Callable[[], object]


def functions(count: int, length: int = 1) -> list[Callable[[Act], None]]:
    """Return *count* functions that call what they are given, with *length* lines of code each."""
    made = []
    for number in range(count):
        space: dict[str, Callable[[Act], None]] = {}
        dead = "".join(f"\n  act({line})" for line in range(length))
        exec(f"def f{number}(act):\n act()\n if not act:{dead}", space)  # noqa: S102
        made.append(space[f"f{number}"])
    return made


def nested(calls: list[Callable[[Act], None]], act: Act) -> None:
    """Call *act* below all of *calls*."""
    if calls:
        calls[0](lambda: nested(calls[1:], act))
    else:
        act()


@contextmanager
def stepping(visits: Callable[[Act], None]) -> Iterator[Act]:
    """Run *visits* on a thread; each call of what it yields lets it go on to its next stop."""
    go, there = threading.Semaphore(0), threading.Semaphore(0)
    over = threading.Event()

    def stop() -> None:
        sum(range(5_000))  # enough CPU for the thread to be noticed
        there.release()
        if not over.is_set():
            go.acquire()

    def visit() -> None:
        while not over.is_set():
            visits(stop)

    def step() -> None:
        go.release()
        there.acquire()

    thread = threading.Thread(target=visit)
    thread.start()
    there.acquire()
    try:
        yield step
    finally:
        over.set()
        go.release()
        thread.join()


@contextmanager
def parked(count: int, depth: int) -> Iterator[None]:
    """Have *count* threads wait, each below *depth* functions."""
    release = threading.Event()
    calls = functions(depth)
    threads = [threading.Thread(target=nested, args=(calls, release.wait)) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        until_still(threads)
        yield
    finally:
        release.set()
        for thread in threads:
            thread.join()


def cpu(act: Act, times: int = 1) -> float:
    """Return the CPU seconds that the calling thread uses to *act* so many *times*, each."""
    began = time.thread_time()
    for _ in range(times):
        act()
    return (time.thread_time() - began) / times


def bare() -> int:
    """Loop a thousand times: what all the rest is measured in."""
    total = 0
    for number in range(1000):
        total += number * number
    return total


def sample_cost(step: Act) -> float:
    """Return the cost of one sample, after each of which a thread takes a *step*, in bare loops."""
    engine = Threads(Names(), 64, lambda kind: None)
    ratios = []
    for _ in range(ROUNDS):
        cost = 0.0
        for _ in range(40):
            step()
            cost += cpu(lambda: engine.sample(0.0))
        ratios.append(cost / 40 / cpu(bare, times=40))
        engine.drain()
    return median(ratios)


def batch_costs(stacks: int) -> tuple[float, float]:
    """Return the cost of a batch of *stacks* that changed, and of an empty one, in bare loops."""
    pipeline = Pipeline(Settings(engine="threads"), Schedule(1.0, 1.0))
    pipeline.add(PrometheusRecorder(Profiler(), CollectorRegistry()), quick=True)
    pipeline.begin(0.0)
    tops, calls = functions(stacks), functions(20)

    def visits(stop: Act) -> None:
        for top in tops:
            nested([*calls, top], stop)

    changed, unchanged = [], []
    with stepping(visits) as step:
        for _ in range(ROUNDS):
            for _ in range(stacks):
                step()
                pipeline.sample(0.0)
            unit = cpu(bare, times=40)
            changed.append(cpu(lambda: pipeline.flush(0.0)) / unit)
            unchanged.append(cpu(lambda: pipeline.flush(0.0), times=10) / unit)
    return median(changed), median(unchanged)


def test_a_sample_is_cheap() -> None:
    """A sample of twenty waiting threads and a moving one costs few bare loops."""
    with parked(20, 30), stepping(lambda stop: nested(functions(10), stop)) as step:
        assert sample_cost(step) < 8


@linux_only
def test_a_waiting_thread_costs_a_glance() -> None:
    """A hundred threads that wait, however deep, cost less than a walk over their stacks would."""
    calls = functions(1)
    with parked(100, 60), stepping(lambda stop: nested(calls, stop)) as step:
        assert sample_cost(step) < 7


def test_a_quiet_process_costs_next_to_nothing() -> None:
    """While nothing moves, a sample costs a fraction of what it costs otherwise."""
    calls = functions(1)
    with parked(50, 1):
        with stepping(lambda stop: nested(calls, stop)) as step:
            moving = sample_cost(step)
        quiet = sample_cost(lambda: None)

    assert quiet < moving / 4


def test_long_functions_are_as_cheap_as_short_ones() -> None:
    """What a stack costs does not depend on the length of the code on it."""
    costs = []
    for length in (1, 2000):
        calls = functions(30, length)
        with stepping(lambda stop, calls=calls: nested(calls, stop)) as step:
            costs.append(sample_cost(step))
    short, long = costs

    assert long < 3 * short


def test_a_batch_is_cheap() -> None:
    """A batch of a hundred stacks that changed costs few bare loops a stack."""
    changed, _ = batch_costs(100)

    assert changed < 300


def test_a_batch_costs_what_changed() -> None:
    """A batch of few stacks costs a fraction of one of many, and one of none next to nothing."""
    few, _ = batch_costs(10)
    many, none = batch_costs(400)

    assert few < many / 4
    assert none < 12
