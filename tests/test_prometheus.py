"""The Prometheus recorder: conserved, bounded and monotonic at every scrape, and never in the way."""

import math
import time
from collections.abc import ItemsView, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from ox_otel import Batch, Exemplar, Function, Profiler, RouteUsage, Settings, Usage, _life
from ox_otel._heat import RETIRE_AFTER
from ox_otel._ledger import SERIES_PER_FUNCTION, Ledger
from ox_otel._names import valid
from ox_otel._pipeline import SERIES_PER_ROUTE
from ox_otel._status import ERROR_KINDS, OWN_SERIES
from ox_otel._tree import SERIES_PER_NODE, Tree
from ox_otel.prometheus import PrometheusRecorder, expose
from ox_otel.recorders import OTHER, TOKEN_LENGTH, Node, Stack

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

LABELS = {
    "ox_profile_hits_total": {"module", "function"},
    "ox_profile_self_hits_total": {"module", "function"},
    "ox_profile_seconds_total": {"module", "function", "state"},
    "ox_profile_self_seconds_total": {"module", "function", "state"},
    "ox_profile_tree_seconds_total": {"path", "level", "label"},
    "ox_profile_tree_self_seconds_total": {"path", "level", "label"},
    "ox_profile_route_requests_total": {"route"},
    "ox_profile_route_cpu_seconds_total": {"route"},
    "ox_profile_route_wait_seconds_total": {"route"},
    "ox_profile_samples_total": set(),
    "ox_profile_stacks_total": set(),
    "ox_profile_observed_seconds_total": {"state"},
    "ox_profile_missed_samples_total": set(),
    "ox_profile_overhead_seconds_total": set(),
    "ox_profile_errors_total": {"kind"},
    "ox_profile_series": set(),
    "ox_profile_series_limit": set(),
    "ox_profile_interval_seconds": set(),
    "ox_profile_running": set(),
    "ox_profile_info": {"version", "engine", "python"},
    "ox_profile_wakeup_delay_seconds_bucket": {"le"},
    "ox_profile_wakeup_delay_seconds_count": set(),
    "ox_profile_wakeup_delay_seconds_sum": set(),
}

Series = tuple[str, tuple[tuple[str, str], ...]]
"""A metric and its labels, sorted."""


class Published(NamedTuple):
    """A profiler that does not run, its recorder, and the registry that shows it."""

    profiler: Profiler
    recorder: PrometheusRecorder
    registry: CollectorRegistry

    def record(
        self,
        functions: Mapping[Function, Usage],
        retired: Mapping[Function, Function] | None = None,
    ) -> None:
        """Hand over a batch, as the profiler would."""
        self.recorder.record(Batch(functions, retired=retired or {}))

    def scrape(self) -> dict[Series, float]:
        """Return what a scrape gets."""
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.registry.collect()
            for sample in family.samples
        }


def publish() -> Published:
    """Return a new recorder in a registry of its own."""
    registry = CollectorRegistry()
    profiler = Profiler(Settings())
    return Published(profiler, PrometheusRecorder(profiler, registry), registry)


def series_of(function: Function) -> Series:
    """Return the series of a function's hits."""
    module, name = function
    return "ox_profile_hits_total", (("function", name), ("module", module))


def total(scraped: Mapping[Series, float], metric: str, **labels: str) -> float:
    """Return the sum of a metric over all series with these labels."""
    return sum(
        value
        for (name, having), value in scraped.items()
        if name == metric and labels.items() <= dict(having).items()
    )


def used(hits: int) -> Usage:
    """Return the usage of a function that was seen so often, at the top."""
    return Usage(hits, hits, hits / 4, hits / 8, hits / 4, hits / 8)


HOT, COLD = Function("shop", "hot"), Function("shop", "cold")
ROOT = Node("total", 0, "total")
MAIN, LEAF = Node("totalmains", 1, "shop.main"), Node("totalmainsleafs", 2, "shop.leaf")


