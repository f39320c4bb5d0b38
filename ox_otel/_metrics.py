"""What is published, whatever the backend: names, units, labels and where the values come from."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from math import inf
from typing import Literal, NamedTuple

from ox_otel._clock import DELAY_BOUNDS
from ox_otel._pipeline import series
from ox_otel._status import ERROR_KINDS, Status, package_version
from ox_otel.recorders import Batch, Exemplar, Function, Node, RouteUsage, Usage, inclusive

Values = Iterable[tuple[tuple[str, ...], float]]
"""The series of one metric: the values of its labels, and its own."""


class Metric(NamedTuple):
    """One metric: *read* takes its series from totals and status, labelled as in *labels*."""

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    text: str
    labels: tuple[str, ...]
    read: Callable[[Batch, Status], Values]


FUNCTION = ("module", "function")
NODE = ("path", "level", "label")


def _of_functions(value: Callable[[Usage], float]) -> Callable[[Batch, Status], Values]:
    def read(counted: Batch, _: Status) -> Iterator[tuple[tuple[str, ...], float]]:
        for function, usage in counted.functions.items():
            yield function, value(usage)

    return read


def _of_states(
    cpu: Callable[[Usage], float], wait: Callable[[Usage], float]
) -> Callable[[Batch, Status], Values]:
    def read(counted: Batch, _: Status) -> Iterator[tuple[tuple[str, ...], float]]:
        for function, usage in counted.functions.items():
            yield (*function, "cpu"), cpu(usage)
            yield (*function, "wait"), wait(usage)

    return read


def _of_nodes(
    value: Callable[[Mapping[Node, int]], Mapping[Node, int]],
) -> Callable[[Batch, Status], Values]:
    def read(counted: Batch, _: Status) -> Iterator[tuple[tuple[str, ...], float]]:
        for (path, level, label), nanoseconds in value(counted.tree).items():
            yield (path, str(level), label), nanoseconds / 1e9

    return read


def _of_routes(value: Callable[[RouteUsage], float]) -> Callable[[Batch, Status], Values]:
    def read(counted: Batch, _: Status) -> Iterator[tuple[tuple[str, ...], float]]:
        for route, usage in counted.routes.items():
            yield (route,), value(usage)

    return read


def _stacks(counted: Batch, _: Status) -> Values:
    return [((), sum(usage.self_hits for usage in counted.functions.values()))]


def _observed(counted: Batch, _: Status) -> Values:
    usages = counted.functions.values()
    return [
        (("cpu",), sum(usage.self_cpu_seconds for usage in usages)),
        (("wait",), sum(usage.self_wait_seconds for usage in usages)),
    ]


def _errors(counted: Batch, _: Status) -> Values:
    return [((kind,), counted.errors.get(kind, 0)) for kind in ERROR_KINDS]


def _info(_: Batch, status: Status) -> Values:
    return [((package_version(), status.engine, platform.python_version()), 1)]


def _counted(value: Callable[[Batch], float]) -> Callable[[Batch, Status], Values]:
    return lambda counted, _: [((), value(counted))]


def _told(value: Callable[[Status], float]) -> Callable[[Batch, Status], Values]:
    return lambda _, status: [((), value(status))]


METRICS = (
    Metric(
        "hits",
        "counter",
        "{hit}",
        "Stacks seen with the function anywhere on them, once a stack.",
        FUNCTION,
        _of_functions(lambda usage: usage.hits),
    ),
    Metric(
        "self_hits",
        "counter",
        "{hit}",
        "Stacks seen with the function at the top.",
        FUNCTION,
        _of_functions(lambda usage: usage.self_hits),
    ),
    Metric(
        "seconds",
        "counter",
        "s",
        "Estimated thread-seconds with the function on the stack.",
        (*FUNCTION, "state"),
        _of_states(lambda usage: usage.cpu_seconds, lambda usage: usage.wait_seconds),
    ),
    Metric(
        "self_seconds",
        "counter",
        "s",
        "Estimated thread-seconds with the function at the top of the stack.",
        (*FUNCTION, "state"),
        _of_states(lambda usage: usage.self_cpu_seconds, lambda usage: usage.self_wait_seconds),
    ),
    Metric(
        "tree_seconds",
        "counter",
        "s",
        "Estimated thread-seconds in a node of the calling-context tree and all below it.",
        NODE,
        _of_nodes(inclusive),
    ),
    Metric(
        "tree_self_seconds",
        "counter",
        "s",
        "Estimated thread-seconds in a node of the calling-context tree itself.",
        NODE,
        _of_nodes(lambda tree: tree),
    ),
    Metric(
        "route_requests",
        "counter",
        "{request}",
        "Requests of the route that are over.",
        ("route",),
        _of_routes(lambda usage: usage.requests),
    ),
    Metric(
        "route_cpu_seconds",
        "counter",
        "s",
        "CPU seconds used for requests of the route, as the clocks of threads have it.",
        ("route",),
        _of_routes(lambda usage: usage.cpu_seconds),
    ),
    Metric(
        "route_wait_seconds",
        "counter",
        "s",
        "Seconds that requests of the route took and used no CPU in.",
        ("route",),
        _of_routes(lambda usage: usage.wait_seconds),
    ),
    Metric(
        "samples",
        "counter",
        "{sample}",
        "Samples taken; one looks at all threads at one instant.",
        (),
        _counted(lambda counted: counted.samples),
    ),
    Metric("stacks", "counter", "{stack}", "Stacks seen in the samples.", (), _stacks),
    Metric("observed_seconds", "counter", "s", "Thread-seconds observed.", ("state",), _observed),
    Metric(
        "missed_samples",
        "counter",
        "{sample}",
        "Samples that came too late to be taken.",
        (),
        _counted(lambda counted: counted.missed),
    ),
    Metric(
        "overhead_seconds",
        "counter",
        "s",
        "CPU seconds that profiling cost.",
        (),
        _counted(lambda counted: counted.overhead_seconds),
    ),
    Metric("errors", "counter", "{error}", "Errors of the profiler.", ("kind",), _errors),
    Metric(
        "series",
        "gauge",
        "{series}",
        "Series published.",
        (),
        # of these very totals: a batch may have come in since the status was asked for
        _counted(series),
    ),
    Metric(
        "series_limit",
        "gauge",
        "{series}",
        "Most series that are ever published.",
        (),
        _told(lambda status: status.series_limit),
    ),
    Metric(
        "interval_seconds",
        "gauge",
        "s",
        "Mean time between samples (with ticks a fifth), as asked for or as the budget stretches it.",
        (),
        _told(lambda status: status.interval),
    ),
    Metric(
        "running",
        "gauge",
        "1",
        "1 while samples are taken.",
        (),
        _told(lambda status: int(status.state == "running")),
    ),
    Metric("info", "gauge", "1", "The profiler in use.", ("version", "engine", "python"), _info),
)


def examples(
    metric: Metric, exemplars: Mapping[Function, Exemplar]
) -> dict[tuple[str, ...], Exemplar]:
    """Return the exemplars of *metric*, by the values of its labels: self CPU alone has any."""
    if metric.name != "self_seconds":
        return {}
    return {(*function, "cpu"): exemplar for function, exemplar in exemplars.items()}


WAKEUP_DELAY = "How late samples were taken: how long they had to wait for the GIL, or for a core."
"""What the histogram `wakeup_delay_seconds` tells, which is no `Metric`: not every backend can."""


def delay_buckets(counted: Batch) -> list[tuple[str, int]]:
    """Return how many samples were late by up to so many seconds, for each of `DELAY_BOUNDS`."""
    bounds = ("+Inf" if bound == inf else str(bound) for bound in DELAY_BOUNDS)
    counts = accumulate(counted.delays.get(bound, 0) for bound in DELAY_BOUNDS)
    return list(zip(bounds, counts, strict=True))
