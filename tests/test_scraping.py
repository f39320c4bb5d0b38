"""What a client makes of metrics: rates between two looks, from whatever the service says."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ox_otel._scraping import NoAnswer, Scrape, Seconds, fetch, scrape, used
from ox_otel.recorders import Function

F, G = Function("shop", "pay"), Function("shop", "look<br>")

METRICS = """
# TYPE ox_profile_seconds counter
ox_profile_seconds_total{module="shop",function="pay",state="cpu"} 3
ox_profile_seconds_total{module="shop",function="pay",state="wait"} 4
# TYPE ox_profile_self_seconds counter
ox_profile_self_seconds_total{module="shop",function="pay",state="cpu"} 1
ox_profile_self_seconds_total{module="shop",function="pay",state="wait"} 2
# TYPE ox_profile_samples counter
ox_profile_samples_total 7
# TYPE ox_profile_running gauge
ox_profile_running{pid="1"} 1
ox_profile_running{pid="2"} 1
# TYPE ox_profile_info gauge
ox_profile_info{version="1",engine="ticks",python="3.13.0"} 1
# TYPE other counter
other_total 5
"""


class Service(BaseHTTPRequestHandler):
    """Answers with our metrics to whoever has the token."""

    def do_GET(self) -> None:
        """Answer."""
        known = self.headers["Authorization"] == "Bearer " + "x" * 16
        path = "/shop/metrics"
        self.send_response(200 if known and self.path == path else 401 if not known else 404)
        self.end_headers()
        self.wfile.write(METRICS.encode() if known else b"a token\x1b[2J is needed\n")

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """The address of a service."""
    with HTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/shop"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("ending", ["", "/", "/metrics"])
def test_a_scrape(url: str, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Functions, totals and what the profiler is are read; metrics of others are left alone."""
    monkeypatch.setenv("OX_OTEL_TOKEN", "x" * 16)
    found = scrape(url + ending)
    assert {F: Seconds(1, 3, 2, 4)} == found.functions
    assert {"samples_total": 7, "running": 2} == found.totals
    assert {"version": "1", "engine": "ticks", "python": "3.13.0"} == found.about


def test_an_error_is_told_without_control_characters(url: str) -> None:
    """What a service says is not obeyed by the terminal."""
    with pytest.raises(NoAnswer, match=r"answers 401: a token\?\[2J is needed; OX_OTEL_TOKEN"):
        fetch(url, "/metrics")


@contextmanager
def hostile(reply: bytes) -> Iterator[str]:
    """Serve *reply* to one client, whatever it asks for; its address."""

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(10_000)
            connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_names_hold_no_control_characters() -> None:
    """Nor is what a service calls its functions or itself: escapes, in either form, or marks."""
    metrics = METRICS.replace("shop", "s\x1b[2J").replace("pay", "p\x9b2J\u202e")
    reply = f"HTTP/1.0 200 OK\r\n\r\n{metrics.replace('ticks', chr(27))}"
    with hostile(reply.encode()) as url:
        found = scrape(url)
    assert {Function("s?[2J", "p?2J?"): Seconds(1, 3, 2, 4)} == found.functions
    assert {"version": "1", "engine": "?", "python": "3.13.0"} == found.about


@pytest.mark.parametrize(
    "reply",
    [b"\x1b[2J", b"HTTP/1.0 500 \x1b[2J\r\n", b"HTTP/1.0 200 OK\r\n\r\nf{\x1b[2J} 1\n"],
)
def test_errors_hold_no_control_characters(reply: bytes) -> None:
    """Neither those of what is no HTTP, nor the reason of an error, nor what is no metric."""
    with hostile(reply + b"\r\n") as url, pytest.raises(NoAnswer, match=r"\?\[2J") as caught:
        scrape(url)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("path", "token"),
    [("/k\u00fcche", "x" * 16), ("/shop", "\u20ac" * 16), ("/shop", "x" * 16 + "\n")],
)
def test_what_http_does_not_take(
    url: str, monkeypatch: pytest.MonkeyPatch, path: str, token: str
) -> None:
    """An address or a token that cannot be sent is told as such, and the token is not shown."""
    monkeypatch.setenv("OX_OTEL_TOKEN", token)
    with pytest.raises(NoAnswer, match="cannot be asked: its address or OX_OTEL_TOKEN") as caught:
        scrape(url + path)
    assert token[:4] not in str(caught.value)


def test_rates() -> None:
    """What has been used is told a second; a counter that has begun anew counts from zero."""
    before = Scrape(10.0, {F: Seconds(1, 1, 5, 5)}, {}, {})
    after = Scrape(12.0, {F: Seconds(2, 3, 4, 5), G: Seconds(0, 1, 0, 0)}, {}, {})
    assert {F: Seconds(0.5, 1, 2, 0), G: Seconds(0, 0.5, 0, 0)} == used(before, after)