def test_names_and_labels() -> None:
    """The metrics, their labels, types and help are exactly those of the contract."""
    published = publish()
    published.recorder.record(Batch({HOT: used(8)}, tree={ROOT: 5}, routes={"/": RouteUsage()}))
    _, text = expose("", published.registry)
    families = list(text_string_to_metric_families(text.decode()))
    found = {sample.name: sample for family in families for sample in family.samples}
    assert LABELS == {name: set(sample.labels) for name, sample in found.items()}
    assert all(family.documentation for family in families)
    for family in families:
        suffix = family.samples[0].name.removeprefix(family.name)
        types = {"_total": "counter", "": "gauge", "_bucket": "histogram"}
        assert types[suffix] == family.type


def test_values() -> None:
    """Every figure of a function stands in its place."""
    published = publish()
    published.recorder.record(
        Batch(
            {HOT: Usage(6, 5, 4.5, 3.5, 2.5, 1.5)},
            tree={ROOT: 500_000_000, MAIN: 0, LEAF: 2_000_000_000},
            routes={"/users/{id}": RouteUsage(11, 12.5, 13.5)},
            samples=7,
            missed=8,
            delays={0.001: 3, 0.05: 2, math.inf: 1},
            delay_seconds=8.5,
            overhead_seconds=9.5,
            errors={"batch": 10},
        )
    )
    scraped = {
        (name, *(value for label, value in labels if label not in ("module", "function"))): value
        for (name, labels), value in published.scrape().items()
        if name not in ("ox_profile_info", "ox_profile_errors_total")
    }
    assert {
        ("ox_profile_hits_total",): 6,
        ("ox_profile_self_hits_total",): 5,
        ("ox_profile_seconds_total", "cpu"): 4.5,
        ("ox_profile_seconds_total", "wait"): 3.5,
        ("ox_profile_self_seconds_total", "cpu"): 2.5,
        ("ox_profile_self_seconds_total", "wait"): 1.5,
        ("ox_profile_tree_seconds_total", "total", "0", "total"): 2.5,
        ("ox_profile_tree_self_seconds_total", "total", "0", "total"): 0.5,
        ("ox_profile_tree_seconds_total", "shop.main", "1", "totalmains"): 2.0,
        ("ox_profile_tree_self_seconds_total", "shop.main", "1", "totalmains"): 0.0,
        ("ox_profile_tree_seconds_total", "shop.leaf", "2", "totalmainsleafs"): 2.0,
        ("ox_profile_tree_self_seconds_total", "shop.leaf", "2", "totalmainsleafs"): 2.0,
        ("ox_profile_route_requests_total", "/users/{id}"): 11,
        ("ox_profile_route_cpu_seconds_total", "/users/{id}"): 12.5,
        ("ox_profile_route_wait_seconds_total", "/users/{id}"): 13.5,
        ("ox_profile_samples_total",): 7,
        ("ox_profile_stacks_total",): 5,
        ("ox_profile_observed_seconds_total", "cpu"): 2.5,
        ("ox_profile_observed_seconds_total", "wait"): 1.5,
        ("ox_profile_missed_samples_total",): 8,
        ("ox_profile_overhead_seconds_total",): 9.5,
        ("ox_profile_series",): (
            SERIES_PER_FUNCTION + 3 * SERIES_PER_NODE + SERIES_PER_ROUTE + OWN_SERIES
        ),
        ("ox_profile_series_limit",): 2000,
        ("ox_profile_interval_seconds",): 0.02,
        ("ox_profile_running",): 0,
        ("ox_profile_wakeup_delay_seconds_bucket", "0.001"): 3,
        ("ox_profile_wakeup_delay_seconds_bucket", "0.005"): 3,
        ("ox_profile_wakeup_delay_seconds_bucket", "0.01"): 3,
        ("ox_profile_wakeup_delay_seconds_bucket", "0.05"): 5,
        ("ox_profile_wakeup_delay_seconds_bucket", "0.1"): 5,
        ("ox_profile_wakeup_delay_seconds_bucket", "+Inf"): 6,
        ("ox_profile_wakeup_delay_seconds_count",): 6,
        ("ox_profile_wakeup_delay_seconds_sum",): 8.5,
    } == scraped
    errors = {
        labels[0][1]: value
        for (name, labels), value in published.scrape().items()
        if name == "ox_profile_errors_total"
    }
    assert dict.fromkeys(ERROR_KINDS, 0) | {"batch": 10} == errors


