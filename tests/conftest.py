"""What holds for every test: it finds nothing of ours in the process, and leaves nothing."""

import os
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NamedTuple

import hypothesis
import pytest
from prometheus_client import REGISTRY

import ox_otel
from ox_otel import _notices
from ox_otel._native import own_idents

# what programs of the tests write to stderr is compared, on old releases of Python too
os.environ.setdefault("PYTHONWARNINGS", "ignore:ox_otel:RuntimeWarning")

# what a noisy machine takes for an example says nothing about it
hypothesis.settings.register_profile("ox_otel", deadline=None)
hypothesis.settings.load_profile("ox_otel")


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
def receiver() -> Iterator[Receiver]:
    """A collector that takes everything, until it is told otherwise."""
    receiver = Receiver()
    yield receiver
    receiver.close()
