"""The calling-context tree: bounded, conserved, monotonic, and the same in every process."""

import random
import subprocess
import sys
import time as time_of_day
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ox_otel import Profiler, Settings, _tree
from ox_otel._clock import Schedule
from ox_otel._heat import RETIRE_AFTER
from ox_otel._ledger import SERIES_PER_FUNCTION
from ox_otel._pipeline import SERIES_PER_ROUTE, Pipeline
from ox_otel._status import OWN_SERIES
from ox_otel._tree import DEPTH, SERIES_PER_NODE, Tree, folded, token
from ox_otel.recorders import OTHER, TOKEN_LENGTH, Batch, Function, Node, Stack, Usage, inclusive


def usage(hits: int, cpu_seconds: float = 0.0, wait_seconds: float = 0.0) -> Usage:
    """Return the usage of a whole stack, where self and inclusive are the same."""
    return Usage(hits, hits, cpu_seconds, wait_seconds, cpu_seconds, wait_seconds)


def stack(names: str) -> Stack:
    """Return a stack of functions named by one letter each."""
    return tuple([Function("m", name) for name in names])


def stacks(**hits: int) -> dict[Stack, Usage]:
    """Return stacks that were seen so often, and used a quarter of a second of CPU each time."""
    return {stack(names): usage(count, cpu_seconds=count / 4) for names, count in hits.items()}


class Grown(NamedTuple):
    """A tree and all that it has counted."""

    tree: Tree
    batches: list[Batch]

    def settle(self, seen: dict[Stack, Usage], now: float = 0.0) -> Batch:
        """Count what was seen; return all that has been."""
        gains, retired = self.tree.settle(seen, now)
        self.batches[0] = self.batches[0].plus(Batch(tree=gains, retired_nodes=retired))
        return self.batches[0]

    def shape(self) -> dict[str, float]:
        """Return the self seconds of each node, by the letters of the functions on its path."""
        labels = {node.path: node.label for node in self.batches[0].tree}
        return {
            "".join(
                labels[node.path[:end]].removeprefix("m.")
                for end in range(2 * TOKEN_LENGTH, len(node.path) + 1, TOKEN_LENGTH)
            ): time / 1e9
            for node, time in self.batches[0].tree.items()
        }


def grow(limit: int = 100, time: str = "cpu") -> Grown:
    """Return a tree that has counted nothing."""
    return Grown(Tree(limit, time), [Batch()])


functions = st.builds(Function, st.just("m"), st.sampled_from([*"abcdef", OTHER]))
# whole numbers of nanoseconds that floats hold exactly
seconds = st.integers(0, 100).map(lambda number: number / 64)
streams = st.lists(
    st.tuples(
        st.dictionaries(
            st.lists(functions, min_size=1, max_size=6).map(tuple),
            st.builds(usage, st.integers(0, 50), seconds, seconds),
            max_size=12,
        ),
        st.sampled_from([0.0, 1.0, 60.0, RETIRE_AFTER, 10 * RETIRE_AFTER, 1e6]),
    ),
    max_size=25,
)


@given(streams, st.integers(1, 20), st.sampled_from(["cpu", "wall"]))
@settings(max_examples=300)
def test_any_stream_is_conserved_bounded_and_monotonic(
    stream: list[tuple[dict[Stack, Usage], float]], limit: int, time: str
) -> None:
    """Whatever comes in: sums are exact, nodes never too many, and no time ever decreases."""
    grown = grow(limit, time)
    observed, now = 0.0, 0.0
    for seen, elapsed in stream:
        now += elapsed
        observed += sum(
            used.cpu_seconds + (used.wait_seconds if time == "wall" else 0)
            for used in seen.values()
        )
        before = grown.batches[0].tree
        tree = grown.settle(seen, now).tree
        times, times_before = inclusive(tree), inclusive(before)
        assert observed == sum(tree.values()) / 1e9
        assert len(tree) == len(grown.tree) <= limit
        check_shape(list(tree))
        for node in tree.keys() & before.keys():
            assert before[node] <= tree[node]
            assert times_before[node] <= times[node]


def check_shape(nodes: list[Node]) -> None:
    """Check that nodes, sorted by path, are what a flame graph is drawn from."""
    nodes = sorted(nodes)
    root = nodes[0]
    assert (TOKEN_LENGTH, 0, "total") == (len(root.path), root.level, root.label)
    paths = {node.path for node in nodes}
    assert len(nodes) == len(paths)
    for last, node in pairwise(nodes):
        assert 1 <= node.level <= last.level + 1
        assert TOKEN_LENGTH * (node.level + 1) == len(node.path)
        assert node.path[:-TOKEN_LENGTH] in paths
        assert node.path.isascii()
        assert node.path.isalpha()
        assert node.path.islower()


