"""One behaviour suite over every recorder; and the suite itself catches what it promises to."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from ox_otel import Batch, CountingRecorder, Exemplar, Function, Profiler, Settings, Usage
from ox_otel.otel import OtelRecorder
from ox_otel.prometheus import PrometheusRecorder
from ox_otel.recorders import NOTHING, Node, inclusive
from ox_otel.testing import check_recorder

FIELDS = {
    ("hits", ""): "hits",
    ("self_hits", ""): "self_hits",
    ("seconds", "cpu"): "cpu_seconds",
    ("seconds", "wait"): "wait_seconds",
    ("self_seconds", "cpu"): "self_cpu_seconds",
    ("self_seconds", "wait"): "self_wait_seconds",
}
"""Where the backends have each field of a usage: metric and state."""

HOT, COLD = Function("shop", "hot"), Function("shop", "cold")


def test_counting() -> None:
    """The recorder in memory behaves."""
    recorder = CountingRecorder()
    check_recorder(recorder, lambda: recorder.snapshot().functions)


def test_prometheus() -> None:
    """The Prometheus recorder behaves, read as a registry shows it from the second scrape on."""
    registry = CollectorRegistry()

    def read() -> dict[Function, Usage]:
        list(registry.collect())  # which shows at 0 what is new
        found: dict[Function, Usage] = {}
        for family in registry.collect():
            for sample in family.samples:
                name = sample.name.removeprefix("ox_profile_").removesuffix("_total")
                field = FIELDS.get((name, sample.labels.get("state", "")))
                if field is not None:
                    function = Function(sample.labels["module"], sample.labels["function"])
                    usage = found.get(function, NOTHING)
                    found[function] = usage._replace(**{field: sample.value})
        return found

    check_recorder(PrometheusRecorder(Profiler(Settings()), registry), read)


def test_otel() -> None:
    """The OpenTelemetry recorder behaves, read as an exporter sees it."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)

    def read() -> dict[str, Usage]:
        found: dict[str, Usage] = {}
        data: Any = reader.get_metrics_data()
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            for point in metric.data.data_points:
                state = point.attributes.get("state", "")
                field = FIELDS.get((metric.name.removeprefix("ox_profile."), state))
                if field is not None:
                    function = point.attributes["code.function.name"]
                    usage = found.get(function, NOTHING)
                    found[function] = usage._replace(**{field: point.value})
        return found

    check_recorder(OtelRecorder(Profiler(Settings()), provider), read)


Change = Callable[[Batch, CountingRecorder], Batch | None]
"""What a broken recorder makes of a batch before it counts it; None: nothing."""


class Broken:
    """A recorder that counts well, but for one fault."""

    def __init__(self, change: Change) -> None:
        self.counts = CountingRecorder()
        self._change = change

    def record(self, batch: Batch) -> None:
        """Count what the fault leaves of the batch."""
        changed = self._change(batch, self.counts)
        if changed is not None:
            self.counts.record(changed)


def without_first(batch: Batch, _: CountingRecorder) -> Batch:
    """Lose a function."""
    return replace(batch, functions=dict(list(batch.functions.items())[1:]))


def twice(batch: Batch, counts: CountingRecorder) -> Batch:
    """Count double."""
    counts.record(batch)
    return batch


def only_latest(batch: Batch, counts: CountingRecorder) -> Batch:
    """Forget what was before: a decrease."""
    counts._total = Batch()
    return batch


def into_the_batch(batch: Batch, counts: CountingRecorder) -> None:
    """Add up in the mapping of a batch that was given."""
    total: Any = counts._total.functions
    if not total:
        counts._total = batch
        return
    counts._total = counts._total.plus(batch)
    total.update(counts._total.functions)


def cleared(batch: Batch, counts: CountingRecorder) -> None:
    """Empty the batch after use."""
    counts.record(batch)
    functions: Any = batch.functions
    functions.clear()


def without_heirs(batch: Batch, _: CountingRecorder) -> Batch:
    """Keep series that have been retired."""
    return replace(batch, retired={})


def without_ended(batch: Batch, counts: CountingRecorder) -> Batch:
    """Drop the totals of retired series."""
    kept = {f: u for f, u in counts._total.functions.items() if f not in batch.retired}
    counts._total = replace(counts._total, functions=kept)
    return batch


def ended_at_0(batch: Batch, _: CountingRecorder) -> Batch:
    """Show retired series at 0."""
    return replace(batch, functions=dict.fromkeys(batch.retired, NOTHING) | dict(batch.functions))


def mixed_up(batch: Batch, _: CountingRecorder) -> Batch:
    """Take inclusive figures for self figures."""
    mixed = {f: u._replace(self_hits=u.hits) for f, u in batch.functions.items()}
    return replace(batch, functions=mixed)


def rounded(batch: Batch, _: CountingRecorder) -> Batch:
    """Count whole seconds only."""
    rounded = {
        f: u._replace(cpu_seconds=float(int(u.cpu_seconds))) for f, u in batch.functions.items()
    }
    return replace(batch, functions=rounded)


