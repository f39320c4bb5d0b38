"""The recorder for OpenTelemetry: observable instruments on the API, whoever provides the SDK.

No provider is made or set here: the host's own MeterProvider collects, at its own pace, from one
immutable snapshot. A provider that the host sets later is used from then on.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from ox_otel._metrics import FUNCTION, METRICS, Metric
from ox_otel._profiler import Profiler
from ox_otel._status import package_version
from ox_otel.recorders import NOTHING, OTHER, Batch, CountingRecorder, Function, Usage

MAX_FUNCTIONS = 990
"""With two states each, fewer than the 2000 attribute sets that an SDK allows an instrument."""

_REST = Function(OTHER, OTHER)


class OtelRecorder:
    """Publishes what *profiler* finds as `ox_profile.*` until `close`.

    *provider* is the MeterProvider to use, by default the global one, set now or later. Instead
    of module and function there is one attribute, `code.function.name`.
    """

    def __init__(self, profiler: Profiler, provider: MeterProvider | None = None) -> None:
        self._profiler = profiler
        self._counts = CountingRecorder()
        self._named = {_REST}
        self._closed = False
        meter = get_meter("ox_otel", package_version(), provider)
        for metric in METRICS:
            create = (
                meter.create_observable_counter
                if metric.kind == "counter"
                else meter.create_observable_gauge
            )
            name = f"ox_profile.{metric.name}"
            create(name, [self._observer(metric)], unit=metric.unit, description=metric.text)

    def close(self) -> None:
        """Publish nothing more; the API knows no way to take an instrument away."""
        self._closed = True

    def record(self, batch: Batch) -> None:
        """Add *batch* to what the next collection observes, at most `MAX_FUNCTIONS` by name."""
        self._named -= batch.retired.keys()
        self._named.update(batch.retired.values())
        functions: dict[Function, Usage] = {}
        for function, usage in batch.functions.items():
            if len(self._named) < MAX_FUNCTIONS:
                self._named.add(function)
            home = function if function in self._named else _REST
            functions[home] = functions.get(home, NOTHING).plus(usage)
        self._counts.record(replace(batch, functions=functions))

    def _observer(self, metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> list[Observation]:
            if self._closed:
                return []
            with self._profiler.charging():
                try:
                    values = metric.read(self._counts.snapshot(), self._profiler.status())
                    return [Observation(value, _attributes(metric, of)) for of, value in values]
                except Exception:
                    self._profiler.count_error("scrape")
                    return []

        return observe


def _attributes(metric: Metric, labels: tuple[str, ...]) -> dict[str, str]:
    if metric.labels[:2] != FUNCTION:
        return dict(zip(metric.labels, labels, strict=True))
    name = {"code.function.name": f"{labels[0]}.{labels[1]}"}
    return name | dict(zip(metric.labels[2:], labels[2:], strict=True))
