"""Cost by route: each request has the CPU that was used for it, whoever else has turns meanwhile."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ox_otel
from ox_otel import RouteUsage, _books, routes, tag, tagged
from ox_otel._accounts import Account, at_hand, measured, meter
from ox_otel._books import Books, keep, leave
from ox_otel._driving import Driven
from ox_otel.recorders import OTHER, UNMATCHED

CLOSE = 0.01
"""Seconds of CPU that a request may be off; what our own code takes in it counts, too."""

CLOCKS = 0.001
"""Seconds that the CPU clock of a thread may be ahead of the time that has passed.

The machine's time is slewed to that of others, by half a thousandth of it at most, and the CPU
clocks are not. What waited less than that has waited nothing.
"""


def burn(seconds: float) -> None:
    """Use so many seconds of CPU."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


async def burn_in_turns(seconds: float, turns: int = 10) -> None:
    """Use so many seconds of CPU, in several turns on the loop."""
    for _ in range(turns):
        burn(seconds / turns)
        await asyncio.sleep(0)


@pytest.fixture
def books() -> Iterator[Books]:
    """Books that are kept, as while a profiler samples."""
    new = Books(limit=10, budget=1)
    gc.collect()
    gc.disable()  # garbage of all the tests, in some request
    keep(new)
    yield new
    leave(new)
    gc.enable()
    assert at_hand.get() is None
    assert meter().account is None
    assert meter().steps == 0


def settle(books: Books) -> dict[str, RouteUsage]:
    """Return what routes have used since the last time."""
    return books.settle(1.0)[0]


def cpu(books: Books) -> dict[str, float]:
    """Return the CPU that routes have used since the last time."""
    return {route: usage.cpu_seconds for route, usage in settle(books).items()}


def near(**expected: float) -> Any:
    """Return what equals CPU seconds that are about as expected."""
    return pytest.approx({f"/{route}": seconds for route, seconds in expected.items()}, abs=CLOSE)


# --- One thread, many threads ---------------------------------------------------------------------


def test_cpu_and_wait(books: Books) -> None:
    """A request has the CPU of its thread, and as wait the rest of the time that it took."""
    before = time.monotonic()
    with tag(route="/a"):
        began = time.monotonic()
        burn(0.05)
        time.sleep(0.05)
        within = time.monotonic() - began
    around = time.monotonic() - before
    [(route, usage)] = settle(books).items()
    assert ("/a", 1) == (route, usage.requests)
    assert usage.cpu_seconds == pytest.approx(0.05, abs=CLOSE)
    assert within <= usage.cpu_seconds + usage.wait_seconds <= around


def test_the_innermost_has_the_time(books: Books) -> None:
    """Within another request, an inner one has the time, CPU and wait, and the outer one has not."""
    began = time.monotonic()
    with tag(route="/outer"):
        burn(0.02)
        with tag(route="/inner"):
            inner_began = time.monotonic()
            burn(0.04)
            time.sleep(0.1)
            within = time.monotonic() - inner_began
        burn(0.02)
    around = time.monotonic() - began
    gains = settle(books)
    assert {"/outer": 1, "/inner": 1} == {r: usage.requests for r, usage in gains.items()}
    assert near(outer=0.04, inner=0.04) == {r: usage.cpu_seconds for r, usage in gains.items()}
    inner, outer = (gains[route].cpu_seconds + gains[route].wait_seconds for route in gains)
    assert within <= inner
    assert inner + outer <= around + CLOCKS


def test_an_error_closes_the_account(books: Books) -> None:
    """A request that fails is one, too, and the error goes on."""
    with pytest.raises(ZeroDivisionError), tag(route="/a"):
        burn(0.02 / 0)
    assert {"/a": 1} == {route: usage.requests for route, usage in settle(books).items()}


def test_threads(books: Books) -> None:
    """Threads that work at once have each the CPU of its own request."""

    def work(n: int) -> None:
        for _ in range(5):
            with tag(route=f"/{n}"):
                burn(n / 500)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, (1, 2, 3, 4)))
    assert cpu(books) == pytest.approx({f"/{n}": n / 100 for n in (1, 2, 3, 4)}, abs=CLOSE)


