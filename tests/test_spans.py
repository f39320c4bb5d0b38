"""Whose span is current on another thread: true for threads, pools, tasks and greenlets, or none."""

import _thread
import asyncio
import contextvars
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import attach
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from ox_otel import Batch, Exemplar, Function, Profiler, Settings, Usage, _spans, _threads
from ox_otel._spans import Span, span_of
from ox_otel.recorders import REST

TRACER = TracerProvider(shutdown_on_exit=False).get_tracer("tests")
UNSAMPLED = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False).get_tracer("tests")


def seen(act: Callable[[Callable[[], None]], None]) -> list[tuple[int, int] | None]:
    """Return the spans seen on a thread that runs *act*, at each call of the function it is given.

    We look while the thread waits within that call.
    """
    spans = []
    here, looked = threading.Semaphore(0), threading.Semaphore(0)
    ended = False

    def look() -> None:
        here.release()
        looked.acquire()

    def run() -> None:
        nonlocal ended
        try:
            act(look)
        finally:
            ended = True
            here.release()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while here.acquire() and not ended:
            span = span_of(thread.ident)
            spans.append(span and (span.trace_id, span.span_id))
            looked.release()
    finally:
        looked.release(1000)  # should we have failed
        thread.join()
    return spans


def ids(span: Any) -> tuple[int, int]:
    """Return the numbers of a span."""
    context = span.get_span_context()
    return context.trace_id, context.span_id


def test_the_innermost_span_that_is_current() -> None:
    """Spans are seen as they become current, and no more when they end."""
    expected: list[tuple[int, int] | None] = []

    def act(look: Callable[[], None]) -> None:
        look()
        with TRACER.start_as_current_span("outer") as outer:
            look()
            with TRACER.start_as_current_span("inner") as inner:
                look()
            look()
        look()
        expected.extend([None, ids(outer), ids(inner), ids(outer), None])

    found = seen(act)
    assert expected == found


def test_a_span_that_was_only_started() -> None:
    """A span that nobody made current is not that of the thread, nor is one made current elsewhere."""

    def act(look: Callable[[], None]) -> None:
        span = TRACER.start_span("started")
        look()
        contextvars.copy_context().run(attach, trace.set_span_in_context(span))
        look()

    with trace.use_span(TRACER.start_span("of another thread")):
        assert [None, None] == seen(act)


def test_a_span_that_is_not_sampled() -> None:
    """Whoever looks for a trace that is not kept would find nothing."""

    def act(look: Callable[[], None]) -> None:
        with UNSAMPLED.start_as_current_span("unsampled"):
            look()

    assert [None] == seen(act)


def test_a_pool_that_runs_in_the_context_of_its_caller() -> None:
    """Where a context is handed to another thread, so is the span: as asyncio's `to_thread` does."""
    expected = []

    def act(look: Callable[[], None]) -> None:
        with TRACER.start_as_current_span("handed over") as span:
            expected.append(ids(span))
            context = contextvars.copy_context()
        look()
        context.run(look)

    found = seen(act)
    assert [None, *expected] == found


def test_tasks_that_take_turns() -> None:
    """On one thread, each task of asyncio has its own span, whatever the others have started."""
    expected = []

    def act(look: Callable[[], None]) -> None:
        async def work(name: str) -> None:
            with TRACER.start_as_current_span(name) as span:
                for _ in range(3):
                    expected.append(ids(span))
                    look()
                    await asyncio.sleep(0)

        async def bare() -> None:
            for _ in range(3):
                expected.append(None)
                look()
                await asyncio.sleep(0)

        async def main() -> None:
            await asyncio.gather(work("left"), bare(), work("right"))

        asyncio.run(main())

    found = seen(act)
    assert expected == found
    assert 3 == len(set(expected)) == len(expected[:3])


def test_a_remote_parent() -> None:
    """What came with a request is current too, before there is a span of one's own."""
    remote = trace.SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=trace.TraceFlags(1))

    def act(look: Callable[[], None]) -> None:
        with trace.use_span(trace.NonRecordingSpan(remote)):
            look()

    assert [(0xABC, 0xDEF)] == seen(act)


def test_code_of_others_is_not_run() -> None:
    """A span of somebody else's class is not asked for anything."""
    asked = []

    class Mine(SdkSpan):
        def get_span_context(self) -> Any:
            asked.append(threading.get_ident())
            return super().get_span_context()

    context = trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(1))

    def act(look: Callable[[], None]) -> None:
        with trace.use_span(Mine("mine", context)):
            look()

    assert [None] == seen(act)
    assert threading.get_ident() not in asked


def test_spans_of_the_host_are_let_go_of() -> None:
    """Nothing that was seen is kept, and the context of the thread is what it was."""

    def act(look: Callable[[], None]) -> None:
        with TRACER.start_as_current_span("counted") as span:
            look()
            before = sys.getrefcount(span), sys.getrefcount(contextvars.copy_context())
            for _ in range(100):
                look()
            counts.append(
                (before, (sys.getrefcount(span), sys.getrefcount(contextvars.copy_context())))
            )

    counts: list[Any] = []
    seen(act)
    [(before, after)] = counts
    assert before == after


