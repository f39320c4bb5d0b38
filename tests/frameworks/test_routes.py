"""Cost by route under real servers and frameworks: each route has the CPU that it used."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent

GUNICORN = ("-m", "gunicorn", "--bind=127.0.0.1:{port}", "--workers=1", "--log-level=warning")
UVICORN = ("-m", "uvicorn", "--port={port}", "--log-level=warning", "--factory")

SERVERS = {
    "flask, sync": (*GUNICORN, "--worker-class=sync", "costs:flask_app()"),
    "flask, threads": (*GUNICORN, "--threads=4", "costs:flask_app()"),
    "flask, gevent": (*GUNICORN, "--worker-class=gevent", "costs:flask_app()"),
    "django, threads": (*GUNICORN, "--threads=4", "costs:django_app()"),
    "fastapi, asyncio": (*UVICORN, "--loop=asyncio", "costs:fastapi_app"),
    "fastapi, uvloop": (*UVICORN, "--loop=uvloop", "costs:fastapi_app"),
}

TICKING = ("flask, threads", "fastapi, asyncio")
"""Those that are tried with the other engine, too: the clocks that are read are the same."""

WITHIN = {"threads": 0.05, "ticks": 0.02}
"""How far the share of a route may be off, by engine."""

PATIENCE = 60
"""Seconds that a server has for anything."""


def get(url: str) -> str:
    """Return the answer to a request; of one that is refused, its status."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return str(error.code)


@contextmanager
def serving(command: tuple[str, ...], folder: Path, **environ: str) -> Iterator[str]:
    """Run a server while the block runs; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, *(word.replace("{port}", port) for word in command)],
            cwd=folder,
            env={
                **os.environ,
                "HOME": str(folder),
                "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
                **environ,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", int(port))).close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=PATIENCE)
        print(log.read_text())  # which pytest shows if a test failed


@pytest.mark.parametrize(
    ("server", "engine"),
    [*((server, "threads") for server in SERVERS), *((server, "ticks") for server in TICKING)],
)
def test_each_route_has_the_cpu_that_it_used(server: str, engine: str, tmp_path: Path) -> None:
    """Requests of four routes, many at once: shares of CPU are true, and no request is missing."""
    prefix = "/v1" if "fastapi" in server else ""
    kinds = ("light", "medium", "heavy", "split")
    with serving(SERVERS[server], tmp_path, ENGINE=engine) as url:
        get(f"{url}/truth")  # by then it is profiled
        paths = [f"{prefix}/{kinds[n % 4]}/{n}" for n in range(48)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda path: get(url + path), paths))
        assert 48 == sum(answer.strip('"') in kinds for answer in answers)
        assert "404" == get(f"{url}/nowhere/at/all")
        report = json.loads(get(f"{url}/truth"))

    assert engine == report["engine"]
    truth, cpu, counted = report["truth"], report["cpu"], report["counted"]
    assert dict.fromkeys(truth, 12) == report["requests"]
    assert dict.fromkeys(truth, 12) == {route: counted[route] for route in truth}
    assert 1 == counted["__unmatched__"]
    shares = {route: cpu[route] / sum(cpu[r] for r in truth) for route in truth}
    assert {route: used / sum(truth.values()) for route, used in truth.items()} == pytest.approx(
        shares, abs=WITHIN[engine]
    )