def test_additions_of_many_threads(books: Books) -> None:
    """However often the interpreter switches between threads, no request is lost."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:

        def work(_: int) -> None:
            for _ in range(2000):
                books.close_account(books.open_account(lambda: "/a", None))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    finally:
        sys.setswitchinterval(interval)
    assert 8000 == settle(books)["/a"].requests
    assert {} == books.open


def test_a_thread_of_a_pool_works_for_the_request(books: Books) -> None:
    """In a thread to which the context was copied, a tag without a route is for the request."""

    def work() -> None:
        burn(0.02)  # for nobody
        with tag():
            burn(0.04)

    async def request() -> None:
        await asyncio.to_thread(work)

    asyncio.run(tagged(request(), route="/a"))
    assert near(a=0.04) == cpu(books)


def tagged_as(route: str) -> Iterator[None]:
    """Wait within a tag, for whoever goes on."""
    with tag(route=route):
        yield


def test_a_generator_that_ends_in_another_request(books: Books) -> None:
    """A tag that is left in the middle of another request takes nothing from it, nor does it gain."""
    left = tagged_as("/left")

    def request() -> None:
        burn(0.02)
        with tag(route="/a"):
            burn(0.02)
            left.close()
            assert measured() is not None
            burn(0.02)

    copy_context().run(next, left)
    copy_context().run(request)
    assert near(left=0.0, a=0.04) == cpu(books)


def test_generators_that_take_turns(books: Books) -> None:
    """Outside of asyncio nobody sees turns; where it shows that there were some, no CPU is guessed."""
    first, second = tagged_as("/first"), tagged_as("/second")
    contexts = [Context(), Context()]
    for context, generator in zip(contexts, (first, second), strict=True):
        context.run(next, generator)
        burn(0.02)
    contexts[0].run(next, first, None)
    contexts[1].run(next, second, None)
    assert {"/first": 0.0, "/second": pytest.approx(0.02, abs=CLOSE)} == cpu(books)


def test_a_thread_that_worked_for_nobody_does_so_again(books: Books) -> None:
    """In a thread that has a context only, what comes after a request within is nobody's."""

    def work() -> None:
        with tag(route="/inner"):
            burn(0.02)
        burn(0.05)
        with tag():
            burn(0.02)

    with tag(route="/outer"):
        thread = threading.Thread(target=copy_context().run, args=(work,))
        thread.start()
        thread.join()
    assert near(inner=0.02, outer=0.02) == cpu(books)


def test_a_tag_that_is_left_on_another_thread(books: Books) -> None:
    """Of a generator that goes on elsewhere, what the other thread did before is not its own."""

    def work() -> Iterator[None]:
        with tag():
            yield

    entered, generator = [], work()

    def enter() -> None:
        next(generator)
        entered.append(meter())

    burn(0.05)
    with tag(route="/a"):
        context = copy_context()
        thread = threading.Thread(target=context.run, args=(enter,))
        thread.start()
        thread.join()
        next(generator, None)
        burn(0.02)
    assert near(a=0.02) == cpu(books)
    assert entered[0] is not meter()


# --- Event loops ----------------------------------------------------------------------------------


def test_tasks_that_take_turns(books: Books) -> None:
    """Requests that take turns on a loop have each the CPU of its own steps."""

    async def main() -> None:
        await asyncio.gather(
            *(tagged(burn_in_turns(n / 50), route=f"/{n}") for n in (1, 2, 3, 4)),
            burn_in_turns(0.05),  # nobody's
        )

    asyncio.run(main())
    assert cpu(books) == pytest.approx({f"/{n}": n / 50 for n in (1, 2, 3, 4)}, abs=CLOSE)


def test_tasks_that_a_request_starts(books: Books) -> None:
    """What tasks do that a request starts counts for it, as long as it lasts."""
    late: list[asyncio.Task[None]] = []
    measured_late = []

    async def go_on() -> None:
        await burn_in_turns(0.02)
        measured_late.append(measured())  # or its clock would be read for ever

    async def request(n: int) -> None:
        await asyncio.gather(burn_in_turns(n / 100), burn_in_turns(n / 100))
        late.append(asyncio.create_task(go_on()))

    async def main() -> None:
        await asyncio.gather(*(tagged(request(n), route=f"/{n}") for n in (1, 2, 3)))
        await asyncio.gather(*late)

    asyncio.run(main())
    assert [None, None, None] == measured_late
    assert cpu(books) == pytest.approx({f"/{n}": n / 50 for n in (1, 2, 3)}, abs=CLOSE)


