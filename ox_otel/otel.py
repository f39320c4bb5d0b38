"""The recorder for OpenTelemetry: observable instruments on the API, whoever provides the SDK.

No provider is made or set here: the host's own MeterProvider collects, at its own pace, from one
immutable snapshot. A provider that the host sets later is used from then on. The histogram of
delays is left out: the API has none that can be observed.

An exemplar is what an SDK makes of an observation in the context of a span. So each observation gets
a context: without one an SDK takes the current one, which is that of whoever collects.
"""

import sys
from collections.abc import Callable, Iterable
from types import FrameType

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)

from ox_otel._fork import follow_forks
from ox_otel._metrics import FUNCTION, METRICS, Metric, examples
from ox_otel._names import file_of
from ox_otel._profiler import Profiler
from ox_otel._pruning import Pruning
from ox_otel._status import package_version
from ox_otel.recorders import Batch, CountingRecorder, Exemplar, Function

MAX_FUNCTIONS = 990
"""With two states each, fewer than the 2000 attribute sets that an SDK allows an instrument."""

MAX_NODES = 1990
"""The same for the tree, which has no states."""

_NO_SPAN = set_span_in_context(INVALID_SPAN, Context())

_publishing: dict[MeterProvider | None, "OtelRecorder | None"] = {}
"""The recorder that the instruments of each provider observe; None as a provider: the global one.

An SDK makes an instrument of one name only once, with the callbacks it got then, and the API
knows no way to take it away: instruments outlive the recorder that they were made for.
"""

_left: dict[MeterProvider | None, Batch] = {}
"""What the recorder before has counted on each provider: there sums go on, or they would fall."""

follow_forks(_left.clear)  # as the figures of a child begin anew


class OtelRecorder:
    """Publishes what *profiler* finds as `ox_profile.*`, until `close` or the provider's next one.

    *provider* is the MeterProvider to use, by default the global one, set now or later. Instead
    of module and function there is one attribute, `code.function.name`, and with *file_paths* also
    `code.file.path`. *beside_prometheus* says that the recorder `prometheus` is there too: then
    the SDK's reader for prometheus_client gets nothing, since series would have the same names.
    """

    def __init__(
        self,
        profiler: Profiler,
        provider: MeterProvider | None = None,
        *,
        file_paths: bool = False,
        beside_prometheus: bool = False,
    ) -> None:
        self._profiler = profiler
        self._provider = provider
        self._beside_prometheus = beside_prometheus
        self._files: dict[str, str | None] | None = {} if file_paths else None  # by module
        self._begin()
        follow_forks(self._begin)
        is_new = provider not in _publishing
        if (former := _publishing.get(provider)) is not None:
            former.close()
        self._counts.record(self._pruning.prune(_left.pop(provider, Batch())))
        _publishing[provider] = self
        if is_new:
            _create_instruments(provider)

    def _begin(self) -> None:
        """Begin with nothing: in a forked child, too, since the figures are its parent's."""
        self._counts = CountingRecorder()
        self._pruning = Pruning(MAX_FUNCTIONS, MAX_NODES)
        self._exemplars: dict[Function, Exemplar] = {}  # that no collection has observed yet
        self._collected: Batch | None = None  # by the latest collection
        self._observed: set[Metric] = set()  # what it has asked for so far

    def close(self) -> None:
        """Publish nothing more."""
        if _publishing[self._provider] is self:
            _publishing[self._provider] = None
            _left[self._provider] = self._counts.snapshot()

    def record(self, batch: Batch) -> None:
        """Add *batch* to what the next collection observes, in what an SDK has room for."""
        self._pruning.retire(batch)
        pruned = self._pruning.prune(batch)
        self._counts.record(pruned)
        latest = {**self._exemplars, **pruned.exemplars}
        functions = self._counts.snapshot().functions
        self._exemplars = {f: exemplar for f, exemplar in latest.items() if f in functions}

    def observe(self, metric: Metric) -> list[Observation]:
        """Return the series of *metric*; none after an error, and none where it must be silent."""
        with self._profiler.charging():
            try:
                counted = self._snapshot(metric)
                if counted is None:
                    return []
                values = metric.read(counted, self._profiler.status())
                contexts = self._contexts(metric)
                return [
                    Observation(value, self._attributes(metric, of), contexts.get(of, _NO_SPAN))
                    for of, value in values
                ]
            except Exception:
                self._profiler.count_error("scrape")
                return []

    def _contexts(self, metric: Metric) -> dict[tuple[str, ...], Context]:
        """Return the contexts of those series of *metric* that have an exemplar: once for each."""
        found = examples(metric, self._exemplars)
        if found:
            self._exemplars = {}
        return {labels: _context(exemplar) for labels, exemplar in found.items()}

    def _snapshot(self, metric: Metric) -> Batch | None:
        """Return what has been counted, the same for all metrics of a collection: sums agree."""
        if metric in self._observed:  # it asks again, so this is another one
            self._observed = set()
        if not self._observed:
            self._collected = None if self._is_silent() else self._counts.snapshot()
        self._observed.add(metric)
        return self._collected

    def _is_silent(self) -> bool:
        """Return whether a collection that begins must find nothing.

        So it is in the master of a server once it forks workers: an SDK holds locks while it
        collects and exports, which a child would find locked for ever, and it would take what a
        child observes first for less than its parent had before.
        """
        return self._profiler.handed_over or (self._beside_prometheus and _is_scrape())

    def _attributes(self, metric: Metric, labels: tuple[str, ...]) -> dict[str, str]:
        if metric.labels[:2] != FUNCTION:
            return dict(zip(metric.labels, labels, strict=True))
        module, function, *others = labels
        attributes = {"code.function.name": f"{module}.{function}"}
        file = self._file_of(module)
        if file is not None:
            attributes["code.file.path"] = file
        return attributes | dict(zip(metric.labels[2:], others, strict=True))

    def _file_of(self, module: str) -> str | None:
        """Return the file of *module*, if it is to be told; what was told once does not change."""
        if self._files is None:
            return None
        if module not in self._files:
            self._files[module] = file_of(module)
        return self._files[module]


def _create_instruments(provider: MeterProvider | None) -> None:
    meter = get_meter("ox_otel", package_version(), provider)
    for metric in METRICS:
        create = (
            meter.create_observable_counter
            if metric.kind == "counter"
            else meter.create_observable_gauge
        )
        callback = _callback(provider, metric)
        create(f"ox_profile.{metric.name}", [callback], metric.unit, metric.text)


def _callback(
    provider: MeterProvider | None, metric: Metric
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> list[Observation]:
        recorder = _publishing[provider]
        return recorder.observe(metric) if recorder is not None else []

    return observe


def _context(exemplar: Exemplar) -> Context:
    ids = int(exemplar.trace_id, 16), int(exemplar.span_id, 16)
    span = SpanContext(*ids, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(span), Context())


def _is_scrape() -> bool:
    """Return whether it is the SDK's reader for prometheus_client that collects."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if dict.get(frame.f_globals, "__name__") == "opentelemetry.exporter.prometheus":
            return True
        frame = frame.f_back
    return False