functions = st.builds(Function, st.sampled_from("abc"), st.sampled_from("fghijklmno"))
stacks = st.dictionaries(
    st.lists(functions, min_size=1, max_size=4).map(tuple),
    st.integers(1, 50).map(used),
    max_size=8,
)
streams = st.lists(
    st.tuples(stacks, st.sampled_from([1.0, 60.0, RETIRE_AFTER, 10 * RETIRE_AFTER])), max_size=15
)


@given(streams, st.integers(2, 12), st.integers(1, 12))
def test_any_stream(stream: list[tuple[dict[Stack, Usage], float]], limit: int, nodes: int) -> None:
    """At every scrape sums are conserved, and over all of them `increase()` is what happened.

    Series come and go meanwhile: what they gain counts once, under one name or another, and
    nothing that lives ever decreases.
    """
    published, ledger, tree = publish(), Ledger(limit), Tree(nodes, "cpu")
    before = published.scrape()
    now, recorded, increased, increased_tree = 0.0, 0, 0.0, 0.0
    for seen, elapsed in stream:
        now += elapsed
        gains, retired = ledger.settle(seen, now)
        grown, retired_nodes = tree.settle(seen, now)
        published.recorder.record(
            Batch(gains, tree=grown, retired=retired, retired_nodes=retired_nodes)
        )
        recorded += sum(usage.hits for usage in seen.values())
        ended = {series_of(function) for function in retired} | {
            series_of_node(node) for node in retired_nodes
        }
        for _ in range(2):  # whatever is new is seen at 0 first
            scraped = published.scrape()
            check_sums(scraped)
            check_tree(scraped)
            assert len(scraped) == total(scraped, "ox_profile_series")
            most = SERIES_PER_FUNCTION * limit + SERIES_PER_NODE * nodes + OWN_SERIES
            assert len(scraped) <= most
            for series in before.keys() & scraped.keys():
                if series[0].endswith("_total") and series not in ended:
                    assert before[series] <= scraped[series]
            increased += increase(before, scraped, "ox_profile_self_hits_total")
            increased_tree += increase(before, scraped, "ox_profile_tree_self_seconds_total")
            before = scraped
    assert recorded == increased == total(before, "ox_profile_stacks_total")
    assert math.isclose(recorded / 4, increased_tree, abs_tol=1e-6)


def series_of_node(node: Node) -> Series:
    """Return the series of a node's self time."""
    labels = ("label", node.label), ("level", str(node.level)), ("path", node.path)
    return "ox_profile_tree_self_seconds_total", labels


def check_tree(scraped: Mapping[Series, float]) -> None:
    """Check that the times of a node are its own and those of its children, at every scrape."""
    times: dict[str, dict[str, float]] = {"seconds": {}, "self_seconds": {}}
    for (name, labels), value in scraped.items():
        if name.startswith("ox_profile_tree_"):
            kind = name.removeprefix("ox_profile_tree_").removesuffix("_total")
            times[kind][dict(labels)["path"]] = value
    inclusive, own = times["seconds"], times["self_seconds"]
    assert inclusive.keys() == own.keys()
    for path, seconds in inclusive.items():
        children = [s for child, s in inclusive.items() if child[:-TOKEN_LENGTH] == path]
        assert math.isclose(seconds, own[path] + sum(children), abs_tol=1e-9)


