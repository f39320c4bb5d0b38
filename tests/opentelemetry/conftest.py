"""A collector that keeps what it is sent, and programs that send it, under the real SDK."""

import gzip
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

PATIENCE = 90
"""Seconds after which what has not come will not come, however busy the machine is."""

UNAVAILABLE = 69
"""The exit status of `scripts/next-debian` where that cannot be had on this machine."""

HERE = Path(__file__).parent
OURS = "ox_profile."


class Point(NamedTuple):
    """A point of a series, as it came; times are nanoseconds since the epoch."""

    instance: str
    attributes: dict[str, str]
    value: float
    start: int
    time: int


class Export(NamedTuple):
    """What one request told of one process: its resource, and our metrics by name."""

    resource: dict[str, str]
    metrics: dict[str, Any]

    def __repr__(self) -> str:
        sums = {name: self.total(name) for name in self.metrics}
        return f"{self.instance}: {sums}\n"

    @property
    def instance(self) -> str:
        """The process, as the SDK names it."""
        return self.resource.get("service.instance.id", "")

    def points(self, name: str, **attributes: str) -> list[Point]:
        """Return the points of a metric that have these attributes, with `_` for dots."""
        metric = self.metrics.get(name)
        if metric is None:
            return []
        found = []
        for point in getattr(metric, metric.WhichOneof("data")).data_points:
            of = _texts(point.attributes)
            value = getattr(point, point.WhichOneof("value"))
            if {
                key.replace("_", "."): text for key, text in attributes.items()
            }.items() <= of.items():
                times = point.start_time_unix_nano, point.time_unix_nano
                found.append(Point(self.instance, of, value, *times))
        return found

    def total(self, name: str, **attributes: str) -> float:
        """Return the sum over those points."""
        return sum(point.value for point in self.points(name, **attributes))

    def assert_conserved(self) -> None:
        """The sums over all functions are the totals."""
        assert self.total("self_hits") == self.total("stacks")
        observed = pytest.approx(self.total("observed_seconds"), abs=1e-6)
        assert observed == self.total("self_seconds")


class Collector:
    """A receiver of OTLP over HTTP that decodes metrics by the protocol's own messages."""

    def __init__(self) -> None:
        self.exports: list[Export] = []
        self.foreign: set[str] = set()  # names of metrics that are not ours
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == "/v1/metrics":
                    collector.receive(body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_request(self, *_: object) -> None:
                """Be silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def receive(self, body: bytes) -> None:
        """Keep what a request tells of us."""
        for of in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            metrics = [metric for scope in of.scope_metrics for metric in scope.metrics]
            ours = {
                metric.name.removeprefix(OURS): metric
                for metric in metrics
                if metric.name.startswith(OURS)
            }
            self.foreign |= {metric.name for metric in metrics} - {OURS + name for name in ours}
            if ours:
                self.exports.append(Export(_texts(of.resource.attributes), ours))

    def latest(self) -> dict[str, Export]:
        """Return the last export of each process."""
        return {export.instance: export for export in self.exports}

    def wait_for(self, look: Callable[[], object], what: str) -> None:
        """Return as soon as *look* returns something true; fail if it never does."""
        deadline = time.monotonic() + PATIENCE
        while not look():
            if time.monotonic() > deadline:
                pytest.fail(f"never: {what}\n{self.exports[-20:]}")
            time.sleep(0.1)

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _texts(attributes: Any) -> dict[str, str]:
    return {attribute.key: attribute.value.string_value for attribute in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that has received nothing yet."""
    collector = Collector()
    yield collector
    collector.close()


class Service(NamedTuple):
    """A running server."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def stop(self) -> int:
        """End the server; return its exit status."""
        self.process.terminate()
        return self.process.wait(PATIENCE)


@pytest.fixture
def environ(collector: Collector, tmp_path: Path) -> dict[str, str]:
    """The environment of a program whose SDK exports to the collector.

    Not so often that a master would export while it forks: a child of that moment finds the SDK's
    own lock held, never exports anything, and waits for it at its end for half a minute.
    """
    return {
        **os.environ,
        "HOME": str(tmp_path),  # where gunicorn has its control socket
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_TRACES_EXPORTER": "none",
        "OX_OTEL_INTERVAL": "0.005",
        "OX_OTEL_MAX_OVERHEAD": "0.5",  # a busy machine is no reason to sample less here
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return str(answer.read().decode())


Serve = Callable[..., Service]


@pytest.fixture
def serve(environ: dict[str, str], free_port: Callable[[], int], tmp_path: Path) -> Iterator[Serve]:
    """Start a server under `opentelemetry-instrument`; `{port}` stands for a free port."""
    running: list[Service] = []

    def start(*command: str, **more: str) -> Service:
        port = str(free_port())
        log = tmp_path / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["opentelemetry-instrument", *(word.replace("{port}", port) for word in command)],
                cwd=tmp_path,
                env={**environ, **more},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its workers can be ended with it
            )
        running.append(Service(process, f"http://127.0.0.1:{port}/", log))
        return running[-1]

    yield start
    for service in running:
        with suppress(ProcessLookupError):
            os.killpg(service.process.pid, signal.SIGKILL)
        service.process.wait()
        print(service.log.read_text())  # which pytest shows if a test failed


@pytest.fixture
def victoria_metrics(free_port: Callable[[], int], tmp_path: Path) -> Iterator[str]:
    """The address of a VictoriaMetrics of Debian's next release, which takes OTLP."""
    address = f"127.0.0.1:{free_port()}"
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(HERE.parents[1] / "scripts" / "next-debian", "run", "victoria-metrics"),
                f"-httpListenAddr={address}",
                f"-storageDataPath={tmp_path}/data",
                "-search.latencyOffset=0s",  # answer about what came this second
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + PATIENCE
    while not _answers(f"http://{address}/health"):
        if process.poll() == UNAVAILABLE and os.environ.get("CI") != "true":
            pytest.skip(log.read_text())
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"exit status {process.poll()}\n{log.read_text()}")
        time.sleep(0.1)
    yield f"http://{address}"
    process.terminate()
    process.wait(PATIENCE)


def _answers(url: str) -> bool:
    try:
        _get(url)
    except OSError:
        return False
    return True
