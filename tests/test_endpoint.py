"""Our own endpoint, over real sockets: it serves, and no client can harm the host with it."""

import http.client
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from threading import Event

import pytest

from ox_otel import Profiler, Settings, _endpoint
from ox_otel._capture import MAX_CAPTURES
from ox_otel._endpoint import MAX_CONNECTIONS, Endpoint
from ox_otel._native import Worker
from ox_otel.http import MAX_BODY, Exposure

METRICS = b"metrics 1\n" * 20_000
BIG = b"GET /metrics HTTP/1.0\r\nHost: localhost\r\nAccept: big\r\n\r\n"
"""A request for more than the system's buffers take."""


def expose(accept: str) -> tuple[str, bytes]:
    """Stand in for the metrics."""
    return "text/plain", METRICS * 100 if accept == "big" else METRICS


@pytest.fixture
def exposure() -> Iterator[Exposure]:
    """What is served, of a running profiler."""
    with Profiler(Settings()) as profiler:
        yield Exposure(profiler, expose, None, loopback=True)


@pytest.fixture
def endpoint(exposure: Exposure) -> Iterator[Endpoint]:
    """An open endpoint on a free port."""
    endpoint = Endpoint("127.0.0.1", 0, exposure)
    yield endpoint
    endpoint.close()


def connect(endpoint: Endpoint) -> socket.socket:
    """Return a connection to the endpoint."""
    host, port = address(endpoint)
    return socket.create_connection((host, port), timeout=60)


def address(endpoint: Endpoint) -> tuple[str, int]:
    """Return host and port of the endpoint."""
    host, _, port = endpoint.url.removeprefix("http://").rpartition(":")
    return host.strip("[]"), int(port)


def ask(endpoint: Endpoint, method: str = "GET", path: str = "/metrics") -> tuple[int, bytes]:
    """Return status and body of the answer to a request."""
    connection = http.client.HTTPConnection(*address(endpoint), timeout=60)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def tell(endpoint: Endpoint, sent: bytes) -> bytes:
    """Return what comes back for raw bytes, nothing if the connection is broken off."""
    with connect(endpoint) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as answer:
                return answer.read()
        except TimeoutError:
            raise
        except OSError:
            return b""


def turned_away(connection: socket.socket) -> bool:
    """Return whether the other side says at once that there are too many, and hangs up."""
    with connection.makefile("rb") as answer:
        head, _, body = answer.read().partition(b"\r\n\r\n")
    status, *headers = head.splitlines()
    return (
        status == b"HTTP/1.0 429 Too Many Requests" and b"Retry-After: 1" in headers and body != b""
    )


def is_closed(connection: socket.socket) -> bool:
    """Return whether the other side ends the connection before its timeout."""
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_metrics_are_served(endpoint: Endpoint) -> None:
    """A scrape gets the metrics whole."""
    assert (200, METRICS) == ask(endpoint)


def test_a_head_has_no_body(endpoint: Endpoint) -> None:
    """HEAD answers like GET, with the length of the body but without it."""
    head, body = tell(endpoint, b"HEAD /metrics HTTP/1.0\r\nHost: [::1]\r\n\r\n").split(b"\r\n\r\n")
    assert f"Content-Length: {len(METRICS)}".encode() in head.splitlines()
    assert b"" == body


def test_a_form_is_read(endpoint: Endpoint, exposure: Exposure) -> None:
    """The body of a request arrives."""
    head = b"POST /interval HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\n"
    assert tell(endpoint, head + b"seconds=0.75").startswith(b"HTTP/1.0 200 ")
    assert 0.75 == exposure.profiler.status().interval