def check_sums(scraped: Mapping[Series, float]) -> None:
    """Check that the series of functions add up to the totals of the same scrape."""
    self_hits = total(scraped, "ox_profile_self_hits_total")
    assert self_hits == total(scraped, "ox_profile_stacks_total")
    for state in ("cpu", "wait"):
        self_seconds = total(scraped, "ox_profile_self_seconds_total", state=state)
        observed = total(scraped, "ox_profile_observed_seconds_total", state=state)
        assert math.isclose(self_seconds, observed, abs_tol=1e-9)


def increase(before: Mapping[Series, float], after: Mapping[Series, float], metric: str) -> float:
    """Return by how much all series of a metric have increased, as Prometheus reckons.

    It knows nothing of a series before its first scrape, and takes a decrease for a restart at 0.
    """
    return sum(
        after[series] - before[series] if after[series] >= before[series] else after[series]
        for series in after.keys() & before.keys()
        if series[0] == metric
    )


def test_the_first_scrape_shows_everything() -> None:
    """What happened before the first scrape is shown as it is."""
    published = publish()
    published.record({HOT: used(8)})
    assert 8 == published.scrape()[series_of(HOT)]


def test_a_new_series_begins_at_0() -> None:
    """Afterwards a series is first shown at 0, so that its first increments are an increase."""
    published = publish()
    published.scrape()
    published.record({HOT: used(8)})
    assert 0 == published.scrape()[series_of(HOT)]
    published.record({HOT: used(1)})
    assert 9 == published.scrape()[series_of(HOT)]


def test_a_new_route_begins_at_0() -> None:
    """A route, too, is first shown at 0, so that its first requests are an increase."""
    published = publish()
    published.scrape()
    series = "ox_profile_route_requests_total", (("route", "/"),)
    published.recorder.record(Batch(routes={"/": RouteUsage(2, 1.0, 1.0)}))
    assert 0 == published.scrape()[series]
    assert 2 == published.scrape()[series]


def test_an_heir_appears_with_its_total() -> None:
    """What retired series had is neither lost nor counted again: their heir begins with it."""
    published = publish()
    published.record({HOT: used(8), COLD: used(4)})
    published.scrape()
    heir = Function(OTHER, "__retired_1__")
    published.record({HOT: used(1)}, retired={COLD: heir})
    scraped = published.scrape()
    assert series_of(COLD) not in scraped
    assert (9, 4) == (scraped[series_of(HOT)], scraped[series_of(heir)])

    second = Function(OTHER, "__retired_2__")
    published.record({}, retired={heir: second, HOT: second})
    assert 13 == published.scrape()[series_of(second)]


def test_a_new_node_begins_at_0_and_so_does_its_time_in_those_above() -> None:
    """What a node has on arrival is held back from its ancestors too: they never have less."""
    published = publish()
    published.recorder.record(Batch(tree={ROOT: 10**9}))
    published.scrape()
    published.recorder.record(Batch(tree={ROOT: 10**9, MAIN: 0, LEAF: 3 * 10**9}))
    scraped = published.scrape()
    check_tree(scraped)
    assert (2, 0, 0) == tuple(scraped[series_of_node(node)] for node in (ROOT, MAIN, LEAF))
    assert 2 == total(scraped, "ox_profile_tree_seconds_total", label="total")
    scraped = published.scrape()
    check_tree(scraped)
    assert 5 == total(scraped, "ox_profile_tree_seconds_total", label="total")


def test_an_heir_of_nodes_appears_with_their_time() -> None:
    """What retired nodes had counts for those above as before, and not again."""
    published = publish()
    published.recorder.record(Batch(tree={ROOT: 10**9, MAIN: 2 * 10**9, LEAF: 3 * 10**9}))
    published.scrape()
    heir = Node("totalheirs", 1, f"{OTHER}.__retired_1__")
    published.recorder.record(Batch(tree={ROOT: 0}, retired_nodes={MAIN: heir, LEAF: heir}))
    scraped = published.scrape()
    check_tree(scraped)
    assert 5 == scraped[series_of_node(heir)]
    assert 6 == total(scraped, "ox_profile_tree_seconds_total", label="total")
    assert 6 == total(scraped, "ox_profile_tree_self_seconds_total")