@given(streams)
@settings(max_examples=50)
def test_a_batch_is_a_tree_by_itself(stream: list[tuple[dict[Stack, Usage], float]]) -> None:
    """With each node that gains, the nodes above are in the batch: it can be drawn alone."""
    tree = Tree(20, "wall")
    for seen, elapsed in stream:
        gains, _ = tree.settle(seen, elapsed)
        check_shape(list(gains))


def test_self_and_inclusive_time() -> None:
    """A node has the time at the top of its own stacks, and with it the time of those above."""
    grown = grow()
    total = grown.settle(stacks(a=8, ab=12, abc=20, d=8))
    assert {"": 0, "a": 2, "ab": 3, "abc": 5, "d": 2} == grown.shape()
    times = {node.label: time / 1e9 for node, time in inclusive(total.tree).items()}
    assert {"total": 12, "m.a": 10, "m.b": 8, "m.c": 5, "m.d": 2} == times


def test_what_is_not_hot_stays_in_its_parent() -> None:
    """A function seen once has no node: its time is its caller's own."""
    grown = grow()
    grown.settle(stacks(a=50, ab=1))
    assert {"": 0, "a": 12.75} == grown.shape()


def test_threads_that_wait_do_not_make_others_hot() -> None:
    """In a tree of CPU the hits of stacks without any count for nothing."""
    waiting = {stack(name): usage(50, 0.0, 1.0) for name in "bcdefg"}
    grown = grow()
    grown.settle({**waiting, stack("a"): usage(2, 0.01)})
    assert {"": 0.01} == grown.shape()


def test_the_tree_is_of_one_state() -> None:
    """A tree of CPU leaves waiting out, one of wall time has both."""
    seen = {stack("a"): usage(9, 0.5, 2.0), stack("b"): usage(90, 0.0, 4.0)}
    cpu, wall = grow(), grow(time="wall")
    cpu.settle(seen)
    wall.settle(seen)
    assert {"": 0, "a": 0.5} == cpu.shape()
    assert {"": 0, "a": 2.5, "b": 4.0} == wall.shape()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("abc", "abc"),
        ("aaa", "a"),
        ("abbbc", "abc"),
        ("ababc", "abc"),
        ("abababab", "ab"),
        ("abcabcd", "abcd"),
        ("abac", "abac"),
        ("abacabx", "abx"),
        ("abcbca", "abca"),
        ("aabbaab", "ab"),
    ],
)
def test_recursion_is_folded(names: str, expected: str) -> None:
    """A call that is on the path already takes the path back to it, as the README says."""
    assert stack(expected) == folded(stack(names))


@given(st.lists(functions, min_size=1, max_size=40).map(tuple))
def test_a_folded_stack_repeats_no_call(seen: Stack) -> None:
    """The result begins and ends like the stack, and has each call once at the most."""
    path = folded(seen)
    calls = list(pairwise(path))
    assert len(calls) == len(set(calls))
    assert (seen[0], seen[-1]) == (path[0], path[-1])
    assert path == folded(path)
    assert set(calls) <= set(pairwise(seen))


def test_recursion_is_one_level_of_the_tree() -> None:
    """However deep it recurses, and wherever it is seen, a function has one node."""
    grown = grow()
    grown.settle(stacks(a=8, aa=8, aaaab=8, aabababc=8))
    assert {"": 0, "a": 4, "ab": 2, "abc": 2} == grown.shape()


def test_depth_is_bounded() -> None:
    """Beyond so many levels time stays in the last node, and the path is no longer."""
    deep = tuple([Function("m", f"f{number}") for number in range(1000)])
    grown = grow(limit=500)
    tree = grown.settle({deep: usage(50, 1.0)}).tree
    assert DEPTH == max(node.level for node in tree)
    assert (DEPTH + 1) * TOKEN_LENGTH == max(len(node.path) for node in tree)
    assert 1_000_000_000 == tree[max(tree)]


def test_tokens_are_the_same_in_every_process() -> None:
    """The paths of the same functions are the same, whatever hashes Python draws."""
    script = "from ox_otel._tree import token; print(token('shop.Cart.total'), token('sh\\u00f6p'))"
    for seed in "12":
        run = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
        )
        # nor may they change from one version to the next
        assert ("xuihe pdutt\n", "") == (run.stdout, run.stderr)


def test_tokens_are_spread() -> None:
    """Names that differ little have tokens of their own."""
    names = [f"shop.module_{n % 50}.function_{n}" for n in range(10_000)]
    assert len({token(name) for name in names}) > 10_000 - 20  # some five pairs are to be expected


