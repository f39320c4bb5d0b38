"""Cost by route under real servers and frameworks: each route has the CPU that it used."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

GUNICORN = ("gunicorn", "--bind=127.0.0.1:{port}", "--workers=1", "--log-level=warning")
UVICORN = ("uvicorn", "--port={port}", "--log-level=warning", "--factory")

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

KINDS = ("light", "medium", "heavy", "split")


@pytest.mark.parametrize(
    ("server", "engine"),
    [*((server, "threads") for server in SERVERS), *((server, "ticks") for server in TICKING)],
)
def test_each_route_has_the_cpu_that_it_used(
    serve: Callable[..., Any], server: str, engine: str
) -> None:
    """Requests of four routes, many at once: shares of CPU are true, and no request is missing."""
    site = serve(*SERVERS[server], OX_OTEL_ENGINE=engine)
    site.get("/truth")  # by then it is profiled
    prefix = "/v1" if "fastapi" in server else ""
    paths = [f"{prefix}/{KINDS[n % 4]}/{n}" for n in range(48)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(site.get, paths))
    assert [200] * 48 == [answer.status for answer in answers]
    assert 404 == site.get("/nowhere/at/all").status
    # a server may close an answer, by which its request is counted, when the client has it already
    deadline = time.monotonic() + 30
    while True:
        report = json.loads(site.get("/truth").text)
        truth, cpu, counted = report["truth"], report["cpu"], report["counted"]
        known = [counted.get(route, 0) for route in truth]
        if ([12] * 4 == known and "__unmatched__" in counted) or time.monotonic() > deadline:
            break
        time.sleep(0.1)

    assert engine == report["engine"]
    assert dict.fromkeys(truth, 12) == report["requests"]
    assert dict.fromkeys(truth, 12) == {route: counted[route] for route in truth}
    assert 1 == counted["__unmatched__"]
    total, told = sum(truth.values()), sum(cpu[route] for route in truth)
    shares = {route: used / total for route, used in truth.items()}
    assert shares == pytest.approx({r: cpu[r] / told for r in truth}, abs=WITHIN[engine])
