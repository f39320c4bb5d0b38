"""What arrives in a collector, through the SDK's own exporter for OTLP over HTTP."""

import math
import os
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from ox_otel import Batch, Exemplar, Function, Profiler, Settings, Usage
from ox_otel._metrics import METRICS
from ox_otel.otel import OtelRecorder
from ox_otel.recorders import Node

CART = Function("shop.cart", "Cart.total")
STOCK = Function("shop.stock", "Stock.<locals>.find")
USED = Usage(8, 5, 4.5, 3.5, 2.5, 1.5)
TREE = {Node("total", 0, "total"): 10**9, Node("totalmains", 1, "shop.main"): 4 * 10**9}

COUNTERS, GAUGES = (
    {
        metric.name: metric.unit
        for metric in METRICS
        if metric.kind == kind and metric.labels != ("route",)
    }
    for kind in ("counter", "gauge")
)
"""Of each metric its unit; of routes nothing is told here."""


@pytest.fixture
def provider(collector, monkeypatch, request):
    """A provider that exports to the collector when it is flushed; the environment configures it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    for name, value in getattr(request, "param", {}).items():
        monkeypatch.setenv(name, value)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(), math.inf)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield provider
    provider.shutdown()


DELTA = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}


def sent(collector, provider) -> Any:
    """Return what one export brings."""
    provider.force_flush()
    return collector.exports[-1]


def test_names_kinds_and_units(collector, provider) -> None:
    """Counters are monotonic sums, cumulative unless asked otherwise; all have their units."""
    OtelRecorder(Profiler(Settings()), provider).record(Batch({CART: USED}, tree=TREE))
    metrics = sent(collector, provider).metrics
    assert COUNTERS == {name: m.unit for name, m in metrics.items() if m.HasField("sum")}
    assert GAUGES == {name: m.unit for name, m in metrics.items() if m.HasField("gauge")}
    assert all(metric.description for metric in metrics.values())
    sums = [metrics[name].sum for name in COUNTERS]
    assert {(True, AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE)} == {
        (one.is_monotonic, one.aggregation_temporality) for one in sums
    }


def test_functions_are_named_fully(collector, provider) -> None:
    """A function is its module and qualified name; its file is told on request only."""
    OtelRecorder(Profiler(Settings()), provider).record(Batch({CART: USED, STOCK: USED}))
    hits = sent(collector, provider).points("hits")
    assert [
        {"code.function.name": "shop.cart.Cart.total"},
        {"code.function.name": "shop.stock.Stock.<locals>.find"},
    ] == [point.attributes for point in hits]
    recorder = OtelRecorder(Profiler(Settings()), provider, file_paths=True)
    ours = Function(OtelRecorder.__module__, "OtelRecorder.record")
    recorder.record(Batch({ours: USED}))
    *_, point = sent(collector, provider).points("self_seconds", state="wait")  # the others go on
    assert {
        "code.function.name": "ox_otel.otel.OtelRecorder.record",
        "code.file.path": sys.modules[OtelRecorder.__module__].__file__,
        "state": "wait",
    } == point.attributes


def test_cumulative(collector, provider) -> None:
    """Points hold all since the start of their series, which stays where it was."""
    recorder = OtelRecorder(Profiler(Settings()), provider)
    began = time.time_ns()
    recorder.record(Batch({CART: USED}, tree=TREE))
    first = sent(collector, provider)
    recorder.record(Batch({CART: USED, STOCK: USED}, tree=TREE))
    second = sent(collector, provider)
    [one] = first.points("seconds", state="cpu")
    two, new = second.points("seconds", state="cpu")
    assert (4.5, 9.0, 4.5) == (one.value, two.value, new.value)
    assert began <= one.start == two.start <= one.time < two.time
    assert one.start < new.start <= new.time == two.time
    assert (5.0, 10.0) == (
        first.total("tree_seconds", level="0"),
        second.total("tree_seconds", level="0"),
    )
    first.assert_conserved()
    second.assert_conserved()


@pytest.mark.parametrize("provider", [DELTA], indirect=True)
def test_delta(collector, provider) -> None:
    """Points hold what came since the one before, from which they follow on; none is negative."""
    recorder = OtelRecorder(Profiler(Settings()), provider)
    exports = []
    for _ in range(3):
        recorder.record(Batch({CART: USED}, tree=TREE))
        exports.append(sent(collector, provider))
    exports.append(sent(collector, provider))
    assert {AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA} == {
        exports[0].metrics[name].sum.aggregation_temporality for name in COUNTERS
    }
    points = [export.points("self_seconds", state="cpu")[0] for export in exports]
    assert [2.5, 2.5, 2.5, 0.0] == [point.value for point in points]
    assert [point.time for point in points[:-1]] == [point.start for point in points[1:]]
    for export in exports:
        export.assert_conserved()


RESOURCE = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop,service.instance.id=shop-1"}


@pytest.mark.parametrize("provider", [RESOURCE], indirect=True)
def test_the_resource_is_the_hosts(collector, provider) -> None:
    """Who is profiled is what the SDK says of the process, and nothing of ours."""
    OtelRecorder(Profiler(Settings()), provider).record(Batch({CART: USED}))
    resource = sent(collector, provider).resource
    assert ("shop", "shop-1") == (resource["service.name"], resource["service.instance.id"])
    assert {"service", "telemetry"} == {name.partition(".")[0] for name in resource}


def test_a_running_profiler(collector, provider) -> None:
    """Whatever it exports while it samples is conserved, and does not decrease."""
    with Profiler(Settings(interval=0.005, max_overhead=1.0)) as profiler:
        profiler.add_recorder(OtelRecorder(profiler, provider), quick=True)
        collector.wait_for(lambda: sent(collector, provider).total("samples") > 100, "samples")
    before: dict[str, float] = {}
    for export in collector.exports:
        export.assert_conserved()
        now = {
            point.attributes["code.function.name"]: point.value
            for point in export.points("seconds", state="wait")
        }
        assert all(now[name] >= value for name, value in before.items())
        before = now


PROGRAM = """
import os, sys, time
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
import ox_otel
reader = PeriodicExportingMetricReader(OTLPMetricExporter())
metrics.set_meter_provider(MeterProvider([reader]))
metrics.get_meter("shop").create_counter("shop.orders").add(1)
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: sum(range(200))
"""


def run(code: str, environ: dict[str, str], **more: str) -> str:
    """Return what a program prints."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + code],
        env={**environ, **more},
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
    )
    assert 0 == done.returncode
    return done.stdout