def test_siblings_with_the_same_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that comes later gets no node: its time stays in its parent, and nothing is lost."""
    monkeypatch.setattr(_tree, "token", lambda label: label[-1].lower() * TOKEN_LENGTH)
    grown = grow()
    grown.settle(stacks(Pq=40))
    tree = grown.settle(stacks(PQ=80, Pq=40), 1.0).tree
    assert {"": 0, "P": 20, "Pq": 20} == grown.shape()
    check_shape(list(tree))


def test_a_hot_path_has_its_nodes_to_the_end_before_colder_ones() -> None:
    """In a full tree the hottest leaf is there, though many a branch near the root is not."""
    hot = tuple([Function("hot", f"f{number}") for number in range(30)])
    crowd = {(Function("crowd", f"f{number}"),): usage(6, 0.1) for number in range(500)}
    grown = grow(limit=40)
    tree = grown.settle({**crowd, hot: usage(50, 5.0)}).tree
    assert 30 == max(node.level for node in tree)
    assert "hot.f29" in {node.label for node in tree}


def test_start_up_code_does_not_fill_the_tree() -> None:
    """What was seen a few times has a quarter of the nodes at the most."""
    grown = grow(limit=80)
    crowd = {(Function("start", f"f{number}"),): usage(6, 0.1) for number in range(500)}
    grown.settle(crowd)
    assert 20 == len(grown.tree)
    for second in range(1, 120):
        grown.settle(stacks(abcdefghij=40, klmnopqrst=40), float(second))
    assert {"abcdefghij", "klmnopqrst"} <= grown.shape().keys()


def test_twenty_thousand_stacks() -> None:
    """Among 20,000 stacks the ten heaviest are named; nodes are within the limit, nothing lost."""
    draw = random.Random(1)
    named = [Function(f"m{n % 40}", f"f{n}") for n in range(2000)]
    heavy = [tuple(draw.sample(named, 30)) for _ in range(10)]
    seen = {(*named[:2], *draw.choices(named, k=28)): usage(1, 0.01) for _ in range(20_000)}
    seen |= dict.fromkeys(heavy, usage(50, 4.0))
    grown = grow(limit=493)
    tree = grown.settle(seen).tree
    assert len(tree) <= 493
    assert round(1e9 * (10 * 4.0 + 20_000 * 0.01)) == sum(tree.values())
    for path in heavy:
        tokens = "".join(token(name) for name in ("total", *map(str, path)))
        assert 4_000_000_000 == tree[Node(tokens, 30, str(path[-1]))]


def test_what_is_retired_has_an_heir_below_the_same_parent() -> None:
    """Cold branches make room; their time is kept beside their siblings, under a name of its own."""
    grown = grow(limit=9)
    grown.settle(stacks(ab=50, acd=50, ae=50))
    grown.settle(stacks(ab=50), 2 * RETIRE_AFTER)
    before = grown.shape()
    grown.settle(stacks(ab=50, fghij=50), 2 * RETIRE_AFTER + 1)
    heir = f"a{OTHER}.__retired_1__"
    assert {"", "a", "ab", heir, "f", "fg", "fgh", "fghi", "fghij"} == grown.shape().keys()
    assert before["acd"] + before["ae"] == grown.shape()[heir] == 25


def test_an_heir_ends_with_the_next_ones() -> None:
    """However often branches are retired, and however soon again, a parent has one heir."""
    grown = grow(limit=6)
    grown.settle(stacks(ab=50, ac=50))
    grown.settle(stacks(ad=50, ae=50), RETIRE_AFTER / 2)
    grown.settle(stacks(af=50), RETIRE_AFTER)
    assert {"", "a", "ad", "ae", "af", f"a{OTHER}.__retired_1__"} == grown.shape().keys()
    grown.settle(stacks(af=50, ag=50), 1.5 * RETIRE_AFTER)
    assert {"", "a", "af", "ag", f"a{OTHER}.__retired_2__"} == grown.shape().keys()
    assert 50 == grown.shape()[f"a{OTHER}.__retired_2__"]


def test_one_cold_branch_alone_makes_no_room() -> None:
    """Nothing is retired, nor does an heir change its name, where only the heir would gain."""
    grown = grow(limit=3)
    grown.settle(stacks(ab=50))
    _, retired = grown.tree.settle(stacks(a=50, c=50), 2 * RETIRE_AFTER)
    assert {} == retired


def test_a_candidate_may_lose_its_parent() -> None:
    """What could have become a branch of one that is retired stays in the nodes that there are."""
    grown = grow(limit=5)
    grown.settle(stacks(ab=50, ac=50, ad=50))
    grown.settle(stacks(abe=10**13), 1.0)
    grown.settle(stacks(f=5000), 1.0 + RETIRE_AFTER)
    assert {"", "f", f"{OTHER}.__retired_1__"} == grown.shape().keys()


def test_a_stack_that_comes_again_goes_on_where_there_are_new_branches() -> None:
    """A path that ended at a candidate is followed further as soon as that is a branch."""
    grown = grow()
    grown.settle(stacks(a=50, abc=1))
    assert {"": 0, "a": 12.75} == grown.shape()
    grown.settle(stacks(abc=1, ab=50), 1.0)
    grown.settle(stacks(abc=1), 2.0)
    assert {"": 0, "a": 12.75, "ab": 13.0} == grown.shape()


def test_a_stack_that_comes_back_finds_no_branch_that_has_ended() -> None:
    """A stack that is away while its branches end climbs anew from the root."""
    grown = grow(limit=5)
    grown.settle(stacks(ab=50, ac=50))
    grown.settle(stacks(ade=50), 2 * RETIRE_AFTER)
    assert not {"ab", "ac"} & grown.shape().keys()
    tree, _ = grown.tree.settle(stacks(ab=1), 2 * RETIRE_AFTER + 1)
    assert {"total": 0, "m.a": 250_000_000} == {node.label: time for node, time in tree.items()}


def test_only_stacks_of_the_last_batch_are_remembered() -> None:
    """How far a stack came is known until the next batch, if it used any time in this one."""
    grown = grow()
    for names in ("ab", "cd", "ef"):
        grown.settle({**stacks(**{names: 50}), stack("w"): usage(50, 0.0, 1.0)})
        assert {stack(names)} == grown.tree._last.keys()
    grown.settle({stack("ef"): usage(50, 0.0, 1.0)})
    assert {} == grown.tree._last


def test_of_a_batch_with_very_many_stacks_none_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They would take more memory than they are worth."""
    monkeypatch.setattr(_tree, "REMEMBERED", 1)
    grown = grow()
    grown.settle(stacks(ab=50, cd=50))
    assert {} == grown.tree._last