def test_answers_say_little_of_the_server(endpoint: Endpoint) -> None:
    """The headers name no version, neither of Python nor ours."""
    head, _, _ = tell(endpoint, b"GET /nowhere HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert b"Server: ox_otel" in [line.strip() for line in head.splitlines()]


@pytest.mark.parametrize(
    "length", [str(MAX_BODY + 1), "9" * 20, "9" * 5000, "-1", "x", "", "1.5", "\xb2"]
)
def test_a_body_that_is_too_long(endpoint: Endpoint, length: str) -> None:
    """What is longer than any route needs, or of no clear length, is refused unread."""
    request = f"POST /interval HTTP/1.0\r\nContent-Length: {length}\r\n\r\n"
    assert tell(endpoint, request.encode("latin-1")).startswith(b"HTTP/1.0 413 ")


def test_a_client_that_sends_too_much(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers that are each small enough, but too much together, are refused."""
    monkeypatch.setattr(_endpoint, "MAX_SENT", 9_000)
    request = b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n"
    header = b"X: " + b"x" * 200 + b"\r\n"
    assert tell(endpoint, request + 40 * header + b"\r\n").startswith(b"HTTP/1.0 200 ")
    assert tell(endpoint, request + 50 * header + b"\r\n").startswith(b"HTTP/1.0 431 ")


GARBAGE = {
    "nothing": (b"", b""),
    "empty lines": (b"\r\n\r\n", b""),
    "no text": (b"\x00\xff\xfe" * 100 + b"\r\n\r\n", b"400"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", b"400"),
    "one word": (b"GET\r\n\r\n", b"400"),
    "another version": (b"GET /status HTTP/9.9\r\n\r\n", b"505"),
    "HTTP/0.9": (b"GET /metrics\r\n\r\n", b"421"),
    "another method": (b"PROPFIND / HTTP/1.1\r\n\r\n", b"501"),
    "odd path": (b"GET /%00%ff\xff HTTP/1.0\r\n\r\n", b"404"),
    "absolute": (b"GET http://localhost/status HTTP/1.0\r\nHost: localhost\r\n\r\n", b"404"),
    "long path": (b"GET /" + b"x" * 66_000 + b" HTTP/1.0\r\n\r\n", b"414"),
    "long header": (b"GET / HTTP/1.0\r\nX: " + b"x" * 66_000 + b"\r\n\r\n", b"431"),
    "two hosts": (b"GET / HTTP/1.0\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", b"421"),
    "two hosts, a port": (
        b"GET / HTTP/1.0\r\nHost: 127.0.0.1:80\r\nHost: evil.example\r\n\r\n",
        b"421",
    ),
    "two other hosts": (b"GET / HTTP/1.0\r\nHost: evil\r\nHost: localhost\r\n\r\n", b"421"),
    "two lengths": (
        b"POST /pause HTTP/1.0\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"413",
    ),
    "large headers": (b"GET / HTTP/1.0\r\n" + (b"X: " + b"x" * 60_000 + b"\r\n") * 3, b"431"),
    "many headers": (b"GET / HTTP/1.0\r\n" + b"X: x\r\n" * 200 + b"\r\n", b"431"),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_what_is_no_request(
    endpoint: Endpoint, exposure: Exposure, capfd: pytest.CaptureFixture[str], what: str
) -> None:
    """Bytes of any kind are answered or dropped, without a word on stderr or an error counted."""
    sent, status = GARBAGE[what]
    answer = tell(endpoint, sent)
    # with bytes of it unread the connection is reset, which may take the answer along
    if answer or len(sent) < 500:
        assert status == answer[len("HTTP/1.0 ") :][:3]
        assert bool(status) == (b"\r\nX-Content-Type-Options: nosniff\r\n" in answer)
    assert 200 == ask(endpoint)[0]
    assert ("", "") == capfd.readouterr()
    assert {} == exposure.profiler.snapshot().errors


def errors_counted(exposure: Exposure) -> Mapping[str, int]:
    """Return the errors that have been counted, as soon as there are some."""
    deadline = time.monotonic() + 60  # counted after a connection has been closed, then published
    while not (errors := exposure.profiler.snapshot().errors) and time.monotonic() < deadline:
        time.sleep(0.01)
    return errors


def test_an_error_of_ours(
    endpoint: Endpoint,
    exposure: Exposure,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An error in our own code is counted, and reaches nobody's stderr."""
    monkeypatch.setattr(_endpoint, "body_length", lambda _: 1 / 0)
    assert b"" == tell(endpoint, b"GET / HTTP/1.0\r\n\r\n")
    monkeypatch.undo()
    assert 200 == ask(endpoint)[0]
    assert {"request": 1} == errors_counted(exposure)
    assert ("", "") == capfd.readouterr()


def test_a_client_that_leaves(endpoint: Endpoint, exposure: Exposure) -> None:
    """A client that is gone before it has its answer is no error."""
    for _ in range(MAX_CONNECTIONS - 1):
        with connect(endpoint) as connection:
            connection.sendall(BIG)
    assert 200 == ask(endpoint)[0]
    assert {} == exposure.profiler.snapshot().errors


def test_a_slow_client_hinders_nobody(endpoint: Endpoint) -> None:
    """While one client says nothing and one reads nothing, others are answered."""
    with connect(endpoint), connect(endpoint) as deaf:
        deaf.sendall(BIG)
        began = time.monotonic()
        assert 200 == ask(endpoint)[0]
        assert time.monotonic() - began < 3.0


@pytest.mark.parametrize("drop", [b"x", b""], ids=["drips", "is silent"])
def test_a_client_has_no_more_time(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, drop: bytes
) -> None:
    """However a client spreads its request over time, it loses the connection in the end."""
    monkeypatch.setattr(_endpoint, "CLIENT_SECONDS", 0.5)
    with connect(endpoint) as connection:
        connection.settimeout(0.05)
        began = time.monotonic()
        while not is_closed(connection):
            assert time.monotonic() - began < 30.0
            with suppress(ConnectionError):
                connection.sendall(drop)
        assert time.monotonic() - began > 0.4


def test_a_client_that_takes_no_answer(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks for much and reads nothing loses the connection in the end."""
    monkeypatch.setattr(_endpoint, "CLIENT_SECONDS", 0.5)
    with connect(endpoint) as deaf:
        deaf.sendall(BIG)
        until_busy(1, endpoint)
        until_none_is_busy(endpoint)


def test_more_connections_than_answered(endpoint: Endpoint) -> None:
    """Only so many clients hold a thread of ours; whoever comes then is told so at once."""
    with ExitStack() as idle:
        for _ in range(MAX_CONNECTIONS):
            idle.enter_context(connect(endpoint))
        for _ in range(3 * MAX_CONNECTIONS):
            assert turned_away(idle.enter_context(connect(endpoint)))
        assert MAX_CONNECTIONS == len(busy(endpoint))
    until_none_is_busy(endpoint)
    assert 200 == ask(endpoint)[0]


def capturing(endpoint: Endpoint, exposure: Exposure, number: int) -> list[socket.socket]:
    """Return so many connections that each wait for a long capture, which has begun."""
    waiting = [connect(endpoint) for _ in range(number)]
    for connection in waiting:
        connection.sendall(b"GET /debug/pprof/wall?seconds=300 HTTP/1.0\r\nHost: localhost\r\n\r\n")
    until_captures_are(number, exposure)
    return waiting


def until_captures_are(number: int, exposure: Exposure) -> None:
    """Wait until so many captures are being made."""
    deadline = time.monotonic() + 60.0
    captures = exposure.profiler._pipeline.captures
    while number != len([one for one in captures._running if one.began]):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_captures_leave_room_for_scrapes(endpoint: Endpoint, exposure: Exposure) -> None:
    """While as many captures are made as can be, one more is refused, and scrapes are answered."""
    waiting = capturing(endpoint, exposure, MAX_CAPTURES)
    assert 429 == ask(endpoint, path="/debug/pprof/profile?seconds=300")[0]
    for _ in range(20):
        assert (200, METRICS) == ask(endpoint)
    for connection in waiting:
        connection.close()
    until_captures_are(0, exposure)  # nobody waits for them any more
    assert 200 == ask(endpoint, path="/debug/pprof/profile?seconds=0.1")[0]
    assert {} == exposure.profiler.snapshot().errors


def test_a_client_that_says_more_than_its_request(endpoint: Endpoint, exposure: Exposure) -> None:
    """Its capture ends, since behind a byte that nobody reads it could hang up unseen."""
    [connection] = capturing(endpoint, exposure, 1)
    with connection:
        connection.sendall(b"x")
        connection.shutdown(socket.SHUT_WR)
        until_captures_are(0, exposure)


def test_a_capture_ends_with_the_endpoint(exposure: Exposure) -> None:
    """`close` waits for no capture, and leaves none behind."""
    endpoint = Endpoint("127.0.0.1", 0, exposure)
    [connection] = capturing(endpoint, exposure, 1)
    with connection:
        began = time.monotonic()
        endpoint.close()
        assert time.monotonic() - began < 3.0
    until_captures_are(0, exposure)
    until_none_is_busy(endpoint)


def test_a_head_of_a_capture(endpoint: Endpoint) -> None:
    """Nothing is said of the length of what has not been made."""
    head = tell(endpoint, b"HEAD /debug/pprof/wall HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 ")
    assert b"content-length" not in head.lower()


def busy(endpoint: Endpoint) -> list[Worker]:
    """Return the threads that answer a connection."""
    return [worker for worker, _ in endpoint._conversations if worker.alive()]


def until_busy(number: int, endpoint: Endpoint) -> None:
    """Wait until so many connections have been taken."""
    deadline = time.monotonic() + 60.0
    while len(endpoint._conversations) < number:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def until_none_is_busy(endpoint: Endpoint) -> None:
    """Wait until all connections have been answered."""
    deadline = time.monotonic() + 60.0
    while busy(endpoint):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_close_with_open_connections(exposure: Exposure, free_port: Callable[[], int]) -> None:
    """Within a second of `close` neither a thread nor a socket is left, and the port is free."""
    endpoint = Endpoint("127.0.0.1", free_port(), exposure)
    host, port = address(endpoint)
    with connect(endpoint), connect(endpoint) as deaf:
        deaf.sendall(BIG)
        until_busy(2, endpoint)
        began = time.monotonic()
        endpoint.close()
        assert time.monotonic() - began < 1.0
        assert [] == busy(endpoint)
        with pytest.raises(ConnectionRefusedError):
            connect(endpoint)
        again = Endpoint(host, port, exposure)
        assert 200 == ask(again)[0]
        again.close()


def test_close_while_an_answer_hangs(exposure: Exposure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics of the host that take for ever hold up the end for as long as is said, no longer."""
    monkeypatch.setattr(_endpoint, "CLOSE_SECONDS", 0.1)
    asked, released = Event(), Event()

    def hang(_: str) -> tuple[str, bytes]:
        asked.set()
        released.wait(200)
        return "text/plain", b""

    endpoint = Endpoint("127.0.0.1", 0, exposure._replace(metrics=hang))
    with connect(endpoint) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert asked.wait(60)
        began = time.monotonic()
        endpoint.close()
        assert time.monotonic() - began < 60.0
    released.set()
    until_none_is_busy(endpoint)


def test_a_collector_that_wants_to_exit(exposure: Exposure) -> None:
    """Whatever is raised where an answer is made, there is one."""

    def leave(_: str) -> tuple[str, bytes]:
        raise SystemExit

    endpoint = Endpoint("127.0.0.1", 0, exposure._replace(metrics=leave))
    try:
        assert 500 == ask(endpoint)[0]
    finally:
        endpoint.close()
    assert {"request": 1} == errors_counted(exposure)


def test_a_port_in_use(endpoint: Endpoint, exposure: Exposure) -> None:
    """A port that is taken is an error at once."""
    with pytest.raises(OSError, match="in use"):
        Endpoint(*address(endpoint), exposure)


def test_ipv6(exposure: Exposure) -> None:
    """An endpoint on IPv6 has a valid URL, and its name passes as loopback."""
    endpoint = Endpoint("::1", 0, exposure)
    try:
        assert endpoint.url.startswith("http://[::1]:")
        assert 200 == ask(endpoint, path="/status")[0]
    finally:
        endpoint.close()


def test_answers_are_charged(exposure: Exposure, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU time of listening and of answering is charged, each once."""
    charged: list[float] = []
    monkeypatch.setattr(exposure.profiler, "charge", charged.append)

    def dear(_: str) -> tuple[str, bytes]:
        until = time.thread_time() + 0.1
        while time.thread_time() < until:
            pass
        return "text/plain", b""

    endpoint = Endpoint("127.0.0.1", 0, exposure._replace(metrics=dear))
    try:
        for _ in range(3):
            ask(endpoint)
    finally:
        endpoint.close()
    listening, answering = sorted(charged)[:3], sorted(charged)[3:]
    assert 3 == len(answering)
    assert 0 < sum(listening) < 0.1
    assert 0.3 < sum(answering) < 0.6


STORMED = """
import json, os, select, sys, time
import ox_otel
from ox_otel._tasks import core_wait
from prometheus_client import Gauge

for n in range(50):  # a page of metrics of some size
    family = Gauge(f"metric_{n}", "A metric of the host.", ["label"])
    for label in range(40): family.labels(label).set(label)
print(ox_otel.install(port=0).url, flush=True)

def entries(folder): return len(os.listdir(f"/proc/self/{folder}"))
def resident(): return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

gaps, threads, files, before = [], 0, 0, resident()
last, waited = time.monotonic(), 1e-9 * core_wait(os.getpid())
while not select.select([sys.stdin], [], [], 0.005)[0]:
    now, wait = time.monotonic(), 1e-9 * core_wait(os.getpid())
    gaps.append(now - last - (wait - waited))  # what is for want of a core is not our fault
    last, waited = now, wait
    threads, files = max(threads, entries("task")), max(files, entries("fd"))
gaps.sort()
print(json.dumps([threads, files, resident() - before, gaps[int(0.95 * len(gaps))], len(gaps)]))
"""

STORM = [
    b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n",
    b"GET /" + b"x" * 100_000,
    b"GET / HTTP/1.0\r\n" + (b"X: " + b"x" * 60_000 + b"\r\n") * 20,
    *(
        f"POST /interval?seconds={seconds} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode()
        for seconds in ("1e9", "nan", "-1", "inf", "x" * 10_000)
    ),
    b"POST /interval HTTP/1.0\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 200_000,
]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_storm_of_requests_harms_nobody() -> None:
    """A thousand requests, big, wrong and slow ones, cost few threads, files and bytes, no stall."""
    host = subprocess.Popen(
        [sys.executable, "-c", STORMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert host.stdin
    assert host.stdout
    try:
        port = int(host.stdout.readline().rpartition(":")[2])

        def ask_often(first: int) -> Counter[bytes]:
            statuses: Counter[bytes] = Counter()
            for number in range(first, 1000, 20):
                asking = socket.create_connection(("127.0.0.1", port), timeout=60)
                # it need not read what it refuses
                with asking, suppress(ConnectionError):
                    asking.sendall(STORM[number // 20 % len(STORM)])
                    statuses[asking.recv(12)[9:]] += 1
            return statuses

        with ExitStack() as slow, ThreadPoolExecutor(20) as clients:
            for _ in range(MAX_CONNECTIONS // 2):
                idle = slow.enter_context(socket.create_connection(("127.0.0.1", port)))
                idle.sendall(b"GET /metrics")
            statuses = sum(clients.map(ask_often, range(20)), Counter[bytes]())
        answer, _ = host.communicate("enough", timeout=60)
        threads, files, grown, gap, beats = json.loads(answer)
    finally:
        host.kill()
        host.wait()

    # and those that are about to end, and those that run, sample and listen
    assert threads <= 2 * MAX_CONNECTIONS + 3
    assert files < 60
    assert grown < 32 * 1024 * 1024
    assert beats > 20
    assert gap < 0.1
    assert {b"200", b"400", b"429"} <= statuses.keys() <= {*b"200 400 413 414 429 431".split(), b""}
