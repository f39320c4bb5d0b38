"""Names of every kind, as Prometheus and VictoriaMetrics understand them."""

import subprocess
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
from prometheus_client import CollectorRegistry

from ox_otel import Batch, Function, Profiler, Settings, Usage
from ox_otel._endpoint import Endpoint
from ox_otel._names import valid
from ox_otel.http import Exposure
from ox_otel.prometheus import PrometheusRecorder, expose

pytestmark = pytest.mark.store

# from all over Unicode, surrogates and unassigned code points included, and what formats escape
TEXTS = [
    *("".join(map(chr, range(first, first + 20))) for first in range(0, 0x110000 - 20, 4001)),
    *("".join(map(chr, range(first, first + 8))) for first in range(0, 0x100, 8)),
    *('"', "\\", "\\\\", '\\"', "\\n", "\n", "\r\n", "\t", "{}", '",function="x', "#", " ", "a\0b"),
    *("long" * 2500, "é" * 151, "\N{FOX FACE}" * 200, "", "{a='b'}", "x} 1 1\n# EOF\n"),
]


class Exposed(NamedTuple):
    """A profiler with functions of awkward names, and where they are served."""

    functions: set[Function]
    registry: CollectorRegistry
    target: str


@pytest.fixture
def exposed() -> Iterator[Exposed]:
    """An endpoint that serves one function for each text, as module and as name."""
    functions = {Function(valid(text), valid(text[::-1])) for text in TEXTS}
    registry = CollectorRegistry()
    profiler = Profiler(Settings())
    recorder = PrometheusRecorder(profiler, registry)
    recorder.record(Batch(dict.fromkeys(functions, Usage(3, 2, 0.5, 0.25, 0.125, 0.0625))))
    exposure = Exposure(profiler, partial(expose, registry=registry), None, loopback=True)
    endpoint = Endpoint("127.0.0.1", 0, exposure)
    yield Exposed(functions, registry, endpoint.url.removeprefix("http://"))
    endpoint.close()


def test_promtool_has_nothing_to_say(exposed: Exposed, promtool: str) -> None:
    """Prometheus' own checker reads the metrics, and has no advice on them either."""
    assert len(exposed.functions) > 300
    _, text = expose("", exposed.registry)
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
    assert (0, b"", b"") == (checked.returncode, checked.stdout, checked.stderr)


@pytest.mark.parametrize("name", ["prometheus", "victoria_metrics"])
def test_every_name_arrives(exposed: Exposed, name: str, request: pytest.FixtureRequest) -> None:
    """A server scrapes it all without a complaint, and gives every name and figure back."""
    server: Any = request.getfixturevalue(name)  # each starts only for its own test
    server.scrape(exposed.target)
    found = {
        Function(labels["module"], labels["function"]): value
        for labels, value in server.query("ox_profile_hits_total")
    }
    assert dict.fromkeys(exposed.functions, 3.0) == found
    [(_, self_hits)] = server.query("sum(ox_profile_self_hits_total)")
    [(_, stacks)] = server.query("ox_profile_stacks_total")
    assert 2 * len(exposed.functions) == self_hits == stacks
    [(_, series)] = server.query("ox_profile_series")
    [(_, scraped)] = server.query("scrape_samples_scraped")
    assert series == scraped
    complaints = [
        line
        for line in server.log().splitlines()
        if any(word in line.lower() for word in ("warn", "error", "cannot"))
    ]
    assert [] == complaints
