"""The ASGI application: what a server says and what it is told, and that its loop goes on."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from asking import BEARER, Answer, answered, by_asgi, scope, tell
from prometheus_client import REGISTRY

import ox_otel
import ox_otel.asgi
from ox_otel._native import Worker
from ox_otel.asgi import MAX_ANSWERS
from ox_otel.http import MAX_BODY

DISCONNECT = {"type": "http.disconnect"}


@pytest.fixture(autouse=True)
def _no_threads() -> Iterator[None]:
    """Wait for the threads of a test, which end a moment after the answers that they make."""
    yield
    wait_for(all_are_done)


def all_are_done() -> bool:
    """Return whether no answer is being made any more."""
    return not any(worker.alive() for worker in ox_otel.asgi._workers)


def wait_for(look: Callable[[], bool]) -> None:
    """Wait until *look* returns true."""
    deadline = time.monotonic() + 30
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.001)


async def see(look: Callable[[], bool]) -> None:
    """Let the loop run until *look* returns true."""
    deadline = time.monotonic() + 30
    while not look():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


class Slow:
    """A collector of the host that takes until it is released."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.released = threading.Event()
        self.was_released = False
        self.cpu_seconds = 0.0

    def describe(self) -> list[object]:
        """Name nothing."""
        return []

    def collect(self) -> list[object]:
        """Use some CPU, and wait."""
        end = time.thread_time() + self.cpu_seconds
        while time.thread_time() < end:
            sum(range(1000))
        self.begun.release()
        self.was_released = self.released.wait(20)
        return []


@pytest.fixture
def slow(guarded: ox_otel.Profiler) -> Iterator[Slow]:
    """A collector that holds up every scrape."""
    slow = Slow()
    REGISTRY.register(slow)
    yield slow
    slow.released.set()
    REGISTRY.unregister(slow)


def test_a_header_that_comes_twice(guarded: ox_otel.Profiler) -> None:
    """Two tokens are none, however they are written."""
    twice = scope(**BEARER)
    twice["headers"].append((b"Authorization", BEARER["authorization"].encode()))

    assert 401 == asyncio.run(answered(ox_otel.asgi.app(), twice)).status


PATHS = {
    # root_path, path: as the server is asked for the root, with the prefix and its end
    ("", "/"): 200,
    ("", ""): 200,
    ("/", "/"): 200,
    ("/ox_otel", "/ox_otel/"): 200,
    ("/ox_otel", "/ox_otel"): 308,
    ("/shop/ox_otel", "/shop/ox_otel/"): 200,
    ("/ox_otel", "/"): 200,  # a server that has taken the prefix off
    ("/ox_otel", "/ox_otel/ox_otel/"): 404,
    ("/ox_otel", "/ox_otels/"): 404,
    ("/ox_otel", "/ox_oteld"): 404,
}


@pytest.mark.parametrize(("where", "status"), PATHS.items())
def test_the_prefix(guarded: ox_otel.Profiler, where: tuple[str, str], status: int) -> None:
    """It is taken off once, whole, wherever the server leaves it; the root ends with a slash."""
    prefix, path = where
    request = {**scope(**BEARER), "root_path": prefix, "path": path}
    answer = asyncio.run(answered(ox_otel.asgi.app(), request))

    assert status == answer.status
    assert (status == 308) == ("./ox_otel/" == answer.headers.get("location"))


def test_a_form(guarded: ox_otel.Profiler) -> None:
    """The body of a request may come in parts."""
    request = scope("/interval", "POST", **BEARER)
    answer = asyncio.run(answered(ox_otel.asgi.app(), request, b"seco", b"", b"nds=0.5"))

    assert 0.5 == json.loads(answer.body)["interval"]


def test_a_body_that_is_too_long(guarded: ox_otel.Profiler) -> None:
    """It is refused as soon as it is: the rest need not come."""
    request = scope("/interval", "POST", **BEARER)
    part = {"type": "http.request", "body": b"x" * MAX_BODY, "more_body": True}
    start, _ = asyncio.run(tell(ox_otel.asgi.app(), request, part, part))

    assert 413 == start["status"]


