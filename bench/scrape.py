"""What does a scrape of 2000 series cost, and how long does it keep a sampler waiting?"""

import threading
import time
from statistics import median, quantiles

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from bench.alone import in_rounds
from bench.report import spread, table
from ox_otel import Batch, Function, Profiler, Usage
from ox_otel._ledger import SERIES_PER_FUNCTION
from ox_otel._native import allocate_lock
from ox_otel._status import OWN_SERIES
from ox_otel._tree import SERIES_PER_NODE, token
from ox_otel.prometheus import PrometheusRecorder
from ox_otel.recorders import Node

SERIES = 2000
ABOUT = f"""\
CPU of `generate_latest` for {SERIES} series, in one process, in turns. prometheus_client's own
metrics have the same names and labels, and no `_created`."""

LATENESS = """\
How late a thread that sleeps 10 ms wakes up, in ms, while another one is busy without end (any
Python thread may delay others by the switch interval, 5 ms, and by what the system adds):"""

KINDS = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
HALF = (SERIES - OWN_SERIES) // 2  # for functions, and the same for the tree
FUNCTIONS, NODES = HALF // SERIES_PER_FUNCTION, HALF // SERIES_PER_NODE
DEPTH = 30  # of the paths in the tree


def nodes() -> list[Node]:
    """Return the root and as many paths below it as there is room for."""
    found = [Node(token("total"), 0, "total")]
    while len(found) < NODES:
        last = found[-1] if len(found) % DEPTH else found[0]
        label = f"package.module_{len(found) % 40}.Class.method_{len(found)}"
        found.append(Node(last.path + token(label), last.level + 1, label))
    return found


def ours() -> CollectorRegistry:
    """Return a registry with all the series that ox_otel publishes at most by default."""
    registry = CollectorRegistry()
    recorder = PrometheusRecorder(Profiler(), registry)
    functions = [
        Function(f"package.module_{number % 40}", f"Class.method_{number}")
        for number in range(FUNCTIONS)
    ]
    usages = [Usage(7 * n, 3 * n, 0.123456 * n, 1.5 * n, 0.01 * n, n / 3) for n in range(FUNCTIONS)]
    tree = {node: 123_456_789 * number for number, node in enumerate(nodes())}
    recorder.record(Batch(dict(zip(functions, usages, strict=True)), tree=tree))
    return registry


def theirs() -> CollectorRegistry:
    """Return a registry with the same families and labels as metrics of prometheus_client's own."""
    disable_created_metrics()
    registry = CollectorRegistry()
    for family in ours().collect():
        kind = KINDS[family.type]
        names = [] if kind is Histogram else list(family.samples[0].labels)
        metric = kind(family.name, family.documentation, names, registry=registry)
        for sample in family.samples if kind is not Histogram else ():
            child = metric.labels(**sample.labels) if names else metric
            child.inc(sample.value)
    return registry


def ratio() -> list[float]:
    """Return the CPU milliseconds of a scrape of ours and of theirs, taken in turns."""
    registries = ours(), theirs()
    took: tuple[list[float], list[float]] = [], []
    for _ in range(60):
        for registry, times in zip(registries, took, strict=True):
            began = time.thread_time()
            generate_latest(registry)
            times.append(1000 * (time.thread_time() - began))
    return [median(times) for times in took]


def lateness(what: str, seconds: float) -> list[float]:
    """Return median, 99th percentile and most by which wake-ups come late, in milliseconds.

    Meanwhile another thread does *what*: scrapes without end, works in Python, or nothing.
    """
    registry = ours()
    over = threading.Event()

    def scrape() -> None:
        while not over.is_set():
            generate_latest(registry)

    def work() -> None:
        while not over.is_set():
            sum(number * number for number in range(300))

    acts = {"scrapes": [scrape], "Python": [work], "nothing": []}
    threads = [threading.Thread(target=act) for act in acts[what]]
    for thread in threads:
        thread.start()
    alarm = allocate_lock()
    alarm.acquire()
    late = []
    until = time.monotonic() + seconds
    while (now := time.monotonic()) < until:
        alarm.acquire(timeout=0.01)
        late.append(1000 * (time.monotonic() - now - 0.01))
    over.set()
    for thread in threads:
        thread.join()
    return [median(late), quantiles(late, n=100)[98], max(late)]


def section(_folder: str, *, quick: bool) -> str:
    """Return the results as Markdown."""
    rounds, seconds = (1, 2.0) if quick else (5, 4.0)
    ratios, _ = in_rounds(ratio, [()], rounds)
    cases = [(what, seconds) for what in ("nothing", "Python", "scrapes")]
    delays, _ = in_rounds(lateness, cases, min(rounds, 3))
    pairs = ratios[()]
    return "\n".join(
        [
            "## Scrape",
            "",
            ABOUT,
            "",
            table(
                ["", "ms"],
                [
                    ["ox_otel", spread([ours for ours, _ in pairs], 2)],
                    ["prometheus_client", spread([theirs for _, theirs in pairs], 2)],
                    ["ratio (at most 1.1)", spread([ours / theirs for ours, theirs in pairs], 2)],
                ],
            ),
            "",
            LATENESS,
            "",
            table(
                ["with", "median", "99 %", "most"],
                [
                    [what, *(spread([d[i] for d in delays[what, seconds]], 2) for i in range(3))]
                    for what, _ in cases
                ],
            ),
        ]
    )
