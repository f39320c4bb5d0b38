"""Routes from OpenTelemetry's spans: an application that is traced needs nothing of ours."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, Tracer

from ox_otel import _server_spans, routes, tag
from ox_otel._accounts import at_hand, meter
from ox_otel._books import Books, keep, leave
from ox_otel._server_spans import SpanFollower, Spans
from ox_otel.recorders import UNMATCHED, Batch

CLOSE = 0.01
"""Seconds of CPU that a request may be off."""


def burn(seconds: float) -> None:
    """Use so many seconds of CPU."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.fixture
def books() -> Iterator[Books]:
    """Books that are kept, as while a profiler samples."""
    new = Books(limit=10, budget=1)
    keep(new)
    yield new
    leave(new)
    assert at_hand.get() is None
    assert meter().account is None


@pytest.fixture
def spans() -> Spans:
    """What makes accounts of spans."""
    return Spans()


@pytest.fixture
def tracer(spans: Spans) -> Tracer:
    """A tracer whose spans are known to us."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(spans)
    return provider.get_tracer(__name__)


def serve(tracer: Tracer, route: str | None, kind: SpanKind = SpanKind.SERVER) -> None:
    """Answer a request that is traced."""
    with tracer.start_as_current_span("request", kind=kind) as span:
        burn(0.02)
        if route is not None:
            span.set_attribute("http.route", route)


def test_a_span_of_a_server_is_a_request(books: Books, tracer: Tracer, spans: Spans) -> None:
    """Its CPU is that of the span's route, known only in the end; other spans are no requests."""
    serve(tracer, "/users/{id}")
    serve(tracer, None)
    serve(tracer, "/client", SpanKind.CLIENT)
    gains, _ = books.settle(1.0)
    assert {"/users/{id}": 1, UNMATCHED: 1} == {r: usage.requests for r, usage in gains.items()}
    for usage in gains.values():
        assert usage.cpu_seconds == pytest.approx(0.02, abs=CLOSE)
    assert {} == spans._open


def test_tasks_that_are_traced(books: Books, tracer: Tracer) -> None:
    """Requests that take turns on a loop are told apart, from the second one on."""

    async def request(n: int) -> None:
        with tracer.start_as_current_span("request", kind=SpanKind.SERVER) as span:
            span.set_attribute("http.route", f"/{n}")
            for _ in range(5):
                burn(n / 250)
                await asyncio.sleep(0)

    async def main() -> None:
        await request(0)
        await asyncio.gather(*(request(n) for n in (1, 2, 3)))

    asyncio.run(main())
    cpu = {route: usage.cpu_seconds for route, usage in books.settle(1.0)[0].items()}
    assert {"/0": 0, "/1": 0.02, "/2": 0.04, "/3": 0.06} == pytest.approx(cpu, abs=CLOSE)


def test_a_request_that_has_an_account(books: Books, tracer: Tracer) -> None:
    """Within a middleware of ours, or a tag, a span makes no second request of it."""
    with tag(route="/tagged"):
        serve(tracer, "/traced")
    assert {"/tagged": 1} == {r: usage.requests for r, usage in books.settle(1.0)[0].items()}


def test_a_middleware_within_a_span(books: Books, tracer: Tracer, spans: Spans) -> None:
    """Where tracing is the outer one, the middleware's account stands for the span's: one request."""

    def app(environ: Any, start_response: Any) -> Any:
        routes.name("/named")
        burn(0.02)
        return [b"whole"] if environ["is_whole"] else iter([b"part"])

    for is_whole in (True, False):
        with tracer.start_as_current_span("request", kind=SpanKind.SERVER):
            body = routes.Wsgi(app)({"is_whole": is_whole}, None)
            list(body)
            if not is_whole:
                body.close()  # type: ignore[attr-defined]
    [(route, usage)] = books.settle(1.0)[0].items()
    assert ("/named", 2) == (route, usage.requests)
    assert usage.cpu_seconds == pytest.approx(0.04, abs=CLOSE)
    assert ({}, {}) == (spans._open, books.open)