def test_memory_of_heirs_is_bounded() -> None:
    """The recorder remembers no more heirs than live."""
    published = publish()
    for number in range(100):
        last, next_ = (Function(OTHER, f"__retired_{n}__") for n in (number, number + 1))
        ended, heir = (Node(f"total{n:05}", 1, "m.f") for n in (number, number + 1))
        published.recorder.record(
            Batch(
                {HOT: used(1)},
                tree={ROOT: 1},
                retired={HOT: next_, last: next_},
                retired_nodes={ended: heir},
            )
        )
    assert 2 == len(published.recorder._recorded[1])


def test_series_of_a_running_profiler() -> None:
    """However many functions run, the series are as many as the gauge says, within the limit."""
    registry = CollectorRegistry()
    settings = Settings(max_series=200, interval=0.001, max_overhead=1)
    # so many hot functions that the table would overflow
    deep = "".join(f"def f{n}(): f{n - 1}()\n" for n in range(1, 60))
    deep = f"def f0():\n for _ in range(4_000_000): pass\n{deep}f59()"
    with Profiler(settings) as profiler:
        published = Published(profiler, PrometheusRecorder(profiler, registry), registry)
        profiler.add_recorder(published.recorder)
        for number in range(500):
            namespace = {"__name__": f"generated_{number % 50}"}
            exec(f"def f{number}():\n for _ in range(20000): pass", namespace)  # noqa: S102
            namespace[f"f{number}"]()  # type: ignore[operator]
        exec(deep, {"__name__": "deep"})  # noqa: S102
        profiler.snapshot()
        profiler.pause()
        deadline, scraped = time.monotonic() + 60, published.scrape()
        while total(scraped, "ox_profile_samples_total") != profiler.status().samples:
            assert time.monotonic() < deadline  # the recorder has a thread of its own
            time.sleep(0.01)
            scraped = published.scrape()
        published.scrape()  # to which a series that is new holds its first increments back
        scraped = published.scrape()
        check_sums(scraped)
        assert len(scraped) == total(scraped, "ox_profile_series") == profiler.status().series
        assert 100 < len(scraped) <= total(scraped, "ox_profile_series_limit") == 200
        assert total(scraped, "ox_profile_samples_total") == profiler.status().samples


class Broken:
    """Stands in for a part that fails."""

    def snapshot(self) -> Batch:
        """Fail."""
        raise RuntimeError("out of order")


def test_a_fault_shows_the_last_good_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection that fails repeats the last one, is counted, and takes no other metric along."""
    published = publish()
    mine = Counter("mine", "A metric of the host.", registry=published.registry)
    mine.inc()
    published.record({HOT: used(8)})
    good = published.scrape()
    assert 1 == total(good, "mine_total")

    with monkeypatch.context() as patch:
        patch.setattr(published.recorder, "_visible", Broken().snapshot)
        mine.inc()
        scraped = published.scrape()
        assert 2 == total(scraped, "mine_total")
        without_host = {series: value for series, value in good.items() if "mine" not in series[0]}
        assert without_host.items() <= scraped.items()
    with monkeypatch.context() as patch:
        patch.setattr(published.profiler, "status", Broken().snapshot)
        assert without_host.items() <= published.scrape().items()

    with published.profiler as profiler:
        assert {"scrape": 2} == profiler.snapshot().errors


def test_a_fault_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no good figures yet, the host's metrics stand alone."""
    published = publish()
    Counter("mine", "A metric of the host.", registry=published.registry).inc()
    monkeypatch.setattr(published.recorder, "_visible", Broken().snapshot)
    assert {"mine_total", "mine_created"} == {name for name, _ in published.scrape()}