def test_the_loop_goes_on(slow: Slow) -> None:
    """While an answer is made that takes its time, the loop runs other tasks, on its own thread."""

    async def beat() -> Answer:
        request = asyncio.create_task(answered(ox_otel.asgi.app(), scope("/metrics")))
        await see(lambda: slow.begun.acquire(blocking=False))
        slow.released.set()  # the loop does this while the answer waits for it
        return await request

    assert 200 == asyncio.run(beat()).status
    assert slow.was_released


def test_more_requests_than_are_answered(slow: Slow) -> None:
    """Answers take so many threads of ours and no more; who is too many is told so at once."""

    async def storm() -> list[int]:
        app = ox_otel.asgi.app()
        first = [asyncio.create_task(answered(app, scope("/metrics"))) for _ in range(MAX_ANSWERS)]
        await asyncio.sleep(0)
        one_more = await answered(app, scope("/metrics"))
        slow.released.set()
        return [one_more.status, *[(await request).status for request in first]]

    assert [429, *[200] * MAX_ANSWERS] == asyncio.run(storm())


def test_a_client_that_goes(slow: Slow) -> None:
    """Whoever has gone keeps no task waiting, and is sent nothing."""
    request = scope("/metrics")
    app = ox_otel.asgi.app()

    assert [] == asyncio.run(tell(app, request, {"type": "http.request"}, DISCONNECT))
    assert [] == asyncio.run(tell(app, request, DISCONNECT))


def test_a_capture_for_a_client_that_goes(guarded: ox_otel.Profiler) -> None:
    """What takes long is given up soon after nobody waits for it any more."""
    request = {**scope("/profile", **BEARER), "query_string": b"format=collapsed&seconds=60"}

    async def leave() -> None:
        waiting = asyncio.create_task(tell(ox_otel.asgi.app(), request, {"type": "http.request"}))
        await see(lambda: not all_are_done())
        waiting.cancel()

    asyncio.run(leave())
    began = time.monotonic()
    wait_for(all_are_done)
    assert time.monotonic() - began < 20


def test_a_client_that_goes_while_it_is_answered(guarded: ox_otel.Profiler) -> None:
    """That a server cannot send any more is no error of ours."""

    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    async def send(_: object) -> None:
        raise BrokenPipeError

    asyncio.run(ox_otel.asgi.app()(scope(), receive, send))


def test_a_body_that_is_told_again_and_again(guarded: ox_otel.Profiler) -> None:
    """Applications may show a body that they have read once more; nobody spins over it."""
    asked = 0

    async def receive() -> dict[str, object]:
        nonlocal asked
        asked += 1
        assert asked < 100
        return {"type": "http.request"}

    async def send(_: object) -> None:
        pass

    asyncio.run(ox_otel.asgi.app()(scope(**BEARER), receive, send))
    assert asked >= 2


def test_a_request_that_the_server_cancels(slow: Slow) -> None:
    """It ends at once, and its answer, when it comes, disturbs nobody."""
    complaints: list[object] = []

    async def cancel() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        said = {"type": "http.request"}
        request = asyncio.create_task(tell(ox_otel.asgi.app(), scope("/metrics"), said, said))
        await see(lambda: slow.begun.acquire(blocking=False))
        await asyncio.sleep(0.01)  # until nothing but the answer is waited for
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        slow.released.set()
        await see(all_are_done)
        await asyncio.sleep(0.01)

    asyncio.run(cancel())
    assert [] == complaints


def test_a_loop_that_is_closed_before_the_answer_is_made(
    slow: Slow, capfd: pytest.CaptureFixture[str]
) -> None:
    """A thread of ours that finds nobody to give an answer to ends without a word."""
    asyncio.run(tell(ox_otel.asgi.app(), scope("/metrics"), {"type": "http.request"}, DISCONNECT))
    slow.released.set()
    wait_for(all_are_done)

    assert "" == capfd.readouterr().err


