"""The dashboard `flame`, drawn by Grafana's own code from what a real Prometheus has scraped."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

DASHBOARDS = Path(__file__).parents[3] / "deploy" / "grafana" / "dashboards"
PANELS = {
    panel["title"]: panel for panel in json.loads((DASHBOARDS / "flame.json").read_text())["panels"]
}
pytestmark = pytest.mark.store

WINDOW = 20  # seconds that are looked at

# A service that spends its time in three functions. A line of input makes it say what its own
# profiler has counted up to now; from then on it searches as slowly as the line says.
SERVICE = """
import json, sys, threading
import ox_otel

def price(amount):
    for _ in range(400_000 * amount): pass

def search(amount):
    for _ in range(150_000 * amount): pass

def render(amount):
    for _ in range(150_000 * amount): pass

def handle():
    price(2)
    search(slowness)
    render(1)

def answer(request):
    handle()

def serve():
    while True:
        answer(None)
        threading.Event().wait(0.05)

slowness = int(sys.argv[2])
profiler = ox_otel.install(port=int(sys.argv[1]))
threading.Thread(target=serve, daemon=True).start()
for line in sys.stdin:
    functions = profiler.snapshot().functions
    print(json.dumps({str(f): used.self_cpu_seconds for f, used in functions.items()}), flush=True)
    slowness = int(line)
"""


class Service:
    """A running service, that tells on request what its profiler has counted."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self._process = process
        self.address = address

    def counted(self, slowness: int = 1) -> tuple[float, dict[str, float]]:
        """Return the time, and self CPU seconds by function; it is as slow from now on."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(slowness, file=self._process.stdin, flush=True)
        return time.time(), json.loads(self._process.stdout.readline())


@pytest.fixture(scope="module")
def services(
    free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Service]]:
    """Two versions of the service; the second one searches three times as slowly."""
    script = tmp_path_factory.mktemp("service") / "shop.py"
    script.write_text(SERVICE)
    running = {}
    try:
        for version, slowness in (("v1", 2), ("v2", 6)):
            port = free_port()
            running[version] = (
                subprocess.Popen(
                    [sys.executable, script, str(port), str(slowness)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                ),
                f"127.0.0.1:{port}",
            )
        yield {version: Service(*started) for version, started in running.items()}
    finally:
        for process, _ in running.values():
            process.communicate()  # the end of its input ends it


@pytest.fixture(scope="module")
def scraped(prometheus: Any, services: dict[str, Service]) -> Any:
    """A Prometheus that has scraped both for long enough; they have a label `version`."""
    versions = {service.address: version for version, service in services.items()}
    prometheus.scrape(*versions, version=versions)
    prometheus.wait_for("min(count_over_time(ox_profile_samples_total[1m])) > 20", timeout=60)
    return prometheus


def drawn(
    store: Any,
    draw: Callable[..., dict[str, Any]],
    picture: str,
    title: str,
    at: float,
    **chosen: str,
) -> dict[str, Any]:
    """Ask a panel's queries, have Grafana's code draw the answers; return the bars by function."""
    panel = PANELS[title]
    variables = {"__range": f"{WINDOW}s", "job": ".+", "instance": ".+"} | chosen
    answers = {
        target["refId"]: store.vector(
            re.sub(r"\$(\w+)", lambda name: variables[name[1]], target["expr"]), time=at
        )
        for target in panel["targets"]
    }
    return draw(picture, panel=panel, answers=answers)


def test_the_hot_function_is_drawn_with_its_share(
    scraped: Any, services: dict[str, Service], draw: Callable[..., Any]
) -> None:
    """Its bar is as wide as its share of the CPU in our own snapshot of the same time says."""
    service = services["v1"]
    _, before = service.counted(2)
    time.sleep(WINDOW)
    now, after = service.counted(2)
    used = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
    bars = drawn(scraped, draw, "flame-graph", "Flame graph", now, instance=service.address)
    assert 1 == bars["total"].share
    leaves = {name: bars[f"__main__.{name}"].share for name in ("price", "search", "render")}
    for name, share in leaves.items():
        assert pytest.approx(used[f"__main__.{name}"] / sum(used.values()), abs=0.02) == share
    assert "price" == max(leaves, key=lambda name: leaves[name])
    assert bars["__main__.serve"].share > 0.9
    handled = bars["__main__.handle"].share
    assert bars["__main__.serve"].share > handled - 0.001  # they are drawn to parts of a pixel
    assert handled >= sum(leaves.values()) - 0.01


def test_the_difference_of_versions_shows_what_has_become_slower(
    scraped: Any, services: dict[str, Service], draw: Callable[..., Any]
) -> None:
    """What the second version is slower in is red; what has a smaller share for it is green."""
    bars = drawn(
        scraped,
        *(draw, "versions", "Between versions", time.time()),
        baseline="v1",
        version="v2",
    )
    assert bars["__main__.search"].redness > 50
    assert bars["__main__.price"].redness < -20
    assert 20 > abs(bars["__main__.serve"].redness)


def test_the_difference_to_earlier_shows_what_has_become_slower(
    scraped: Any, services: dict[str, Service], draw: Callable[..., Any]
) -> None:
    """So it does where one and the same process has become slower."""
    service = services["v1"]
    service.counted(6)
    time.sleep(WINDOW + 2)
    now, _ = service.counted(2)
    bars = drawn(
        scraped,
        *(draw, "earlier", "Against earlier", now),
        before=f"{WINDOW + 2}s",
        instance=service.address,
    )
    assert bars["__main__.search"].redness > 50
    assert bars["__main__.price"].redness < -20