class Stuck(dict[Function, Usage]):
    """What functions used, told only when it is *released*."""

    asked, released = Event(), Event()

    def items(self) -> ItemsView[Function, Usage]:
        """Wait, in the middle of whatever is being done with it."""
        self.asked.set()
        self.released.wait()
        return super().items()


class Sticking(NamedTuple):
    """A recorder that holds up the thread that samples, in the middle of what is published."""

    published: Published

    def record(self, _: Batch) -> None:
        """Publish what is told only when it is released."""
        self.published.record(Stuck({HOT: used(1)}))


def test_a_scrape_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape needs no lock that anything of ours could hold, nor that any thread goes on."""
    monkeypatch.setattr(_life, "FLUSH_SECONDS", 30.0)
    published = publish()
    published.record({HOT: used(8)})
    published.profiler.add_recorder(Sticking(published), quick=True)
    with ThreadPoolExecutor(1) as scraping, published.profiler as profiler:
        profiler.set_interval(0.02)  # makes a batch at once
        try:
            assert Stuck.asked.wait(60)
            with profiler._life._changing:
                assert 8 == scraping.submit(published.scrape).result(20)[series_of(HOT)]
        finally:
            Stuck.released.set()


def test_scrapes_while_captures_are_made() -> None:
    """With two captures at once sums are conserved at each scrape, and no counter decreases."""
    published = publish()
    published.profiler.add_recorder(published.recorder, quick=True)
    with ThreadPoolExecutor() as pool, published.profiler as profiler:
        captures = [pool.submit(profiler.capture, seconds) for seconds in (0.2, 0.6)]
        before: dict[Series, float] = {}
        while not all(capture.done() for capture in captures):
            after = published.scrape()
            check_sums(after)
            check_tree(after)
            counters = [series for series in before if series[0].endswith("_total")]
            assert all(after[series] >= before[series] for series in counters)
            before = after
            time.sleep(0.01)
        profiles = [capture.result() for capture in captures]
    published.scrape()  # to which a series that is new holds its first increments back
    counted = total(published.scrape(), "ox_profile_stacks_total")
    captured = [sum(usage.hits for usage in profile.stacks.values()) for profile in profiles]
    assert 0 < max(captured) <= counted


def test_a_scrape_by_the_host_is_charged() -> None:
    """What a scrape costs on a thread of the host is part of the overhead."""
    published = publish()
    many = {Function("m", str(number)): used(1) for number in range(2000)}
    published.record(many)
    began = time.thread_time()
    published.recorder.collect()
    cost = time.thread_time() - began
    with published.profiler as profiler:
        charged = profiler.snapshot().overhead_seconds
    assert 0.8 * cost < charged < 0.1 + 2 * cost


def test_close() -> None:
    """After `close` the metrics are gone, and another recorder may take the place."""
    published = publish()
    Counter("mine", "A metric of the host.", registry=published.registry)
    published.recorder.close()
    assert {"mine_total", "mine_created"} == {name for name, _ in published.scrape()}
    published.recorder.close()
    PrometheusRecorder(published.profiler, published.registry)


def test_no_second_series_of_ours() -> None:
    """The registry refuses a second recorder: figures must not count twice."""
    published = publish()
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        PrometheusRecorder(published.profiler, published.registry)


def test_part_of_a_scrape() -> None:
    """A scrape that asks for one metric by name gets it."""
    published = publish()
    published.record({HOT: used(8)})
    part = published.registry.restricted_registry(["ox_profile_hits_total"])
    assert b"ox_profile_hits_total{" in generate_latest(part)


def test_openmetrics() -> None:
    """In the other format the figures are the same, and no time of creation doubles the series."""
    published = publish()
    published.record({HOT: used(8)})
    content_type, text = expose(OPENMETRICS, published.registry)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert b"_created" not in text
    parsed = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in openmetrics_parser.text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    assert published.scrape() == parsed


awkward = st.text(st.characters(), max_size=30) | st.sampled_from(
    ["", '"', "\\", "\n", "\\n", "\r\n", "\0", "\x85", "\u2028", "\ud800", "a" * 10_000, "é" * 151]
)


def both_formats(published: Published) -> Iterable[set[Function]]:
    """Yield the functions that each format, read back, has."""
    for accept, parse in (
        ("", text_string_to_metric_families),
        (OPENMETRICS, openmetrics_parser.text_string_to_metric_families),
    ):
        _, text = expose(accept, published.registry)
        yield {
            Function(sample.labels["module"], sample.labels["function"])
            for family in parse(text.decode())
            for sample in family.samples
            if sample.name == "ox_profile_hits_total"
        }


@given(st.lists(st.builds(Function, awkward.map(valid), awkward.map(valid)), max_size=5))
def test_any_name_comes_back(named: list[Function]) -> None:
    """Whatever functions are called, their valid names come back through the parsers."""
    published = publish()
    published.record(dict.fromkeys(named, used(1)))
    for found in both_formats(published):
        assert set(named) == found


def exemplar(number: int) -> Exemplar:
    """Return an exemplar in the span of that number."""
    return Exemplar(f"{7:032x}", f"{number:016x}", 0.25, 1_700_000_000.5 + number)


def exemplars_of(text: str) -> dict[Series, Any]:
    """Return the exemplars in a text, as a reader of OpenMetrics finds them."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.exemplar
        for family in openmetrics_parser.text_string_to_metric_families(text)
        for sample in family.samples
        if sample.exemplar
    }