def test_a_tag_in_a_coroutine_that_is_driven(books: Books) -> None:
    """Once one has waited within a tag, tags in tasks made on its loop are true, whoever has turns."""

    async def request(n: int) -> None:
        with tag(route=f"/{n}"):
            await burn_in_turns(n / 50)

    async def main() -> None:
        with tag(route="/first"):
            await asyncio.sleep(0)
        await asyncio.gather(*(request(n) for n in (1, 2)), burn_in_turns(0.05))

    asyncio.run(main())
    gains = cpu(books)
    del gains["/first"]
    assert near(**{"1": 0.02, "2": 0.04}) == gains


def test_tasks_of_nobody_do_not_pay(books: Books) -> None:
    """A request has its own tasks driven, whatever context they are given, and no others."""

    async def kind() -> type:
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return type(task.get_coro())

    async def request() -> None:
        bare = asyncio.create_task(kind(), context=Context())
        assert Driven is await asyncio.create_task(kind())
        assert Driven is not await bare
        contexts.append(copy_context())

    async def main() -> None:
        with tag(route="/short"):
            pass
        await tagged(request(), route="/a")
        assert Driven is not await asyncio.create_task(kind())
        assert Driven is not await asyncio.create_task(kind(), context=contexts[0])  # it is over

    contexts: list[Context] = []
    asyncio.run(main())
    assert books.steps < 20


