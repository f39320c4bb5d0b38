"""What holds for every test: it finds nothing of ours in the process, and leaves nothing.

And what tests of all kinds need: programs, ports, a collector, requests.
"""

import os
import random
import shutil
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import NamedTuple

import hypothesis
import pytest
from asking import TOKEN
from prometheus_client import REGISTRY

import ox_otel
from ox_otel import _notices
from ox_otel._native import own_idents

# what programs of the tests write to stderr is compared, on old releases of Python too
os.environ.setdefault("PYTHONWARNINGS", "ignore:ox_otel:RuntimeWarning")

# what a noisy machine takes for an example says nothing about it
hypothesis.settings.register_profile(
    "ox_otel", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("ox_otel")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why a test was run again, though it has passed then."""
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.write_sep("_", f"run again: {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)


@pytest.fixture(autouse=True)
def _no_traces() -> Iterator[None]:
    """Fail a test that leaves a profiler, thread or collector, or touches the switch interval."""
    switch_interval = sys.getswitchinterval()
    _notices._told.clear()  # what an earlier test has had logged is news to this one
    assert [] == _traces()
    yield
    found = _traces()
    ox_otel.uninstall()  # so that only the test at fault fails
    assert [] == found
    assert switch_interval == sys.getswitchinterval()


def _traces() -> list[object]:
    """Return what there is of ours in this process."""
    return [
        *filter(None, [ox_otel.get()]),
        *own_idents,
        *(name for name in REGISTRY._names_to_collectors if name.startswith("ox_profile")),
    ]


class Sent(NamedTuple):
    """What a receiver was sent."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """A server on loopback that keeps what is sent and answers as it is told."""

    def __init__(self) -> None:
        self.requests: list[Sent] = []
        self.status, self.headers, self.answer = 200, dict[str, str](), b""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append(Sent(self.path, headers, body))
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(receiver.answer)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[ox_otel.Profiler]:
    """The installed profiler, with a token."""
    monkeypatch.setenv("OX_OTEL_TOKEN", TOKEN)
    yield ox_otel.install(max_overhead=1)
    ox_otel.uninstall()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A collector that takes everything, until it is told otherwise."""
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def installed() -> Callable[[str], str]:
    """What returns the path of a program; without it tests are skipped, but in CI they fail."""

    def installed(program: str) -> str:
        path = shutil.which(program)
        if path is None:
            missing = f"{program} is not installed"
            pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
        return path

    return installed


@pytest.fixture(scope="session")
def free_port() -> Iterator[Callable[[], int]]:
    """What returns a port on 127.0.0.1 that nothing listens on, another one each time.

    It is ours for as long as the tests run: a UDP socket of the same number keeps it from all other
    tests, those of processes beside this one too, and no outgoing connection is given one of these.
    """
    with ExitStack() as claims:

        def free_port() -> int:
            while True:
                port = random.randrange(10_000, 30_000)
                claim = socket.socket(type=socket.SOCK_DGRAM)
                try:
                    claim.bind(("127.0.0.1", port))
                    socket.create_server(("127.0.0.1", port)).close()
                except OSError:
                    claim.close()
                else:
                    claims.enter_context(claim)
                    return port

        yield free_port


@pytest.fixture(scope="session")
def free_ports(free_port: Callable[[], int]) -> Iterator[Callable[[int], int]]:
    """What returns the first of so many such ports in a row, all of which are ours."""
    with ExitStack() as claims:

        def free_ports(count: int) -> int:
            while True:
                first = free_port()
                with suppress(OSError), ExitStack() as more:
                    for port in range(first + 1, first + count):
                        claim = more.enter_context(socket.socket(type=socket.SOCK_DGRAM))
                        claim.bind(("127.0.0.1", port))
                        socket.create_server(("127.0.0.1", port)).close()
                    claims.enter_context(more.pop_all())
                    return first

        yield free_ports


@pytest.fixture(scope="session")
def load() -> Callable[..., AbstractContextManager[list[str]]]:
    """What sends requests to an address while a block runs; it yields their answers, which grow.

    An error is an answer too, but for those of a server that is *starting*, before its first answer.
    """

    @contextmanager
    def load(url: str, *, starting: bool = False) -> Iterator[list[str]]:
        answers: list[str] = []
        over = Event()

        def client() -> None:
            while not over.wait(0.02):
                counts = not starting or bool(answers)
                try:
                    with urllib.request.urlopen(url, timeout=60) as answer:
                        answers.append(str(answer.read().decode()))
                except (OSError, HTTPException) as error:
                    if counts:
                        answers.append(str(error))

        clients = [Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        try:
            yield answers
        finally:
            over.set()
            for thread in clients:
                thread.join()

    return load