def test_a_branch_is_retired_only_after_long() -> None:
    """However hot the newcomers are, a branch that grew in the last half hour stays."""
    grown = grow(limit=5)
    grown.settle(stacks(ab=50, ac=50))
    for now in range(60, int(RETIRE_AFTER), 60):
        grown.settle(stacks(de=5000, ae=5000), float(now))
        assert {"a", "ab", "ac"} <= grown.shape().keys()
    grown.settle(stacks(ad=5000), RETIRE_AFTER)
    assert not {"ab", "ac"} & grown.shape().keys()


def test_candidates_are_bounded() -> None:
    """What has no node is remembered only for the hottest few."""
    tree = Tree(50, "cpu")
    for second in range(200):
        crowd = {(Function(f"m{second}", str(number)),): usage(1, 0.25) for number in range(500)}
        tree.settle(crowd, float(second))
    assert len(tree._heat) <= 4 * 50 + 500


def burn() -> None:
    """Use CPU for longer than the switch interval, so that it is seen running."""
    for _ in range(2_000_000):
        pass


@pytest.mark.parametrize("time", ["cpu", "wall"])
def test_the_tree_of_a_running_profiler(time: str) -> None:
    """Its time is exactly what was observed in the state that it is of, and burns are named."""
    with Profiler(Settings(tree=time, interval=0.001, max_overhead=1.0)) as profiler:
        deadline = time_of_day.monotonic() + 60
        while not any("burn" in node.label for node in profiler.snapshot().tree):
            assert time_of_day.monotonic() < deadline
            burn()
    total = profiler.snapshot()
    observed = sum(
        used.self_cpu_seconds + (used.self_wait_seconds if time == "wall" else 0)
        for used in total.functions.values()
    )
    assert pytest.approx(observed, rel=1e-9) == sum(total.tree.values()) / 1e9
    check_shape(list(total.tree))


def test_without_a_tree_all_series_are_for_functions() -> None:
    """Switched off, the tree takes nothing; else it takes no more than half of the limit."""
    for setting, functions, nodes in (("off", 296, 0), ("cpu", 148, 444)):
        pipeline = Pipeline(Settings(tree=setting), Schedule(0.02, 0.01))
        assert (functions, nodes, 65) == pipeline.places
        most = functions * SERIES_PER_FUNCTION + nodes * SERIES_PER_NODE + OWN_SERIES
        most += 65 * SERIES_PER_ROUTE
        assert 2000 - SERIES_PER_FUNCTION - SERIES_PER_NODE < most <= 2000
    with Profiler(Settings(tree="off", interval=0.001, max_overhead=1.0)) as profiler:
        while not profiler.snapshot().functions:
            burn()
        assert {} == profiler.snapshot().tree