FORKING = """
profiler = ox_otel.install(recorders="otel")
def of_parent(): burn(0.5)
def of_child(): burn(0.5)
of_parent()
pid = os.fork()
if pid == 0:
    of_child()
    profiler.cancel()
    metrics.get_meter_provider().force_flush()
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_delivers_its_own(collector, environ) -> None:
    """After a fork each has what it did itself, as an instance of its own."""
    run(FORKING, environ, OTEL_METRIC_EXPORT_INTERVAL="60000")  # each at its end
    child, parent = collector.exports

    def cpu(function: str) -> list[float]:
        named = {"code_function_name": f"__main__.{function}", "state": "cpu"}
        return [export.total("seconds", **named) for export in (parent, child)]

    about = pytest.approx(0.5, rel=0.5)
    assert [about, 0] == cpu("of_parent")
    assert [0, about] == cpu("of_child")
    if child.instance:  # older SDKs name none
        assert parent.instance != child.instance


ENDING = """
import atexit
began = 0
atexit.register(lambda: print(time.monotonic() - began))  # this comes after ours
profiler = ox_otel.install(recorders="otel")
def begin():
    global began
    began = time.monotonic()
atexit.register(begin)
burn(0.5)
"""


def test_a_dead_collector_delays_no_end_on_our_account(environ) -> None:
    """While an export hangs, we have ended within a second when the interpreter goes."""
    with socket.create_server(("127.0.0.1", 0)) as dead:  # it never answers
        url = f"http://127.0.0.1:{dead.getsockname()[1]}"
        environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "1"}
        environ |= {"OTEL_METRIC_EXPORT_INTERVAL": "200"}
        assert 0 < float(run(ENDING, environ)) < 1


@pytest.mark.parametrize("provider", [{}, DELTA], indirect=True, ids=["cumulative", "delta"])
def test_exemplars(collector, provider) -> None:
    """Self CPU arrives with the span in which the function was seen last, once, and nothing else."""
    recorder = OtelRecorder(Profiler(Settings()), provider)
    for span_id in ("a" * 16, "b" * 16):
        exemplar = Exemplar("7" * 32, span_id, 0.25, 1_700_000_000.0)
        recorder.record(Batch({CART: USED, STOCK: USED}, tree=TREE, exemplars={CART: exemplar}))
    first, second = sent(collector, provider), sent(collector, provider)
    found = {
        (name, point.attributes[0].value.string_value, state.value.string_value): point.exemplars
        for name in COUNTERS
        for point in first.metrics[name].sum.data_points
        for state in point.attributes
        if state.key == "state" and point.exemplars
    }
    [(series, [exemplar])] = found.items()
    assert ("self_seconds", str(CART), "cpu") == series
    assert (bytes.fromhex("7" * 32), bytes.fromhex("b" * 16)) == (
        exemplar.trace_id,
        exemplar.span_id,
    )
    points = [point for name in COUNTERS for point in first.metrics[name].sum.data_points]
    assert 1 == sum(len(point.exemplars) for point in points)
    points = [point for name in COUNTERS for point in second.metrics[name].sum.data_points]
    assert 0 == sum(len(point.exemplars) for point in points)