def test_a_middleware_on_a_loop_within_a_span(books: Books, tracer: Tracer) -> None:
    """So it is on a loop, from the first request on, and in a task that is started in between."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        routes.name("/named")
        for _ in range(2):
            burn(0.01)
            await asyncio.sleep(0)

    async def request(*, in_task: bool) -> None:
        with tracer.start_as_current_span("request", kind=SpanKind.SERVER):
            answer = routes.Asgi(app)({"type": "http"}, None, None)
            await (asyncio.create_task(answer) if in_task else answer)
        assert None is at_hand.get()

    async def main() -> None:
        await request(in_task=False)
        await request(in_task=True)

    asyncio.run(main())
    [(route, usage)] = books.settle(1.0)[0].items()
    assert ("/named", 2) == (route, usage.requests)
    assert usage.cpu_seconds == pytest.approx(0.04, abs=CLOSE)


def test_a_span_names_a_request_that_has_no_name(books: Books, tracer: Tracer) -> None:
    """A middleware that does not know the framework has the route from the span."""
    account = books.open_account(lambda: None, None)
    at_hand.set(account)
    serve(tracer, "/traced")
    at_hand.set(None)
    books.close_account(account)
    assert ["/traced"] == list(books.settle(1.0)[0])


def test_a_span_that_ends_elsewhere(books: Books, tracer: Tracer, spans: Spans) -> None:
    """A span may end in another context than it began in: no request is lost, and none goes on."""

    def begin() -> Any:
        return tracer.start_span("request", kind=SpanKind.SERVER)

    context = copy_context()
    span = context.run(begin)
    with tag(route="/other"):
        span.end()
        burn(0.02)
    serve(tracer, "/after")
    context.run(serve, tracer, "/next")
    gains, _ = books.settle(1.0)
    requests = {route: usage.requests for route, usage in gains.items()}
    assert {UNMATCHED: 1, "/other": 1, "/after": 1, "/next": 1} == requests
    assert gains["/other"].cpu_seconds == pytest.approx(0.02, abs=CLOSE)
    assert ({}, {}) == (spans._open, books.open)
    context.run(at_hand.set, None)


def test_spans_that_never_end(
    books: Books, tracer: Tracer, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that forgets to end its spans fills no memory of ours."""
    monkeypatch.setattr(_server_spans, "MOST_OPEN", 5)
    for _ in range(10):
        copy_context().run(lambda: tracer.start_span("request", kind=SpanKind.SERVER))
    assert 5 == len(spans._open) == len(books.open)
    meter().turn(None)


def test_what_is_not_recorded_is_not_seen(books: Books, spans: Spans) -> None:
    """Of requests that the host does not trace, a span processor is not told."""
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(spans)
    serve(provider.get_tracer(__name__), "/users/{id}")
    assert {} == books.settle(1.0)[0]


PROGRAM = """
import time, ox_otel
from opentelemetry import trace
def provide():
    from opentelemetry.sdk.trace import TracerProvider
    trace.set_tracer_provider(TracerProvider())
def serve():
    with trace.get_tracer("program").start_as_current_span("it", kind=trace.SpanKind.SERVER) as span:
        span.set_attribute("http.route", "/traced")
def count():
    profiler.snapshot(); serve()
    return profiler.snapshot().routes["/traced"].requests
"""


@pytest.mark.parametrize(
    "start",
    ["provide(); profiler = ox_otel.install()", "profiler = ox_otel.install(); provide()"],
    ids=["before", "after"],
)
def test_a_provider_is_found(start: str) -> None:
    """Whether the host sets its provider before `install` or later, and however often we come."""
    code = f"""{PROGRAM}
{start}
print(count())
ox_otel.uninstall()
serve()
profiler = ox_otel.install()
print(count())
print(len(trace.get_tracer_provider()._active_span_processor._span_processors))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ("1\n1\n1\n", "") == (done.stdout, done.stderr)


def test_a_provider_with_threads_for_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that calls processors elsewhere than where a span begins is not followed."""
    for processor, followed in ((None, 1), (ConcurrentMultiSpanProcessor(), 0)):
        provider = TracerProvider(active_span_processor=processor, shutdown_on_exit=False)
        monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
        SpanFollower().record(Batch())
        assert followed == len(provider._active_span_processor._span_processors)
        provider.shutdown()


CHILD = """
import os
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind
from ox_otel import tag
from ox_otel._books import Books, keep
from ox_otel._server_spans import Spans
provider, spans = TracerProvider(), Spans()
provider.add_span_processor(spans)
serve = lambda: provider.get_tracer("program").start_as_current_span("it", kind=SpanKind.SERVER)
keep(Books(10, 1))
forgotten = provider.get_tracer("program").start_span("forgotten", kind=SpanKind.SERVER)
with tag(route="/parent"):
    pid = os.fork()
    if pid == 0:
        print(len(spans._open))
        own = Books(10, 1)
        keep(own)
        with serve() as span:
            span.set_attribute("http.route", "/child")
        print({route: usage.requests for route, usage in own.settle(1.0)[0].items()}, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_is_forked_within_a_request() -> None:
    """The request is the parent's; the child's own spans are requests of the child."""
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=60)
    assert ("0\n{'/child': 1}\n", "") == (done.stdout, done.stderr)