AT_THE_END = """
import asyncio, os, time
import ox_otel, ox_otel.asgi
from prometheus_client import REGISTRY

class Slow:
    def describe(self):
        return []

    def collect(self):
        time.sleep(0.1)
        os.write(1, b"made")
        return []

async def receive():
    return {"type": "http.request"} if not asked and not asked.append(1) else leave

async def send(message):
    pass

asked, leave = [], {"type": "http.disconnect"}
ox_otel.install()
REGISTRY.register(Slow())
scope = {"type": "http", "method": "GET", "path": "/metrics", "query_string": b"", "headers": []}
asyncio.run(ox_otel.asgi.app()(scope, receive, send))
"""


def test_answers_that_are_being_made_when_the_interpreter_ends() -> None:
    """They are waited for, a second at the most: no thread of ours is there when it goes."""
    done = subprocess.run([sys.executable, "-c", AT_THE_END], capture_output=True, timeout=60)

    assert (0, b"made", b"") == (done.returncode, done.stdout, done.stderr)


def test_loops_on_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that one begins while another counts those that there are is forgotten by none."""
    ended, released, between = threading.Event(), threading.Event(), []

    def begin(work: Callable[[], object]) -> None:
        assert ox_otel.asgi._employ(work)

    class Interrupted(Worker):
        """Another loop has its turn when this one is looked at."""

        def alive(self) -> bool:
            while between:
                loop = threading.Thread(target=between.pop())
                loop.start()
                loop.join()
            return super().alive()

    begin(ended.wait)
    monkeypatch.setattr("ox_otel.asgi.Worker", Interrupted)
    begin(released.wait)
    ended.set()
    [first] = [one for one in ox_otel.asgi._workers if not isinstance(one, Interrupted)]
    assert first.join(30)
    between.append(lambda: begin(released.wait))
    begin(released.wait)

    alive = sum(worker.alive() for worker in ox_otel.asgi._workers)
    released.set()
    assert 3 == alive


def test_no_thread_to_be_had(guarded: ox_otel.Profiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is as if there were too many requests."""

    def none(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("ox_otel.asgi.Worker", none)
    assert 429 == by_asgi(ox_otel.asgi.app(), **BEARER).status


def test_a_collector_that_wants_to_exit(
    guarded: ox_otel.Profiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is raised where an answer is made, there is one."""

    def leave(*_: object, **__: object) -> None:
        raise SystemExit

    monkeypatch.setattr("ox_otel.asgi.answer", leave)
    assert 500 == by_asgi(ox_otel.asgi.app(), **BEARER).status


def test_what_answers_cost_is_published(slow: Slow, guarded: ox_otel.Profiler) -> None:
    """The CPU of our threads is part of the overhead, whatever it was used for."""
    slow.released.set()
    slow.cpu_seconds = 0.5
    guarded.pause()
    by_asgi(ox_otel.asgi.app(), "/metrics")
    wait_for(all_are_done)

    assert 0.5 <= guarded.snapshot().overhead_seconds


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # as they are here
def test_a_child_forked_while_answers_are_made(slow: Slow) -> None:
    """What its parent was at does not count as its own."""

    async def fork() -> int:
        app = ox_otel.asgi.app()
        requests = [
            asyncio.create_task(answered(app, scope("/metrics"))) for _ in range(MAX_ANSWERS)
        ]
        await asyncio.sleep(0)
        pid = os.fork()
        if not pid:
            os._exit(len(ox_otel.asgi._workers))
        slow.released.set()
        await asyncio.gather(*requests)
        return pid

    _, status = os.waitpid(asyncio.run(fork()), 0)
    assert 0 == os.waitstatus_to_exitcode(status)


def test_a_server_of_its_own() -> None:
    """Run by itself, it follows the server's life."""
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    told = asyncio.run(tell(ox_otel.asgi.app(), {"type": "lifespan"}, *events))

    assert ["lifespan.startup.complete", "lifespan.shutdown.complete"] == [
        message["type"] for message in told
    ]


def test_no_sockets_are_served() -> None:
    """A handshake of a web socket is refused; what nobody knows yet is an error."""
    told = asyncio.run(
        tell(ox_otel.asgi.app(), {"type": "websocket"}, {"type": "websocket.connect"})
    )

    assert [{"type": "websocket.close"}] == told
    with pytest.raises(ValueError, match="telepathy"):
        asyncio.run(tell(ox_otel.asgi.app(), {"type": "telepathy"}))
