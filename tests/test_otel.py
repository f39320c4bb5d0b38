"""The OpenTelemetry recorder: on the host's own provider, within the limits of any SDK."""

import os
import subprocess
import sys
import time
from typing import Any, NamedTuple

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, Metric

from ox_otel import (
    Batch,
    Exemplar,
    Function,
    Profiler,
    RouteUsage,
    Settings,
    Usage,
    otel,
)
from ox_otel._metrics import METRICS
from ox_otel._status import ERROR_KINDS
from ox_otel.otel import MAX_FUNCTIONS, MAX_NODES, OtelRecorder
from ox_otel.recorders import OTHER, REST, TOKEN_LENGTH, Node

SDK_LIMIT = 2000
"""Attribute sets an instrument that SDKs allow, those that have a limit."""

UNITS = {
    "hits": "{hit}",
    "self_hits": "{hit}",
    "seconds": "s",
    "self_seconds": "s",
    "tree_seconds": "s",
    "tree_self_seconds": "s",
    "route_requests": "{request}",
    "route_cpu_seconds": "s",
    "route_wait_seconds": "s",
    "samples": "{sample}",
    "stacks": "{stack}",
    "observed_seconds": "s",
    "missed_samples": "{sample}",
    "overhead_seconds": "s",
    "errors": "{error}",
    "series": "{series}",
    "series_limit": "{series}",
    "interval_seconds": "s",
    "running": "1",
    "info": "1",
}
GAUGES = {"series", "series_limit", "interval_seconds", "running", "info"}
HOT, COLD = Function("shop.cart", "Cart.total"), Function("shop", "cold")
ROOT, LEAF = Node("total", 0, "total"), Node("totalmains", 1, "shop.main")


class Host(NamedTuple):
    """A host with a provider of its own, as a test reads it."""

    provider: MeterProvider
    reader: InMemoryMetricReader

    def collect(self) -> dict[str, Metric]:
        """Return what an export would send, by name without our prefix."""
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name.removeprefix("ox_profile."): metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the values of one metric, by those of their attributes."""
        if name not in (metrics := self.collect()):
            return {}
        points: Any = metrics[name].data.data_points
        return {tuple((point.attributes or {}).values()): point.value for point in points}


@pytest.fixture
def host() -> Host:
    """A host with a provider of its own."""
    reader = InMemoryMetricReader()
    return Host(MeterProvider([reader], shutdown_on_exit=False), reader)


@pytest.fixture
def recorder(host: Host) -> OtelRecorder:
    """A recorder on the host's provider, of a profiler that does not run."""
    return OtelRecorder(Profiler(Settings()), host.provider)


def used(hits: int) -> Usage:
    """Return the usage of a function that was seen so often, at the top."""
    return Usage(hits, hits, hits / 4, hits / 8, hits / 4, hits / 8)


def test_names_and_units(host: Host, recorder: OtelRecorder) -> None:
    """Names, units and kinds of the instruments are those of the contract."""
    recorder.record(Batch({HOT: used(8)}, tree={ROOT: 1}, routes={"/": RouteUsage()}))
    metrics = host.collect()
    assert UNITS == {name: metric.unit for name, metric in metrics.items()}
    assert GAUGES == {name for name, m in metrics.items() if type(m.data).__name__ == "Gauge"}
    assert all(metric.name.startswith("ox_profile.") for metric in metrics.values())
    assert all(metric.description for metric in metrics.values())
    for name in UNITS.keys() - GAUGES:
        data: Any = metrics[name].data
        assert (True, 2) == (data.is_monotonic, data.aggregation_temporality)


def test_attributes(host: Host, recorder: OtelRecorder) -> None:
    """A function is one attribute, its code's name; a state is another."""
    recorder.record(Batch({HOT: used(8)}, tree={ROOT: 1}, routes={"/": RouteUsage()}))
    metrics = host.collect()
    sets = {
        name: [dict(point.attributes or {}) for point in metric.data.data_points]
        for name, metric in metrics.items()
    }
    name = {"code.function.name": "shop.cart.Cart.total"}
    assert [name] == sets["hits"] == sets["self_hits"]
    states = [name | {"state": "cpu"}, name | {"state": "wait"}]
    assert states == sets["seconds"] == sets["self_seconds"]
    root = {"path": "total", "level": "0", "label": "total"}
    assert [root] == sets["tree_seconds"] == sets["tree_self_seconds"]
    assert [{"route": "/"}] == sets["route_requests"] == sets["route_cpu_seconds"]
    assert [{"state": "cpu"}, {"state": "wait"}] == sets["observed_seconds"]
    assert [{"kind": kind} for kind in ERROR_KINDS] == sets["errors"]
    assert {"version", "engine", "python"} == sets["info"][0].keys()
    assert [{}] == sets["samples"] == sets["running"]