def ascii_only(batch: Batch, _: CountingRecorder) -> Batch:
    """Lose the letters of other scripts."""
    functions = {
        Function(*(ascii(text) for text in f)) if not str(f).isascii() else f: u
        for f, u in batch.functions.items()
    }
    return replace(batch, functions=functions)


def raises(_: Batch, __: CountingRecorder) -> None:
    """Fail."""
    raise RuntimeError("out of order")


FAULTS: dict[str, tuple[Change, str]] = {
    "loses a function": (without_first, "after the first batch: shop.cart.Cart.total should hold"),
    "counts double": (twice, "after the first batch: .* should hold"),
    "decreases": (only_latest, "after the same functions again: .* should hold"),
    "mixes up figures": (mixed_up, "after the first batch: .* should hold"),
    "rounds": (rounded, "after the first batch: .* should hold"),
    "adds up in a batch": (into_the_batch, "a batch has been changed"),
    "empties a batch": (cleared, "after the first batch: a batch has been changed"),
    "loses names": (ascii_only, "after awkward names: .* should hold"),
    "keeps what is retired": (without_heirs, "after the end of two series: .* should hold"),
    "loses what is retired": (without_ended, "after the end of two series: .* should hold"),
    "shows the retired at 0": (ended_at_0, "has been retired, and is still there"),
    "fails": (raises, r"record raised RuntimeError\('out of order'\)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_suite_catches_a_broken_recorder(fault: str) -> None:
    """Each fault that the suite is there for makes it fail, with words that say which."""
    change, message = FAULTS[fault]
    recorder = Broken(change)
    with pytest.raises(AssertionError, match=message):
        check_recorder(recorder, lambda: recorder.counts.snapshot().functions)


def test_the_suite_catches_a_recorder_that_grows() -> None:
    """A recorder that adds up right, but keeps every batch, is caught."""
    kept: list[Batch] = []

    class Hoarder:
        def record(self, batch: Batch) -> None:
            kept.append(batch)

    def read() -> Mapping[Function, Usage]:
        total = Batch()
        for batch in kept:
            total = total.plus(batch)
        return total.functions

    with pytest.raises(AssertionError, match=r"each batch leaves \d+ bytes behind"):
        check_recorder(Hoarder(), read)


def test_the_suite_catches_a_recorder_bound_to_a_thread() -> None:
    """A recorder that works on the thread alone that made it is caught."""
    import sqlite3

    database = sqlite3.connect(":memory:")

    class Bound:
        def record(self, batch: Batch) -> None:
            database.execute("select 1")

    with pytest.raises(AssertionError, match="record raised ProgrammingError"):
        check_recorder(Bound(), dict)
    database.close()


functions = st.builds(Function, st.sampled_from("ab"), st.sampled_from("fgh"))
# binary fractions, so that sums of floats are exact
seconds = st.integers(0, 100).map(lambda number: number / 64)
usages = st.builds(Usage, st.integers(0, 9), st.integers(0, 9), seconds, seconds, seconds, seconds)
stacks = st.dictionaries(st.lists(functions, min_size=1, max_size=3).map(tuple), usages, max_size=3)
batches = st.builds(
    Batch,
    functions=st.dictionaries(functions, usages, max_size=4),
    stacks=stacks,
    tree=st.dictionaries(
        st.sampled_from([Node("total", 0, "total"), Node("totalmains", 1, "m.main")]),
        st.integers(0, 9),
    ),
    samples=st.integers(0, 9),
    missed=st.integers(0, 9),
    overhead_seconds=seconds,
    errors=st.dictionaries(st.sampled_from(["thread", "batch"]), st.integers(1, 9)),
)


def added(mappings: list[Mapping[Any, Usage]]) -> dict[Any, Usage]:
    """Return the sums, key by key and field by field."""
    keys = {key for mapping in mappings for key in mapping}
    return {
        key: Usage(*map(sum, zip(*(m[key] for m in mappings if key in m), strict=True)))
        for key in keys
    }


@given(st.lists(batches, max_size=5))
def test_batches_add_up(stream: list[Batch]) -> None:
    """Several batches as one hold the sum of every figure."""
    total = Batch()
    for batch in stream:
        total = total.plus(batch)
    assert added([batch.functions for batch in stream]) == total.functions
    for node in {node for batch in stream for node in batch.tree}:
        assert sum(batch.tree.get(node, 0) for batch in stream) == total.tree[node]
    assert sum(batch.samples for batch in stream) == total.samples
    assert sum(batch.missed for batch in stream) == total.missed
    assert sum(batch.overhead_seconds for batch in stream) == total.overhead_seconds
    for kind in ("thread", "batch"):
        expected = sum(batch.errors.get(kind, 0) for batch in stream)
        assert expected == total.errors.get(kind, 0)


def test_retired_series_move_to_their_heir() -> None:
    """A later batch that retires a series gives its total to the heir, and what it gains anew not."""
    heir = Function("__other__", "__retired_1__")
    first = Batch({HOT: Usage(5, 4), COLD: Usage(3, 2)})
    later = Batch({HOT: Usage(1, 1)}, retired={HOT: heir, COLD: heir})
    total = first.plus(later)
    assert {heir: Usage(8, 6), HOT: Usage(1, 1)} == total.functions
    assert later.retired == total.retired


def test_retired_nodes_move_to_their_heir() -> None:
    """The same holds for nodes of the tree."""
    root, old, heir = (
        Node("total", 0, "total"),
        Node("totalolder", 1, "m.f"),
        Node("totalheirs", 1, "h"),
    )
    total = Batch(tree={root: 1, old: 2}).plus(Batch(tree={root: 3}, retired_nodes={old: heir}))
    assert {root: 4, heir: 2} == total.tree
    assert {old: heir} == total.retired_nodes


def test_what_ends_moves_though_nothing_is_gained() -> None:
    """A batch in which series end, and none gains, gives their totals to the heirs all the same."""
    heir = Function("__other__", "__retired_1__")
    total = Batch({HOT: Usage(5, 4), COLD: Usage(3, 2)}).plus(Batch(retired={COLD: heir}))
    assert {HOT: Usage(5, 4), heir: Usage(3, 2)} == total.functions


def test_heirs_that_end_in_a_later_batch() -> None:
    """Two batches as one lead straight to the last heir, functions and nodes alike."""
    first, second = Function("__other__", "__retired_1__"), Function("__other__", "__retired_2__")
    assert {HOT: second, first: second} == (
        Batch(retired={HOT: first}).plus(Batch(retired={first: second})).retired
    )
    old, heir, last = (Node(f"total{name}", 1, name) for name in ("older", "heirs", "lasts"))
    assert {old: last, heir: last} == (
        Batch(retired_nodes={old: heir}).plus(Batch(retired_nodes={heir: last})).retired_nodes
    )


def test_inclusive_times() -> None:
    """A node has with its own time that of all nodes whose paths begin with its path."""
    paths = {"total": 1, "totalmains": 2, "totalmainsleafs": 4, "totalother": 8}
    tree = {Node(path, len(path) // 5 - 1, path[-5:]): time for path, time in paths.items()}
    times = {node.path: time for node, time in inclusive(tree).items()}
    assert {"total": 15, "totalmains": 6, "totalmainsleafs": 4, "totalother": 8} == times
    assert list(tree) == list(inclusive(tree))


def test_a_sum_has_no_stacks() -> None:
    """Stacks have no bound over time, so a sum of batches leaves them out."""
    batch = Batch({HOT: Usage(1)}, {(HOT, COLD): Usage(1)})
    assert {} == batch.plus(batch).stacks


def test_the_sum_has_the_latest_exemplars() -> None:
    """Of two exemplars of a function the later one stays; none outlives its series."""
    one, two, other = (Exemplar("7" * 32, digit * 16, 0.25, 1.0) for digit in "abc")
    heir = Function("__other__", "__retired_1__")
    first = Batch(exemplars={HOT: one, COLD: other})
    assert {HOT: two, COLD: other} == first.plus(Batch(exemplars={HOT: two})).exemplars
    assert {HOT: one} == first.plus(Batch(retired={COLD: heir})).exemplars
    ended_and_back = Batch(retired={COLD: heir}, exemplars={COLD: two})
    assert {HOT: one, COLD: two} == first.plus(ended_and_back).exemplars


def test_a_query() -> None:
    """A query finds functions by glob, those that use the CPU first, and says how many there are."""
    recorder = CountingRecorder()
    recorder.record(
        Batch(
            {
                Function("shop", "waits"): Usage(9, 9, 0.0, 9.0, 0.0, 9.0),
                Function("shop", "burns"): Usage(2, 2, 1.0, 0.0, 1.0, 0.0),
                Function("shop", "calls"): Usage(9, 0, 1.0, 9.0),
                Function("stock", "burns"): Usage(1, 1, 2.0, 0.0, 2.0, 0.0),
            }
        )
    )
    records, total = recorder.query()
    assert 4 == total
    assert ["stock.burns", "shop.burns", "shop.waits", "shop.calls"] == [r.name for r in records]
    assert [1, 2, 9, 9] == [record.hits for record in records]
    assert (["shop.burns"], 3) == names(recorder, "shop.*", 1)
    assert (["stock.burns", "shop.burns"], 2) == names(recorder, "*.burns", 10)
    assert ([], 4) == names(recorder, "*", 0)
    assert ([], 4) == names(recorder, "*", -1)
    assert ([], 0) == names(recorder, "burns", 10)


def names(recorder: CountingRecorder, pattern: str, limit: int) -> tuple[list[str], int]:
    """Return the names that a query finds, and how many match."""
    records, total = recorder.query(pattern, limit)
    return [record.name for record in records], total


def test_show() -> None:
    """The table for people has a line a function, in seconds, the hottest first."""
    recorder = CountingRecorder()
    recorder.record(Batch({HOT: Usage(9, 8, 7.5, 6.5, 5.5, 4.5), COLD: Usage(1)}))
    expected = [
        "top 1 of 2 functions, thread-seconds since the start",
        " self cpu       cpu self wait      wait     hits  function",
        "     5.50      7.50      4.50      6.50        9  shop.hot",
    ]
    assert expected == recorder.show(limit=1).splitlines()
