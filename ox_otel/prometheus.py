"""The recorder for prometheus_client: a collector over totals that are published whole.

A collection reads one immutable snapshot: it takes no lock that sampling could hold, and it never
raises, since an error in one collector takes down all metrics of the registry.
"""

import os
from contextlib import suppress
from dataclasses import replace

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY, CollectorRegistry
from prometheus_client.samples import Exemplar as FamilyExemplar

from ox_otel._fork import follow_forks, uncut
from ox_otel._metrics import METRICS, WAKEUP_DELAY, delay_buckets, examples
from ox_otel._multiprocess import MULTIPROCESS
from ox_otel._profiler import Profiler
from ox_otel._status import Status
from ox_otel.recorders import (
    NOTHING,
    Batch,
    CountingRecorder,
    Exemplar,
    Function,
    Node,
    RouteUsage,
)

Key = Function | Node | str
"""What has series, a route by its name: they appear, end and have heirs together."""


def expose(accept: str, registry: CollectorRegistry = REGISTRY) -> tuple[str, bytes]:
    """Return content type and text of all metrics in *registry*, in the form *accept* prefers.

    Where `PROMETHEUS_MULTIPROC_DIR` is set, instead those of all its processes, living and dead.
    """
    encode, content_type = choose_encoder(accept)
    if os.environ.get(MULTIPROCESS):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    with uncut:  # collectors of the host may hold locks
        return content_type, encode(registry)


class PrometheusRecorder:
    """Publishes what *profiler* finds in *registry*, until `close`.

    A series that is new is first shown at 0, and its first increments at the next collection:
    Prometheus takes the first value of a series as given, so `rate()` and `increase()` would lose
    whatever it had on arrival. Only the first collection of all shows everything as it is.
    """

    def __init__(self, profiler: Profiler, registry: CollectorRegistry = REGISTRY) -> None:
        self._profiler = profiler
        self._registry = registry
        self._begin()
        follow_forks(self._begin)
        registry.register(self)

    def _begin(self) -> None:
        """Begin with nothing: in a forked child, too, since the figures are its parent's."""
        self._counts = CountingRecorder()
        self._recorded: tuple[Batch, frozenset[Key]] = (Batch(), frozenset())
        self._shown: frozenset[Key] | None = None  # None: no collection yet
        self._last: list[Family] = []

    def close(self) -> None:
        """Take the metrics out of the registry."""
        with suppress(KeyError):  # the host has done so already
            self._registry.unregister(self)

    def record(self, batch: Batch) -> None:
        """Add *batch* to what the next collection shows."""
        self._counts.record(batch)
        ended: set[Key] = {*batch.retired, *batch.retired_nodes}
        heirs = {*self._recorded[1], *batch.retired.values(), *batch.retired_nodes.values()} - ended
        # one assignment, so that no collection sees the total of an heir without knowing it for one
        self._recorded = self._counts.snapshot(), frozenset(heirs)

    def describe(self) -> list[Family]:
        """Return the families, whatever their samples: the registry wants their names."""
        return _families(Batch(), self._profiler.status())

    def collect(self) -> list[Family]:
        """Return all families; after an error the last good ones."""
        with self._profiler.charging():
            try:
                self._last = _families(self._visible(), self._profiler.status())
            except Exception:
                self._profiler.count_error("scrape")
            return self._last

    def _visible(self) -> Batch:
        """Return what has been counted, with the series at 0 that no collection has shown yet."""
        counted, heirs = self._recorded
        shown = self._shown
        self._shown = frozenset({*counted.functions, *counted.tree, *counted.routes})
        if shown is None:
            return counted
        # an heir carries on what was shown under other names: a 0 would make it count again
        shown = shown | heirs
        functions = {
            function: usage if function in shown else NOTHING
            for function, usage in counted.functions.items()
        }
        tree = {node: time if node in shown else 0 for node, time in counted.tree.items()}
        routes = {
            route: usage if route in shown else RouteUsage()
            for route, usage in counted.routes.items()
        }
        exemplars = {f: exemplar for f, exemplar in counted.exemplars.items() if f in shown}
        return replace(counted, functions=functions, tree=tree, routes=routes, exemplars=exemplars)


def _families(counted: Batch, status: Status) -> list[Family]:
    families: list[Family] = []
    for metric in METRICS:
        head = f"ox_profile_{metric.name}", metric.text
        values = metric.read(counted, status)
        if metric.kind == "counter":
            counter = CounterMetricFamily(*head, labels=metric.labels)
            exemplars = examples(metric, counted.exemplars)
            for labels, value in values:
                counter.add_metric(labels, value, exemplar=_exemplar(exemplars.get(labels)))
            families.append(counter)
        else:
            gauge = GaugeMetricFamily(*head, labels=metric.labels)
            for labels, value in values:
                gauge.add_metric(labels, value)
            families.append(gauge)
    delays = HistogramMetricFamily("ox_profile_wakeup_delay_seconds", WAKEUP_DELAY)
    delays.add_metric((), delay_buckets(counted), counted.delay_seconds)
    return [*families, delays]


def _exemplar(exemplar: Exemplar | None) -> FamilyExemplar | None:
    """Return an exemplar as OpenMetrics has it; other formats leave it out."""
    if exemplar is None:
        return None
    labels = {"trace_id": exemplar.trace_id, "span_id": exemplar.span_id}
    return FamilyExemplar(labels, exemplar.cpu_seconds, exemplar.seen_at)
