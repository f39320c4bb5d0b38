"""What stores make of it: VictoriaMetrics by OTLP, and the SDK's reader for prometheus_client."""

import json
import math
import urllib.parse
import urllib.request

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ox_otel import Batch, Function, Profiler, Settings, Usage
from ox_otel.otel import OtelRecorder
from ox_otel.prometheus import PrometheusRecorder

CART = Function("shop.cart", "Cart.total")
USED = Usage(8, 8, 4.5, 3.5, 4.5, 3.5)


def query(url: str, expr: str) -> dict[str, float]:
    """Return what a store answers now, by the name of the function."""
    asked = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
    with urllib.request.urlopen(asked, timeout=30) as answer:
        series = json.load(answer)["data"]["result"]
    name = "code.function.name"
    return {one["metric"].get(name, ""): float(one["value"][1]) for one in series}


def test_victoria_metrics(collector, victoria_metrics) -> None:
    """A store that takes OTLP answers with our names and values, conserved, instance by instance."""
    exporter = OTLPMetricExporter(f"{victoria_metrics}/opentelemetry/v1/metrics")
    resource = Resource.create({"service.name": "shop", "service.instance.id": "shop-1"})
    provider = MeterProvider(
        [PeriodicExportingMetricReader(exporter, math.inf)], resource, shutdown_on_exit=False
    )
    with Profiler(Settings(interval=0.005, max_overhead=1.0)) as profiler:
        recorder = OtelRecorder(profiler, provider)
        recorder.record(Batch({CART: USED}))
        profiler.add_recorder(recorder, quick=True)
        collector.wait_for(lambda: profiler.status().samples > 100, "samples")
    provider.force_flush()
    ours = '"ox_profile.{}",service.name="shop",service.instance.id="shop-1"'

    def ask(expr: str, name: str, more: str = "") -> dict[str, float]:
        return query(victoria_metrics, expr.format("{" + ours.format(name) + more + "}"))

    collector.wait_for(lambda: ask("{}", "stacks"), "it answers")
    by_function = 'sum by ("code.function.name") ({})'
    assert 4.5 == ask(by_function, "seconds", ',state="cpu"')[str(CART)]
    assert 8 == ask("{}", "self_hits")[str(CART)]
    assert ask("sum({})", "self_hits") == ask("sum({})", "stacks")
    [self_seconds] = ask("sum({})", "self_seconds").values()
    [observed] = ask("sum({})", "observed_seconds").values()
    assert pytest.approx(observed) == self_seconds > 8
    provider.shutdown()


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside-ours"])
def test_the_reader_for_prometheus_client(beside) -> None:
    """In one registry each series is there once: ours, or where we have no other, the SDK's."""
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(registry=registry)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    profiler = Profiler(Settings())
    recorders = [OtelRecorder(profiler, provider, beside_prometheus=beside)]
    if beside:
        recorders.append(PrometheusRecorder(profiler, registry))
    provider.get_meter("shop").create_counter("shop.orders").add(1)
    for recorder in recorders:
        recorder.record(Batch({CART: USED}))
    assert b"shop_orders_total" in generate_latest(registry)
    families = list(text_string_to_metric_families(generate_openmetrics(registry).decode()))
    [hits] = [family for family in families if family.name == "ox_profile_hits"]
    [sample] = hits.samples
    name = {"module": "shop.cart", "function": "Cart.total"}
    assert 8 == sample.value
    assert beside == (sample.labels == name)
    assert beside != (sample.labels.get("code_function_name") == str(CART))
    provider.shutdown()