def test_exemplars() -> None:
    """In OpenMetrics self CPU comes with the last span in which the function was seen, else nothing."""
    published = publish()
    published.recorder.record(Batch({HOT: used(8), COLD: used(4)}, exemplars={HOT: exemplar(1)}))
    published.recorder.record(Batch({HOT: used(8), COLD: used(4)}, exemplars={HOT: exemplar(2)}))
    _, text = expose(OPENMETRICS, published.registry)
    [(series, found)] = exemplars_of(text.decode()).items()
    labels = (("function", "hot"), ("module", "shop"), ("state", "cpu"))
    assert ("ox_profile_self_seconds_total", labels) == series
    assert {"trace_id": f"{7:032x}", "span_id": f"{2:016x}"} == found.labels
    assert (0.25, 1_700_000_002.5) == (found.value, float(found.timestamp))


def test_other_formats_know_no_exemplars() -> None:
    """In the format that has none, the text is as without."""
    published, without = publish(), publish()
    published.recorder.record(Batch({HOT: used(8)}, exemplars={HOT: exemplar(1)}))
    without.record({HOT: used(8)})
    assert expose("", without.registry) == expose("", published.registry)


def test_an_exemplar_is_held_back_with_the_increment_it_belongs_to() -> None:
    """A series that is shown at 0 has no exemplar yet."""
    published = publish()
    published.scrape()
    published.recorder.record(Batch({HOT: used(8)}, exemplars={HOT: exemplar(1)}))
    counts = []
    for _ in range(2):
        _, text = expose(OPENMETRICS, published.registry)
        counts.append(len(exemplars_of(text.decode())))
    assert [0, 1] == counts


def test_an_exemplar_ends_with_its_series() -> None:
    """The heir of a series has not run in the spans of it."""
    published = publish()
    heir = Function(OTHER, "__retired_1__")
    published.recorder.record(Batch({HOT: used(8)}, exemplars={HOT: exemplar(1)}))
    published.record({COLD: used(1)}, {HOT: heir})
    published.scrape()
    _, text = expose(OPENMETRICS, published.registry)
    assert {} == exemplars_of(text.decode())