def test_a_tag_in_a_coroutine_that_is_not_driven(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nobody knows what others did meanwhile, no CPU is guessed, and it is said."""

    async def main() -> None:
        with tag(route="/short"):
            burn(0.02)
        with tag(route="/long"):
            burn(0.02)
            assert {"/short"} == set(shown := settle(books))
            assert shown["/short"].cpu_seconds == pytest.approx(0.02, abs=CLOSE)
            await asyncio.gather(asyncio.sleep(0), burn_in_turns(0.02))
        with tag(route="/short"):
            burn(0.02)

    asyncio.run(main())
    gains = settle(books)
    assert 1 == gains["/long"].requests
    assert 0 == gains["/long"].cpu_seconds == gains["/long"].wait_seconds
    assert gains["/short"].cpu_seconds == pytest.approx(0.02, abs=CLOSE)
    assert 1 == len(caplog.messages)


def test_a_loop_that_makes_tasks_of_its_own_kind(books: Books) -> None:
    """A task factory of the host's stays, and what was asked for by `tagged` is true all the same."""
    made = []

    def factory(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        await asyncio.gather(*(tagged(burn_in_turns(n / 50), route=f"/{n}") for n in (1, 2)))
        assert 2 == len(made)
        assert factory is asyncio.get_running_loop().get_task_factory()

    asyncio.run(main())
    assert near(**{"1": 0.02, "2": 0.04}) == cpu(books)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks are not eager there")
def test_an_eager_task_of_the_hosts_own_kind(books: Books) -> None:
    """It is its parent's until it waits, then no CPU is guessed; `tagged` is true there, too."""

    async def child() -> None:
        with tag(route="/child"):
            burn(0.02)
            await asyncio.sleep(0)
            burn(0.05)
        burn(0.05)

    async def parent() -> None:
        tasks = [asyncio.create_task(child()), asyncio.create_task(soon())]
        burn(0.02)
        with tag(route="/within"):
            await burn_in_turns(0.02)
        await asyncio.gather(*tasks)

    async def soon() -> None:
        await tagged(burn_in_turns(0.02), route="/soon")

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        await tagged(parent(), route="/parent")

    asyncio.run(main())
    assert near(child=0.0, parent=0.04, soon=0.02, within=0.02) == cpu(books)


@pytest.mark.parametrize("how", ["tagged", "tag"])
def test_the_loop_is_left_as_it_was(how: str) -> None:
    """When nobody samples any more, the next task finds the loop as the host made it."""
    new = Books(10, 1)
    keep(new)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if how == "tagged":
            await tagged(asyncio.sleep(0), route="/a")
        else:
            with tag(route="/a"):
                await asyncio.sleep(0)
        assert loop.get_task_factory() is not None
        leave(new)
        await asyncio.create_task(asyncio.sleep(0))
        assert loop.get_task_factory() is None

    asyncio.run(main())


def test_a_task_factory_that_calls_ours_stays() -> None:
    """When nobody samples any more, what the host has set meanwhile is not ours to take away."""
    new = Books(10, 1)
    keep(new)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await tagged(asyncio.sleep(0), route="/a")
        ours = loop.get_task_factory()
        assert ours is not None

        def factory(loop: Any, coroutine: Any, **options: Any) -> Any:
            return ours(loop, coroutine, **options)

        loop.set_task_factory(factory)
        leave(new)
        await asyncio.create_task(asyncio.sleep(0))
        assert factory is loop.get_task_factory()

    asyncio.run(main())


def test_a_driven_coroutine_is_what_it_was(books: Books) -> None:
    """Results, errors, cancellation and introspection of a driven task are those of its coroutine."""

    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError

    async def linger() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            burn(0.02)

    async def main() -> None:
        assert 42 == await tagged(answer(), route="/a")
        with pytest.raises(KeyError):
            await asyncio.create_task(fail())
        task = asyncio.create_task(linger(), name="lingering")
        await asyncio.sleep(0)
        assert ["linger"] == [frame.f_code.co_name for frame in task.get_stack()]
        assert "linger" in repr(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        unawaited = linger()
        asyncio.create_task(unawaited).cancel()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert ["/a"] == list(settle(books))


def test_a_loop_without_task_factories(books: Books, caplog: pytest.LogCaptureFixture) -> None:
    """A loop that has only what asyncio asks of one is served all the same."""

    class Loop(asyncio.SelectorEventLoop):
        def get_task_factory(self) -> Any:
            raise NotImplementedError

    async def main() -> None:
        await asyncio.gather(*(tagged(burn_in_turns(n / 50), route=f"/{n}") for n in (1, 2)))
        with tag(route="/tag"):
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
    assert near(**{"1": 0.02, "2": 0.04, "tag": 0.0}) == cpu(books)
    assert ["ox_otel"] == [record.name for record in caplog.records]


def test_what_is_no_coroutine_is_refused(books: Books) -> None:
    """To make a task of something else fails at once, as it does without us."""

    async def request() -> None:
        with pytest.raises(TypeError, match="coroutine"):
            asyncio.get_running_loop().create_task(5)  # type: ignore[arg-type]

    asyncio.run(tagged(request(), route="/a"))


class Odd(Coroutine[Any, Any, str]):
    """A coroutine of a kind of its own, as compiled ones are."""

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        """Wait for a turn of the others, then return an answer."""
        if vars(self).setdefault("waited", False):
            raise StopIteration("odd")
        self.waited = True

    def throw(self, *error: Any) -> Any:
        """Fail."""
        raise error[0]

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_coroutines_of_other_kinds(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a pool of anyio is looked for, a coroutine that we know nothing of is left alone."""
    monkeypatch.setitem(sys.modules, "anyio", asyncio)

    async def main() -> None:
        assert "odd" == await tagged(Odd(), route="/a")
        with tag(route="/b"):
            assert "odd" == await asyncio.create_task(Odd())

    asyncio.run(main())
    assert ["/a", "/b"] == list(settle(books))


class Proxy:
    """What stands for something else, and now for nothing."""

    asked = 0

    @property
    def __class__(self) -> Any:
        Proxy.asked += 1
        raise RuntimeError


class Stranger(threading.Thread):
    """A thread of a kind of its own."""

    @property
    def ident(self) -> int:
        """Fail."""
        raise RuntimeError


@pytest.mark.parametrize("kind", [Proxy, Stranger])
def test_variables_of_other_kinds(
    books: Books, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a thread is looked for, no proxy is asked, and no error of a thread is the host's."""
    monkeypatch.setitem(sys.modules, "anyio", asyncio)

    async def run_sync_in_worker_thread(variable: object) -> str:
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(done.set_result, "done")
        return await done

    assert "done" == asyncio.run(tagged(run_sync_in_worker_thread(kind()), route="/a"))
    assert 0 == Proxy.asked


def test_a_framework_that_is_not_what_we_think(books: Books) -> None:
    """An error in looking up the route of a request is no error of its host."""

    def fail() -> str:
        raise KeyError

    books.close_account(books.open_account(fail, None))
    assert [UNMATCHED] == list(settle(books))


# --- Middlewares ----------------------------------------------------------------------------------


class Rule:
    """What a framework keeps of a route."""

    def __init__(self, template: str) -> None:
        self.rule = self.path = self.route = template


class Matched:
    """What a framework keeps of a request."""

    def __init__(self, template: str) -> None:
        self.url_rule = self.resolver_match = Rule(template)


def call(app: Callable[..., Any], environ: dict[str, Any]) -> bytes:
    """Ask a WSGI application as a server does."""
    body = app(environ, lambda *response: None)
    try:
        return b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()


def test_a_wsgi_application(books: Books) -> None:
    """A request lasts until its body is closed, and takes the CPU of its parts, not of the server."""
    closed = []

    class Parts:
        def __iter__(self) -> Iterator[bytes]:
            for _ in range(2):
                burn(0.02)
                yield b"part"

        def close(self) -> None:
            closed.append(at_hand.get())
            burn(0.02)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        environ["werkzeug.request"] = Matched(environ["template"])
        start_response("200 OK", [])
        environ["werkzeug.request"] = None  # as Flask does
        burn(0.02)
        return [b"whole"] if environ["template"] == "/whole" else Parts()

    wrapped = routes.Wsgi(app)
    assert b"whole" == call(wrapped, {"template": "/whole"})
    body = wrapped({"template": "/parts"}, lambda *response: None)
    for part in body:
        burn(0.02)  # the server's
        assert b"part" == part
    body.close()
    assert [None] != closed
    gains = settle(books)
    assert {"/whole": 1, "/parts": 1} == {route: usage.requests for route, usage in gains.items()}
    assert near(whole=0.02, parts=0.08) == {r: usage.cpu_seconds for r, usage in gains.items()}


def test_an_error_of_a_wsgi_application(books: Books) -> None:
    """What went wrong reaches the server, whether it is given by its place or by its name."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        start_response("500 Oh", [], (Exception, None, None))
        start_response("501 Oh", [], exc_info=(KeyError, None, None))
        return []

    started: list[Any] = []
    routes.Wsgi(app)({}, lambda *response: started.append(response))
    oh = ("500 Oh", [], (Exception, None, None)), ("501 Oh", [], (KeyError, None, None))
    assert [("200 OK", []), *oh] == started


def test_a_body_that_a_server_does_not_close(books: Books) -> None:
    """The account of a body that is thrown away is closed, too."""
    body = routes.Wsgi(lambda environ, start: iter([b""]))({}, lambda *response: None)
    assert 1 == len(books.open)
    del body
    assert {} == books.open
    assert 1 == settle(books)[UNMATCHED].requests


def test_a_file_is_left_to_the_server(books: Books) -> None:
    """What a server sends by its own means is passed on as it is."""

    class Wrapper:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b""])

    file = Wrapper()
    app = routes.Wsgi(lambda environ, start: file)
    assert file is app({"wsgi.file_wrapper": Wrapper}, None)
    assert 1 == settle(books)[UNMATCHED].requests


def test_a_file_of_a_server_that_knows_it_by_identity(books: Books) -> None:
    """So it is where the server has a function for files (uWSGI, mod_wsgi), and for nothing else."""

    class File:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"part"])

    def wrap(file: Any, block_size: int) -> File:
        assert ("file", 4096) == (file, block_size)
        return File()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        file = environ["wsgi.file_wrapper"]("file", 4096)
        return file if environ["is_file"] else File()

    for is_file in (True, False):
        body = routes.Wsgi(app)({"wsgi.file_wrapper": wrap, "is_file": is_file}, None)
        assert is_file is (type(body) is File)
        assert [b"part"] == list(body)
        assert (0 if is_file else 1) == len(books.open)
        del body
    assert 2 == settle(books)[UNMATCHED].requests


def test_an_asgi_application(books: Books) -> None:
    """Requests that take turns are told apart; what is no request of HTTP passes through."""
    scopes = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scopes.append(scope["type"])
        if scope["type"] == "http":
            await burn_in_turns(scope["cost"] / 2)
            scope["route"] = Rule(scope["template"])
            await burn_in_turns(scope["cost"] / 2)

    async def main() -> None:
        wrapped = routes.Asgi(app)
        await wrapped({"type": "lifespan"}, None, None)
        requests = (
            {"type": "http", "cost": n / 50, "template": f"/{n}"} for n in (1, 2, 3) for _ in "ab"
        )
        await asyncio.gather(*(wrapped(scope, None, None) for scope in requests))

    asyncio.run(main())
    assert ["lifespan", *["http"] * 6] == scopes
    gains = settle(books)
    assert {f"/{n}": 2 for n in (1, 2, 3)} == {r: usage.requests for r, usage in gains.items()}
    assert near(**{"1": 0.04, "2": 0.08, "3": 0.12}) == {
        route: usage.cpu_seconds for route, usage in gains.items()
    }


def endpoint() -> None:
    """Answer a request of an older Starlette."""


class App:
    """An object with attributes, as frameworks have them."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Computed:
    """An object that runs code of the host's when it is asked for an attribute."""

    path = property(lambda self: "/computed")


@pytest.mark.parametrize(
    ("scope", "template"),
    [
        ({"route": Rule("/users/{id}")}, "/users/{id}"),
        (
            {"route": Rule("/{id}"), "fastapi": {"effective_route_context": Rule("/v1/{id}")}},
            "/v1/{id}",
        ),
        ({"route": Rule("/{id}"), "fastapi": {}}, "/{id}"),
        ({"path": "/users/4711"}, None),
        ({"route": Computed()}, None),
        ({"route": App(path=["/users"])}, None),
        (
            {
                "endpoint": endpoint,
                "router": App(
                    routes=[
                        App(path="/other", endpoint=App),
                        App(
                            path="/mounted",
                            app=App(routes=[App(path="/{id}", endpoint=endpoint)]),
                        ),
                    ]
                ),
            },
            "/mounted/{id}",
        ),
        ({"endpoint": endpoint}, None),
    ],
)
def test_templates_of_starlette(scope: dict[str, Any], template: str | None) -> None:
    """Versions of Starlette and FastAPI tell of a route in their ways; a path is never taken."""
    assert template == routes._starlette_template({"type": "http", "path": "/raw", **scope})


def test_django(books: Books) -> None:
    """Django's middleware knows the pattern of a view, for functions and for coroutines."""

    def view(request: Matched) -> str:
        burn(0.02)
        return "answer"

    async def view_soon(request: Matched) -> str:
        await burn_in_turns(0.02)
        return "answer"

    async def main() -> None:
        answer = routes.django(view_soon)
        await asyncio.gather(*(answer(Matched("/soon")) for _ in range(2)))

    assert "answer" == routes.django(view)(Matched("/now"))
    asyncio.run(main())
    gains = settle(books)
    assert {"/now": 1, "/soon": 2} == {route: usage.requests for route, usage in gains.items()}
    assert near(now=0.02, soon=0.04) == {r: usage.cpu_seconds for r, usage in gains.items()}


def test_a_route_named_by_the_application(books: Books) -> None:
    """Where the framework is not known to us, the application may say what route it has taken."""

    def app(environ: dict[str, Any], start: Any) -> list[bytes]:
        routes.name("/named")
        return []

    call(routes.Wsgi(app), {})
    routes.name("/nobody")
    assert ["/named"] == list(settle(books))


def test_middlewares_while_nobody_samples() -> None:
    """Without a profiler applications answer as if we were not there."""
    environ: dict[str, Any] = {}
    answer = [b"answer"]
    assert answer is routes.Wsgi(lambda environ, start: answer)(environ, None)
    assert "answer" == routes.django(lambda request: "answer")(None)
    with tag(route="/a"), tag():
        pass

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert None is asyncio.get_running_loop().get_task_factory()

    asyncio.run(routes.Asgi(app)({"type": "http"}, None, None))


# --- Books ----------------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.none(), st.text(max_size=3), st.integers()), max_size=40))
def test_any_names(names: list[Any]) -> None:
    """Whatever routes are called, they are bounded, and no request is lost."""
    books, counted, routes_seen = Books(5, 1), 0, set()
    for name in names:
        books.close_account(books.open_account(lambda name=name: name, None))
        gains = settle(books)
        routes_seen |= gains.keys()
        counted += sum(usage.requests for usage in gains.values())
    assert len(names) == counted
    assert len(routes_seen) <= 5


def test_ten_thousand_paths(books: Books) -> None:
    """Raw paths for routes, by mistake: their number stays bounded, and so does memory."""
    for n in range(10_000):
        with tag(route=f"/users/{n}"):
            pass
    gains = settle(books)
    assert 10 == len(gains)
    assert 10_000 == sum(usage.requests for usage in gains.values())
    assert 9_991 == gains[OTHER].requests
    assert len(books._routes) <= 10


@pytest.mark.parametrize("body", [[b""], (b"" for _ in "")], ids=["whole", "parts"])
def test_a_request_that_is_over_holds_nothing(books: Books, body: Any) -> None:
    """What goes on in its context keeps nothing of a request, nor of those that it began in."""

    class Environ(dict[str, Any]):
        """A request that can be waited for to be gone."""

    kept = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        kept.append(copy_context())
        with tag(route="/inner"):
            kept.append(copy_context())
        return body

    environ = Environ()
    gone = weakref.ref(environ)
    call(routes.Wsgi(app), environ)
    del environ
    assert gone() is None
    inner = kept[1][at_hand]
    assert inner is not None
    assert inner.outer is None


def test_names_are_made_valid(books: Books) -> None:
    """Text that no backend takes is made valid before any sees it."""
    with tag(route="/\ud800\n"):
        pass
    assert ["/\\ud800\\n"] == list(settle(books))


def test_a_name_that_brings_code_of_its_own(books: Books) -> None:
    """Names are text and nothing else: no method of the host's runs when we look one up."""

    class Odd(str):
        __slots__ = ()
        __hash__ = None  # type: ignore[assignment]

    with tag(route=Odd("/a")):
        pass
    assert ["unknown"] == list(settle(books))


def test_a_long_request_shows_while_it_runs(books: Books) -> None:
    """CPU and wait of a request under way are published, and nothing of them counts twice."""
    go, done = threading.Event(), threading.Event()

    def work() -> None:
        with tag(route="/long"):
            burn(0.05)
            done.set()
            go.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    assert done.wait(60)
    first = settle(books)["/long"]
    go.set()
    thread.join()
    second = settle(books)["/long"]
    assert (0, 1) == (first.requests, second.requests)
    if sys.platform == "linux":
        assert first.cpu_seconds == pytest.approx(0.05, abs=CLOSE)
    assert first.cpu_seconds + second.cpu_seconds == pytest.approx(0.05, abs=CLOSE)


def test_requests_that_end_at_the_same_time(books: Books) -> None:
    """One that ends where another one is being counted, on a thread of its own, takes nothing."""

    class Interrupted(Account):
        def wait(self, elapsed: int, cpu: int) -> int:
            books.close_account(other)
            return super().wait(elapsed, cpu)

    other = Account(books, lambda: "/a", None, 1)
    account = Interrupted(books, lambda: "/a", None, 1)
    time.sleep(0.02)
    books.close_account(account)
    assert 0.04 <= settle(books)["/a"].wait_seconds


def test_the_outer_request_under_way_does_not_wait_for_the_inner(books: Books) -> None:
    """While an inner request is under way, the wait is not the outer one's."""
    waited = 0.0
    began = time.monotonic()
    with tag(route="/outer"), tag(route="/inner"):
        inner_began = time.monotonic()
        time.sleep(0.1)
        waited = settle(books)["/outer"].wait_seconds
        within = time.monotonic() - inner_began
    around = time.monotonic() - began
    total = waited + settle(books)["/outer"].wait_seconds
    assert total <= around - within + CLOCKS


def test_a_request_that_is_named_anew(books: Books) -> None:
    """What has been published under one name stays there: no series decreases."""
    name = "/first"
    books.close_account(books.open_account(lambda: name, None))
    account = books.open_account(lambda: name, None)
    account.charge(2_000_000_000)
    assert 2.0 == settle(books)["/first"].cpu_seconds
    name = "/second"
    assert {"/first": 0.0, "/second": 2.0} == cpu(books)
    books.close_account(account)
    assert {"/first": 0.0, "/second": 0.0} == cpu(books)


def test_measuring_keeps_its_budget() -> None:
    """Where it would cost too much, some requests stand for the others: sums stay true."""
    books = Books(10, 0.001)
    keep(books)
    try:
        for _ in range(1000):
            with tag(route="/a"):
                pass
        books.settle(0.5)
        weight = books._weight
        began = time.thread_time()
        for _ in range(200 * weight):
            with tag(route="/b"):
                burn(0.0002)
        spent = time.thread_time() - began
        charges = books.charges
    finally:
        leave(books)
    usage = settle(books)["/b"]
    assert weight > 2
    assert 200 * weight == usage.requests
    assert 100 < charges < 400
    assert 0.5 * spent < usage.cpu_seconds < 1.5 * spent


def test_what_a_long_request_costs_is_told_while_it_runs(books: Books) -> None:
    """The charges of a stream count when they are made, not in one heap when it is over."""
    with tag(route="/stream"):
        for _ in range(100):
            with tag():
                meter().turn(None)
        assert 100 <= books.charges
        assert books.settle(1.0)[1] > 0
    assert books.charges < 10


def test_frequent_scrapes_set_no_weights() -> None:
    """How many requests are measured is decided by half a second of them, never by a moment."""
    books = Books(10, 0.001)
    for _ in range(4):
        books.charges = 1000
        books.settle(0.1)
        assert 1 == books._weight
    books.settle(0.1)
    assert books._weight > 2
    books.settle(1.0)
    assert 1 == books._weight


def test_what_measuring_costs_is_told(books: Books) -> None:
    """The cost that is published is about what the calling thread has spent."""
    shares = []
    for _ in range(5):  # what is measured once for all is small, and may have met an interrupt
        _books._costs.cache_clear()
        _books._costs()
        began = time.thread_time()
        for _ in range(5000):
            with tag(route="/a"):
                pass
        spent = time.thread_time() - began
        _, cost = books.settle(1.0)
        shares.append(cost / spent)
    assert 0.2 < median(shares) < 2


def test_steps_for_nobody_are_told(books: Books) -> None:
    """Tasks that are driven and serve no request cost something, which is published, too."""

    async def main() -> None:
        with tag(route="/a"):
            await asyncio.sleep(0)
        await asyncio.create_task(burn_in_turns(0.0, turns=1000))

    asyncio.run(main())
    assert 1000 <= books.steps < 1100
    turn, account = _books._costs()
    assert 100 * turn < books.settle(1.0)[1] - account


CHILD = """
import os, sys, time
from ox_otel import tag
from ox_otel._books import Books, books, keep
own = Books(10, 1)
keep(own)
end = time.thread_time() + 0.05
while time.thread_time() < end: pass
with tag(route="/parent"):
    pid = os.fork()
    if pid == 0:
        print(books())
        own = Books(10, 1)
        keep(own)
        with tag(route="/child"):
            end = time.thread_time() + 0.02
            while time.thread_time() < end: pass
            under_way = own.settle(1.0)[0]["/child"].cpu_seconds
if pid == 0:
    [(route, usage)] = own.settle(1.0)[0].items()
    total = under_way + usage.cpu_seconds
    print(route, usage.requests, 0.02 <= total < 0.04, under_way > 0 or sys.platform != "linux")
    sys.stdout.flush()
    os._exit(0)
os.waitpid(pid, 0)
print(list(own.settle(1.0)[0]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_begins_with_nothing() -> None:
    """A request under way in a parent is the parent's; the child counts its own."""
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=60)
    assert ("None\n/child 1 True True\n['/parent']\n", "") == (done.stdout, done.stderr)


def test_switched_off() -> None:
    """Where nobody wants it, nothing is counted or changed, and routes take no series."""
    settings = ox_otel.Settings(interval=0.005, routes=False, tree="off")
    with ox_otel.Profiler(settings) as profiler:
        assert (328, 0, 0) == profiler.places
        while not profiler.status().samples:
            time.sleep(0.001)
        assert None is _books.books()


def test_routes_of_a_running_profiler() -> None:
    """A profiler that samples publishes routes; paused it keeps no accounts."""
    with ox_otel.Profiler(ox_otel.Settings(interval=0.005)) as profiler:
        while not profiler.status().samples:
            time.sleep(0.001)
        with tag(route="/a"):
            burn(0.02)
        assert 1 == profiler.snapshot().routes["/a"].requests
        assert profiler.status().series > 0
        profiler.pause()
        while _books.books() is not None:
            time.sleep(0.001)
        with tag(route="/b"):
            pass
        assert ["/a"] == list(profiler.snapshot().routes)
