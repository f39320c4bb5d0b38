"""What does the once-a-second batch cost, against the number of stacks that changed?"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from statistics import median
from typing import Any

from prometheus_client import CollectorRegistry

from bench.alone import in_rounds
from bench.report import spread, table
from bench.world import at_depth
from ox_otel import Function, Profiler, Settings, Usage
from ox_otel._clock import Schedule
from ox_otel._ledger import Ledger
from ox_otel._native import own_idents
from ox_otel._pipeline import Pipeline
from ox_otel._threads import MAX_STACKS
from ox_otel._tree import Tree
from ox_otel.prometheus import PrometheusRecorder

CHANGED = (0, 1, 10, 100, 1000)
DEPTH = 30
FUNCTIONS = 400  # more than there are series for

STACKS = 20_000

MANY = f"""\
CPU of sorting {STACKS} different stacks, {DEPTH} deep, into series, in batches of {MAX_STACKS}, in
microseconds a stack:"""

ABOUT = f"""\
CPU of making a batch of stacks {DEPTH} deep with {FUNCTIONS} different tops and handing it to
Prometheus, in microseconds."""


def functions(count: int, name: str = "function") -> list[Callable[[Callable[[], None]], None]]:
    """Return *count* functions that call what they are given, each a function of its own."""
    made: list[Callable[[Callable[[], None]], None]] = []
    for number in range(count):
        space: dict[str, Any] = {"__name__": f"generated.module_{number % 40}"}
        exec(f"def {name}_{number}(act): act()", space)  # noqa: S102
        made.append(space[f"{name}_{number}"])
    return made


@contextmanager
def walker(stacks: int) -> Iterator[Callable[[], None]]:
    """Have a thread stand at one of *stacks* different stacks; each call makes it go to the next."""
    go, there = threading.Semaphore(0), threading.Semaphore(0)
    tops = functions(FUNCTIONS)
    over = False

    def stand() -> None:
        there.release()
        go.acquire()

    def walk() -> None:
        while not over:
            for number in range(stacks):
                # depth tells apart the stacks that have the same function at the top
                depth = DEPTH - number // FUNCTIONS
                at_depth(depth, lambda n=number: tops[n % FUNCTIONS](stand))
                if over:
                    break

    def step() -> None:
        go.release()
        there.acquire()

    thread = threading.Thread(target=walk)
    thread.start()
    there.acquire()
    try:
        yield step
    finally:
        over = True
        go.release()
        thread.join()


def measure(changed: int) -> list[float]:
    """Return the CPU microseconds of a batch with *changed* stacks: the first, and a later one."""
    pipeline = Pipeline(Settings(engine="threads"), Schedule(1.0, 1.0))
    pipeline.add(PrometheusRecorder(Profiler(), CollectorRegistry()), quick=True)
    own_idents.add(threading.get_ident())
    took = []
    with walker(max(changed, 1)) as step:
        pipeline.begin(0.0)
        for number in range(8):
            for _ in range(changed):
                step()
                pipeline.sample(0.001 * number)
            began = time.thread_time()
            pipeline.flush(0.001 * number)
            took.append(1e6 * (time.thread_time() - began))
    return [took[0], median(took[1:])]


def sorted_out(kind: str) -> float:
    """Return the CPU microseconds a stack that the ledger, or the tree, needs for `STACKS` stacks."""
    draw = Random(1)
    named = [Function(f"module_{number % 40}", f"function_{number}") for number in range(2000)]
    usage = Usage(1, 1, 0.01, 0.01, 0.01, 0.01)
    batches = [
        {(*named[:2], *draw.choices(named, k=DEPTH - 2)): usage for _ in range(MAX_STACKS)}
        for _ in range(STACKS // MAX_STACKS)
    ]
    table = Ledger(164) if kind == "ledger" else Tree(493, "cpu")
    began = time.thread_time()
    for second, batch in enumerate(batches):
        table.settle(batch, float(second))
    return 1e6 * (time.thread_time() - began) / STACKS


def section(_folder: str, *, quick: bool) -> str:
    """Return the results as Markdown."""
    rounds = 1 if quick else 3
    results, _ = in_rounds(measure, [(changed,) for changed in CHANGED], rounds)
    many, _ = in_rounds(sorted_out, [("ledger",), ("tree",)], rounds)
    return "\n".join(
        [
            "## Batch",
            "",
            ABOUT,
            "",
            table(
                ["stacks changed", "first batch", "later ones"],
                [
                    [str(changed), *(spread([f[i] for f in found], 0) for i in range(2))]
                    for (changed,), found in results.items()
                ],
            ),
            "",
            MANY,
            "",
            table(["", "us"], [[kind, spread(found, 1)] for (kind,), found in many.items()]),
        ]
    )