def test_threads_that_do_not_exist() -> None:
    """Who has ended, or never was, has no span."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert span_of(thread.ident or 0) is None
    assert span_of(0) is None


def test_a_thread_that_creates_others() -> None:
    """It is not taken for one of these, which bear its ident in 3.11 until they come to run."""
    with TRACER.start_as_current_span("creating") as span:
        found = set()
        for _ in range(2000):
            _thread.start_new_thread(int, ())
            seen_now = span_of(threading.get_ident())
            found.add(seen_now and (seen_now.trace_id, seen_now.span_id))

    assert {ids(span)} == found


def test_without_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody has imported OpenTelemetry's API no context is looked for, nor anything imported."""
    asked: list[int] = []
    monkeypatch.setattr(_spans, "context_of", asked.append)
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    with TRACER.start_as_current_span("unseen"):
        assert span_of(threading.get_ident()) is None
    assert "opentelemetry.trace" not in sys.modules
    assert [] == asked


WITHOUT = """
import sys, threading
sys.modules["ox_otel._context"] = None
from ox_otel._spans import span_of
from opentelemetry.sdk.trace import TracerProvider
with TracerProvider().get_tracer("tests").start_as_current_span("unseen"):
    print(span_of(threading.get_ident()))
"""


def test_without_the_extension() -> None:
    """An installation that has no extension knows of no span, and works."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert ("None\n", "") == (done.stdout, done.stderr)


@contextmanager
def profiled(engine: str = "threads") -> Iterator[tuple[Profiler, list[Batch]]]:
    """A profiler that samples often, and the batches it makes."""
    batches: list[Batch] = []

    class Keeper:
        def record(self, batch: Batch) -> None:
            batches.append(batch)

    profiler = Profiler(Settings(engine=engine, interval=0.002, max_overhead=1))
    profiler.add_recorder(Keeper(), quick=True)
    with profiler:
        yield profiler, batches


def spin(seconds: float = 0.02) -> None:
    """Use so much CPU."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        for _ in range(1000):
            pass


def spin_left() -> None:
    """Use CPU in a loop of this very function."""
    for _ in range(300_000):
        pass


def spin_right() -> None:
    """Use CPU in a loop of this very function."""
    for _ in range(300_000):
        pass


def exemplars(batches: list[Batch], name: str) -> list[tuple[Batch, Exemplar]]:
    """Return the exemplars of one function here, with their batches."""
    function = Function(__name__, name)
    return [(batch, batch.exemplars[function]) for batch in batches if function in batch.exemplars]


@pytest.mark.parametrize("engine", ["threads", "ticks"])
def test_each_function_has_the_span_it_ran_in(engine: str) -> None:
    """Of tasks that take turns on one thread, what each runs has exemplars of its own span only."""
    spans: dict[str, str] = {}

    async def work(name: str, act: Callable[[], None]) -> None:
        with TRACER.start_as_current_span(name) as span:
            spans[name] = trace.format_span_id(span.get_span_context().span_id)
            traces.add(trace.format_trace_id(span.get_span_context().trace_id))
            while not all(exemplars(batches, one) for one in ("spin_left", "spin_right")):
                assert time.monotonic() < deadline
                act()
                profiler.snapshot()  # which makes a batch
                await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(work("spin_left", spin_left), work("spin_right", spin_right))

    traces: set[str] = set()
    deadline = time.monotonic() + 60
    began = time.time()
    with profiled(engine) as (profiler, batches):
        asyncio.run(main())
    assert engine == profiler.status().engine
    for name in ("spin_left", "spin_right"):
        for batch, exemplar in exemplars(batches, name):
            assert spans[name] == exemplar.span_id
            assert exemplar.trace_id in traces
            gained = batch.functions[Function(__name__, name)].self_cpu_seconds
            assert gained == exemplar.cpu_seconds > 0
            assert began - 1 <= exemplar.seen_at <= time.time() + 1


def test_who_waits_is_no_example_of_cpu() -> None:
    """A thread that is seen waiting in a span leaves no exemplar: its CPU is not there."""
    inside, leave = threading.Event(), threading.Event()

    def wait() -> None:
        with TRACER.start_as_current_span("waiting"):
            inside.set()
            leave.wait()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(wait)
        inside.wait()
        with profiled() as (profiler, batches):
            for _ in range(5):
                spin()
                profiler.snapshot()
        leave.set()
    assert {} == {f: e for batch in batches for f, e in batch.exemplars.items()}


def test_a_function_that_gained_no_cpu() -> None:
    """Seen running is not enough: where ticks tell the CPU, none may have come."""
    functions = {REST: Usage(5, 5, cpu_seconds=0.5, wait_seconds=0.5, self_wait_seconds=0.5)}
    pipeline = Profiler(Settings())._pipeline
    assert {} == pipeline._exemplars({Function("shop", "hot"): Span(1, 2, 3.0)}, functions)


def test_a_look_that_took_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the GIL may have been lost between stack and span, these need not belong together."""
    monkeypatch.setattr(_threads, "TOO_LONG", -1)
    with profiled() as (profiler, batches), TRACER.start_as_current_span("late"):
        deadline = time.monotonic() + 60
        while not any(Function(__name__, "spin") in batch.functions for batch in batches):
            assert time.monotonic() < deadline
            spin()
            profiler.snapshot()
    assert [] == exemplars(batches, "spin")