def test_values(host: Host, recorder: OtelRecorder) -> None:
    """Every figure of a function stands in its place."""
    tree = {ROOT: 10**9, LEAF: 4 * 10**9}
    routes = {"/": RouteUsage(2, 1.5, 0.5)}
    recorder.record(
        Batch({HOT: Usage(6, 5, 4.5, 3.5, 2.5, 1.5)}, tree=tree, routes=routes, samples=7)
    )
    assert {("/",): 2} == host.values("route_requests")
    assert {("/",): 1.5} == host.values("route_cpu_seconds")
    assert {("/",): 0.5} == host.values("route_wait_seconds")
    name = str(HOT)
    assert {(name,): 6} == host.values("hits")
    assert {(name,): 5} == host.values("self_hits")
    assert {(name, "cpu"): 4.5, (name, "wait"): 3.5} == host.values("seconds")
    assert {(name, "cpu"): 2.5, (name, "wait"): 1.5} == host.values("self_seconds")
    assert {ROOT: 5, LEAF: 4} == nodes(host, "tree_seconds")
    assert {ROOT: 1, LEAF: 4} == nodes(host, "tree_self_seconds")
    assert {(): 7} == host.values("samples")
    assert {(): 5} == host.values("stacks")


def test_more_functions_than_an_sdk_allows(host: Host, recorder: OtelRecorder) -> None:
    """With 3000 functions no instrument passes an SDK's limit; what has no name counts as other."""
    functions = [Function("generated", f"f{number}") for number in range(3000)]
    before: dict[tuple[str, ...], float] = {}
    for round_ in (1, 2, 3):
        recorder.record(
            Batch({function: used(number) for number, function in enumerate(functions)})
        )
        metrics = host.collect()
        assert all(len(metric.data.data_points) < SDK_LIMIT for metric in metrics.values())
        overflow = ("otel.metric.overflow", True)
        assert all(
            overflow not in (point.attributes or {}).items()
            for metric in metrics.values()
            for point in metric.data.data_points
        )
        values = host.values("self_hits")
        assert MAX_FUNCTIONS == len(values)
        assert round_ * sum(range(3000)) == sum(values.values()) == host.values("stacks")[()]
        assert all(values[name] >= value for name, value in before.items())
        assert values[str(REST),] > 0
        before = values


def test_retired_series_make_room(host: Host, recorder: OtelRecorder) -> None:
    """Where series end, functions without a name get one, and sums stay what they were."""
    functions = [Function("generated", f"f{number}") for number in range(MAX_FUNCTIONS)]
    recorder.record(Batch(dict.fromkeys(functions, used(8))))
    heir = Function(OTHER, "__retired_1__")
    recorder.record(Batch({HOT: used(8)}, retired=dict.fromkeys(functions[:10], heir)))
    values = host.values("self_hits")
    assert 8 == values[str(HOT),]
    assert 80 == values[str(heir),]
    assert 8 * (MAX_FUNCTIONS + 1) == sum(values.values())
    assert len(values) < MAX_FUNCTIONS


def nodes(host: Host, name: str) -> dict[Node, float]:
    """Return the values of a metric of the tree, by node."""
    return {
        Node(path, int(level), label): value
        for (path, level, label), value in host.values(name).items()
    }


def test_more_nodes_than_an_sdk_allows(host: Host, recorder: OtelRecorder) -> None:
    """Beyond the limit a node's time counts for the nearest above; retired nodes make room."""
    chains = [
        [
            Node(ROOT.path + "".join(f"{letters}{level:02}" for level in range(depth)), depth, "f")
            for depth in range(1, 4)
        ]
        for letters in (f"{number:03}" for number in range(1000))
    ]
    tree = {ROOT: 0} | {node: 1_000_000_000 for chain in chains for node in chain}
    for round_ in (1, 2):
        recorder.record(Batch(tree=tree))
        own, all_below = nodes(host, "tree_self_seconds"), nodes(host, "tree_seconds")
        assert MAX_NODES == len(own)
        assert 3000 * round_ == sum(own.values()) == all_below[ROOT]
        assert {"", *(node.path for node in own)} >= {n.path[:-TOKEN_LENGTH] for n in own}

    heir = Node("totalheirs", 1, "heir")
    ended = {node: heir for chain in chains[:10] for node in chain}
    recorder.record(Batch(tree={ROOT: 0, **dict.fromkeys(chains[-1], 1)}, retired_nodes=ended))
    own = nodes(host, "tree_self_seconds")
    assert 60 == own[heir]
    assert chains[-1][-1] in own
    assert not own.keys() & ended.keys()


