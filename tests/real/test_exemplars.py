"""From a metric to a trace: a real Prometheus stores the exemplars of a program that traces."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from threading import Event, Thread
from typing import Any, NamedTuple

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from ox_otel import Profiler, Settings
from ox_otel._endpoint import Endpoint
from ox_otel.http import Exposure
from ox_otel.prometheus import PrometheusRecorder, expose

pytestmark = pytest.mark.store

QUERY = "ox_profile_self_seconds_total"


class Shop(NamedTuple):
    """A program that works in spans, and where it is served."""

    target: str
    spans: dict[str, set[tuple[str, str]]]
    """The trace and the span of each piece of work that each function has done."""


def price() -> None:
    """Work in a request."""
    for _ in range(200_000):
        pass


def search() -> None:
    """Work in another request."""
    for _ in range(200_000):
        pass


def restock() -> None:
    """Work that is nobody's request."""
    for _ in range(200_000):
        pass


@pytest.fixture
def shop() -> Iterator[Shop]:
    """Tasks that take turns on one thread, two of them in spans, under a profiler."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("shop")
    spans: dict[str, set[tuple[str, str]]] = defaultdict(set)
    closing = Event()

    async def serve(work: Callable[[], None]) -> None:
        while not closing.is_set():
            with tracer.start_as_current_span(work.__name__) as span:
                context = span.get_span_context()
                ids = trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
                spans[work.__name__].add(ids)
                for _ in range(20):
                    work()
                    await asyncio.sleep(0)

    async def idle() -> None:
        while not closing.is_set():
            restock()
            await asyncio.sleep(0)

    async def open_shop() -> None:
        await asyncio.gather(serve(price), idle(), serve(search))

    registry = CollectorRegistry()
    profiler = Profiler(Settings(interval=0.005, max_overhead=1))
    profiler.add_recorder(PrometheusRecorder(profiler, registry), quick=True)
    exposure = Exposure(profiler, partial(expose, registry=registry), None, loopback=True)
    endpoint = Endpoint("127.0.0.1", 0, exposure)
    thread = Thread(target=asyncio.run, args=(open_shop(),))
    with profiler:
        thread.start()
        yield Shop(endpoint.url.removeprefix("http://"), spans)
        closing.set()
        thread.join()
    endpoint.close()


def test_from_a_metric_to_a_trace(shop: Shop, prometheus: Any) -> None:
    """Prometheus answers with spans in which a function ran, and with none for one that ran in none."""
    prometheus.scrape(shop.target)
    deadline = time.monotonic() + 60
    while not {"price", "search"} <= (found := exemplars(prometheus)).keys():
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
    assert "restock" not in found
    for function in ("price", "search"):
        assert found[function]
        assert {(labels["trace_id"], labels["span_id"]) for labels in found[function]} <= (
            shop.spans[function]
        )
    assert prometheus.query(f'{QUERY}{{function="restock", state="cpu"}} > 0')


def exemplars(prometheus: Any) -> dict[str, list[dict[str, str]]]:
    """Return the labels of all exemplars stored for functions here, by function."""
    found = defaultdict(list)
    for series, stored in prometheus.exemplars(QUERY):
        assert "cpu" == series["state"]
        for exemplar in stored:
            assert float(exemplar["value"]) > 0
            assert abs(time.time() - exemplar["timestamp"]) < 120
            if series["module"] == __name__:
                found[series["function"]].append(exemplar["labels"])
    return found
