"""The collector that variables name: where, with what, and what its answers mean."""

import gzip
import socket
import time
from email.utils import formatdate
from typing import Any

import pytest

from ox_otel._collector import MAX_ANSWER, Collector, Refused


def environ(**variables: str) -> dict[str, str]:
    """Return variables of the SDK's exporters."""
    return {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()}


@pytest.mark.parametrize(
    ("of_all", "of_profiles", "path"),
    [
        ("{url}", "", "/v1development/profiles"),
        ("{url}/", "", "/v1development/profiles"),
        ("{url}/otlp", "", "/otlp/v1development/profiles"),
        ("http://x", "{url}/p?a=b", "/p?a=b"),
    ],
)
def test_where_it_is(receiver: Any, of_all: str, of_profiles: str, path: str) -> None:
    """The endpoint of all signals gets the path of profiles; that of profiles is taken as it is."""
    receiver.answer = b"taken"
    all_signals, profiles = of_all.format(url=receiver.url), of_profiles.format(url=receiver.url)
    collector = Collector(environ(ENDPOINT=all_signals, PROFILES_ENDPOINT=profiles))
    assert b"taken" == collector.post(b"profile")
    [request] = receiver.requests
    assert (path, b"profile") == (request.path, request.body)
    assert "application/x-protobuf" == request.headers["content-type"]


def test_where_it_is_by_default() -> None:
    """Without variables it is the collector of this machine."""
    assert "localhost:4318" == Collector({}).address


@pytest.mark.parametrize(
    "endpoint", ["nonsense", "ftp://host", "http://", "http://host:nonsense", "unix:///path"]
)
def test_an_address_that_is_none(endpoint: str) -> None:
    """What is no address is refused at once, and not repeated, since it may hold secrets."""
    with pytest.raises(ValueError) as refused:
        Collector(environ(ENDPOINT=endpoint))
    assert "http://host" not in str(refused.value)


def test_headers(receiver: Any) -> None:
    """Headers of the variables are sent, those for profiles before those for all signals."""
    variables = environ(
        ENDPOINT=receiver.url, HEADERS="authorization=Basic%20abc", PROFILES_HEADERS="x-scope=7,y=z"
    )
    Collector(variables).post(b"")
    assert ("7", "z") == (
        receiver.requests[0].headers["x-scope"],
        receiver.requests[0].headers["y"],
    )
    assert "authorization" not in receiver.requests[0].headers
    del variables["OTEL_EXPORTER_OTLP_PROFILES_HEADERS"]
    Collector(variables).post(b"")
    assert "Basic abc" == receiver.requests[1].headers["authorization"]


def test_compression(receiver: Any) -> None:
    """A profile is compressed where that is asked for."""
    Collector(environ(ENDPOINT=receiver.url, COMPRESSION="gzip")).post(b"profile" * 100)
    [request] = receiver.requests
    assert "gzip" == request.headers["content-encoding"]
    assert b"profile" * 100 == gzip.decompress(request.body)


@pytest.mark.parametrize("status", [301, 307, 400, 404, 429, 500, 503])
def test_refusals(receiver: Any, status: int) -> None:
    """Whatever is no success is a refusal; nobody follows a redirection, headers would go along."""
    receiver.status, receiver.headers = status, {"Location": f"{receiver.url}/elsewhere"}
    with pytest.raises(Refused, match=f"HTTP status {status}"):
        Collector(environ(ENDPOINT=receiver.url)).post(b"")
    assert 1 == len(receiver.requests)


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("120", 120, 120),
        (3600, 3000, 3600),
        (-3600, 0, 0),
        ("-5", 0, 0),
        ("soon", 0, 0),
        ("", 0, 0),
    ],
)
def test_retry_after(receiver: Any, header: str | float, least: float, most: float) -> None:
    """For how long the collector wants to be left alone is said in seconds or by a date."""
    if not isinstance(
        header, str
    ):  # so many seconds from now, and not from when tests were collected
        header = formatdate(time.time() + header, usegmt=True)
    receiver.status, receiver.headers = 429, {"Retry-After": header}
    with pytest.raises(Refused) as refused:
        Collector(environ(ENDPOINT=receiver.url)).post(b"")
    assert least <= refused.value.retry_after <= most


def test_nobody_there() -> None:
    """A collector that cannot be reached is an error of the system's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ConnectionRefusedError):
        Collector(environ(ENDPOINT=url)).post(b"")


def test_a_collector_that_does_not_answer() -> None:
    """It is waited for as long as the variable says, here hardly at all."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            Collector(environ(ENDPOINT=url, TIMEOUT="60", PROFILES_TIMEOUT="0.05")).post(b"")
        assert time.monotonic() - began < 30


def test_an_answer_without_end(receiver: Any) -> None:
    """Of an answer only so much is read as could mean anything."""
    receiver.answer = b"x" * (2 * MAX_ANSWER)
    assert MAX_ANSWER == len(Collector(environ(ENDPOINT=receiver.url)).post(b""))