def test_after_close_nothing_is_observed(host: Host, recorder: OtelRecorder) -> None:
    """A closed recorder's instruments, which cannot be taken away, are silent; the host's go on."""
    recorder.record(Batch({HOT: used(8)}))
    recorder.close()
    recorder.close()
    host.provider.get_meter("mine").create_counter("mine").add(1)
    observed = [name for name, metric in host.collect().items() if metric.data.data_points]
    assert ["mine"] == observed


def test_a_second_recorder_takes_over(
    host: Host, recorder: OtelRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """A recorder made later is observed instead, though SDKs make an instrument only once."""
    recorder.record(Batch({HOT: used(8)}))
    second = OtelRecorder(Profiler(Settings()), host.provider)
    second.record(Batch({COLD: used(3)}))
    recorder.close()
    recorder.record(Batch({HOT: used(1)}))
    assert {(str(HOT),): 8, ("shop.cold",): 3} == host.values("hits")
    assert [] == caplog.messages


def test_sums_go_on_with_the_next_recorder() -> None:
    """Who takes the profiler away and puts it back sees no sum fall: no delta is negative."""
    reader = InMemoryMetricReader({ObservableCounter: AggregationTemporality.DELTA})
    host = Host(MeterProvider([reader], shutdown_on_exit=False), reader)
    seen = Exemplar("ab" * 16, "cd" * 8, 1.0, 1.0)
    name = str(HOT)
    for hits in (8, 3, 2):
        recorder = OtelRecorder(Profiler(Settings()), host.provider)
        assert {} == recorder._exemplars
        recorder.record(Batch({HOT: used(hits)}, tree={ROOT: 1}, exemplars={HOT: seen}))
        assert {(name,): hits} == host.values("hits")
        recorder.close()
        assert {} == host.values("hits")


CHILD = """
import os
from opentelemetry.sdk.metrics import MeterProvider
from ox_otel import Batch, Profiler, Settings
from ox_otel.otel import OtelRecorder
provider = MeterProvider(shutdown_on_exit=False)
recorder = OtelRecorder(Profiler(Settings()), provider)
recorder.record(Batch(samples=7))
recorder.close()
if os.fork() == 0:
    print(OtelRecorder(Profiler(Settings()), provider)._counts.snapshot().samples, flush=True)
    os._exit(0)
os.wait()
print(OtelRecorder(Profiler(Settings()), provider)._counts.snapshot().samples)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_sums_of_a_parent_do_not_go_on_in_a_child() -> None:
    """What a parent has counted is the parent's, whoever installs a recorder in the child."""
    assert ["0", "7"] == run(CHILD)


def test_instruments_are_made_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider is asked for our instruments once, however often we come and go."""
    asked: list[str] = []
    get_meter = host.provider.get_meter

    def ask(name: str, *more: Any) -> Any:
        asked.append(name)
        return get_meter(name, *more)

    monkeypatch.setattr(host.provider, "get_meter", ask)
    for _ in range(3):
        OtelRecorder(Profiler(Settings()), host.provider).close()
    assert ["ox_otel"] == asked


def test_providers_do_not_mix(host: Host, recorder: OtelRecorder) -> None:
    """Each provider observes its own recorder."""
    reader = InMemoryMetricReader()
    other = Host(MeterProvider([reader], shutdown_on_exit=False), reader)
    second = OtelRecorder(Profiler(Settings()), other.provider)
    recorder.record(Batch({HOT: used(8)}))
    second.record(Batch({COLD: used(3)}))
    assert {("shop.cart.Cart.total",): 8} == host.values("hits")
    assert {("shop.cold",): 3} == other.values("hits")


def test_a_fault_in_a_collection(
    host: Host,
    recorder: OtelRecorder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A collection that fails observes nothing, is counted, and takes no other metric along."""
    host.provider.get_meter("mine").create_counter("mine").add(1)

    def fail() -> Batch:
        raise RuntimeError("out of order")

    with monkeypatch.context() as patch:
        patch.setattr(recorder._counts, "snapshot", fail)
        observed = [name for name, metric in host.collect().items() if metric.data.data_points]
        assert ["mine"] == observed
    assert [] == caplog.messages
    with recorder._profiler as profiler:
        assert {"scrape": len(UNITS)} == profiler.snapshot().errors


def test_all_metrics_of_a_collection_are_of_one_moment(
    host: Host, recorder: OtelRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that come while metrics are collected wait for the next collection: sums agree."""
    recorder.record(Batch({HOT: used(8)}, samples=1))
    status = recorder._profiler.status

    def busy() -> Any:  # asked for with each metric
        recorder.record(Batch({HOT: used(8)}, samples=1))
        return status()

    monkeypatch.setattr(recorder._profiler, "status", busy)
    for expected in (1, 1 + len(UNITS)):
        metrics = host.collect()
        values = {name: list(metrics[name].data.data_points) for name in ("self_hits", "stacks")}
        assert 8 * expected == values["self_hits"][0].value == values["stacks"][0].value
        assert [expected] == [point.value for point in metrics["samples"].data.data_points]


def test_a_collection_that_was_broken_off(host: Host, recorder: OtelRecorder) -> None:
    """A collection that has not asked for all metrics is not taken up by the next one."""
    [hits] = [metric for metric in METRICS if metric.name == "hits"]
    recorder.record(Batch({HOT: used(8)}))
    assert [8] == [observation.value for observation in recorder.observe(hits)]
    recorder.record(Batch({HOT: used(8)}))
    assert {(): 16} == host.values("stacks")


def test_files_are_told_on_request(host: Host) -> None:
    """Where file paths are asked for, a function of a module that has a file has its path."""
    recorder = OtelRecorder(Profiler(Settings()), host.provider, file_paths=True)
    ours = Function("ox_otel.otel", "OtelRecorder.observe")
    recorder.record(Batch({ours: used(8), HOT: used(3), REST: used(2)}))
    points: Any = host.collect()["seconds"].data.data_points
    files = {
        point.attributes["code.function.name"]: point.attributes.get("code.file.path")
        for point in points
    }
    assert {str(ours): otel.__file__, str(HOT): None, str(REST): None} == files


def test_a_file_is_looked_up_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A series keeps its attributes, whatever becomes of its module."""
    recorder = OtelRecorder(Profiler(Settings()), host.provider, file_paths=True)
    recorder.record(Batch({HOT: used(8)}))
    before = host.values("hits")
    monkeypatch.setitem(sys.modules, HOT.module, otel)
    assert before == host.values("hits")


def test_a_master_that_has_handed_over_observes_nothing(host: Host) -> None:
    """What a server's master exports while it forks would break, and count in, its workers."""
    with Profiler(Settings()) as profiler:
        recorder = OtelRecorder(profiler, host.provider)
        recorder.record(Batch({HOT: used(8)}))
        assert {(str(HOT),): 8} == host.values("hits")
        profiler.hand_over()
        assert [] == [name for name, metric in host.collect().items() if metric.data.data_points]
        profiler.start()
        assert {(str(HOT),): 8} == host.values("hits")


def test_a_collection_is_charged(
    host: Host, recorder: OtelRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a collection costs us on the host's thread is part of the overhead."""
    charged: list[float] = []
    monkeypatch.setattr(
        recorder._profiler._pipeline,
        "charge",
        lambda *, published, in_budget: charged.append(published),
    )
    recorder.record(Batch({Function("m", f"f{number}"): used(1) for number in range(900)}))
    began = time.thread_time()
    host.collect()
    cost = time.thread_time() - began
    assert len(UNITS) == len(charged)
    assert 0.001 < sum(charged) < cost


def run(script: str) -> list[str]:
    """Return the lines that a script of its own process prints."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout.splitlines()


GLOBAL = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
import ox_otel, time

def samples():
    profiler.snapshot()
    data = reader.get_metrics_data()
    return sum(
        point.value
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics if metric.name == "ox_profile.samples"
        for point in metric.data.data_points
    )

def until_sampled():
    while not samples(): time.sleep(0.01)
    print(True)

reader = InMemoryMetricReader()
provider = MeterProvider([reader])
"""


def test_a_global_provider_that_is_set_later() -> None:
    """The host may set its provider after `install`, which makes none, and still has everything."""
    assert ["False", "True", "0", "True"] == run(
        f"{GLOBAL}\n"
        "profiler = ox_otel.install(recorders='otel', interval=0.005)\n"
        "print(isinstance(metrics.get_meter_provider(), MeterProvider))\n"
        "metrics.set_meter_provider(provider)\n"
        "until_sampled()\n"
        "ox_otel.uninstall()\n"
        "print(samples())\n"
        "profiler = ox_otel.install(recorders='otel', interval=0.005)\n"
        "until_sampled()\n"
    )


def test_a_global_provider_that_was_set_before() -> None:
    """A provider that is there already is used, for one installation after the other."""
    assert ["True", "True"] == run(
        f"{GLOBAL}\n"
        "metrics.set_meter_provider(provider)\n"
        "for _ in range(2):\n"
        "    profiler = ox_otel.install(recorders='otel', interval=0.005)\n"
        "    until_sampled()\n"
        "    ox_otel.uninstall()\n"
    )


SETTINGS = """
metrics.set_meter_provider(provider)
scraped = {"__name__": "opentelemetry.exporter.prometheus", "reader": reader}
exec("def collect(): return reader.get_metrics_data()", scraped)
for recorders in ("otel", "prometheus,otel"):
    profiler = ox_otel.install(recorders=recorders, file_paths=recorders == "otel", interval=0.005)
    while not profiler.query("ox_otel.*").total: pass
    text = reader.get_metrics_data().to_json()
    print("code.file.path" in text, "ox_profile.hits" in str(scraped["collect"]()))
    ox_otel.uninstall()
"""


def test_it_is_told_what_it_needs_of_the_settings() -> None:
    """Files are told where that is set; the reader for prometheus_client gets what it lacks there."""
    assert ["True True", "False False"] == run(GLOBAL + SETTINGS)


def test_without_an_sdk() -> None:
    """With the API alone the recorder publishes nowhere, and harms nothing."""
    assert ["running"] == run(
        "import sys\n"
        "sys.modules['opentelemetry.sdk'] = None\n"
        "import ox_otel\n"
        "print(ox_otel.install(recorders='otel').status().state)\n"
    )


def exemplar(number: int) -> Exemplar:
    """Return an exemplar in the span of that number."""
    return Exemplar(f"{7:032x}", f"{number:016x}", 0.25, 1_700_000_000.0)


def spans_of(host: Host) -> dict[tuple[str, ...], list[tuple[int, int]]]:
    """Return the spans of the exemplars in an export, by metric and attributes."""
    return {
        (name, *(point.attributes or {}).values()): [
            (e.trace_id, e.span_id) for e in point.exemplars
        ]
        for name, metric in host.collect().items()
        for point in metric.data.data_points
        if getattr(point, "exemplars", None)
    }


def test_exemplars(host: Host, recorder: OtelRecorder) -> None:
    """An SDK makes one exemplar for self CPU of each function, of its last span, and makes it once."""
    recorder.record(Batch({HOT: used(8), COLD: used(4)}, exemplars={HOT: exemplar(1)}))
    recorder.record(Batch({HOT: used(8), COLD: used(4)}, exemplars={HOT: exemplar(2)}))
    assert {("self_seconds", "shop.cart.Cart.total", "cpu"): [(7, 2)]} == spans_of(host)
    recorder.record(Batch({HOT: used(8)}))
    assert {} == spans_of(host)


def test_who_collects_is_no_exemplar(host: Host, recorder: OtelRecorder) -> None:
    """A collection within a sampled span does not make this one an exemplar of everything."""
    recorder.record(Batch({HOT: used(8)}, tree={ROOT: 1}))
    context = trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)):
        assert {} == spans_of(host)


def test_exemplars_that_nobody_collects_are_bounded(recorder: OtelRecorder) -> None:
    """Without a collection there are no more exemplars than functions."""
    for number in range(50):
        function, last = (
            Function("generated", f"f{number}"),
            Function("generated", f"f{number - 1}"),
        )
        heir, last_heir = (Function(OTHER, f"__retired_{n}__") for n in (number, number - 1))
        ends = {last: heir, last_heir: heir}
        recorder.record(
            Batch({function: used(1)}, retired=ends, exemplars={function: exemplar(number)})
        )
    assert len(recorder._exemplars) <= 2
