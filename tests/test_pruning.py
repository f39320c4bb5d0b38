"""Pruning: within its limits, conserved, and still a tree."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ox_otel import Batch, Exemplar, Function, Node, Usage
from ox_otel._pruning import Pruning
from ox_otel.recorders import REST, TOKEN_LENGTH, inclusive

ROOT = Node("total", 0, "total")
ONCE = Usage(1, 1, 0.25, 0.5, 0.25, 0.5)


def function(name: str) -> Function:
    """Return a function of that name."""
    return Function("shop", name)


def node(names: str) -> Node:
    """Return the node on the path of functions that one letter each names."""
    return Node(ROOT.path + "".join(5 * name for name in names), len(names), names[-1])


def tree(*paths: str) -> dict[Node, int]:
    """Return a tree of these nodes and those above; each has used one nanosecond itself."""
    nodes = {node(names[:end]) for names in paths for end in range(1, len(names) + 1)}
    return dict.fromkeys(nodes, 1) | {ROOT: 1}


def batch(functions: str = "", *paths: str) -> Batch:
    """Return a batch with functions that one letter each names, each seen once, and a tree."""
    return Batch({function(name): ONCE for name in functions}, tree=tree(*paths))


paths = st.lists(st.text("abc", min_size=1, max_size=5), max_size=8)
part = st.tuples(st.text("abcdefghi", max_size=9), paths)


@given(st.lists(part, max_size=5), st.integers(1, 10), st.integers(1, 10))
def test_any_batches_are_bounded_and_conserved(
    stream: list[tuple[str, list[str]]], functions: int, nodes: int
) -> None:
    """Whatever comes: there is never too much, each node has its parent, and nothing is lost."""
    pruning = Pruning(functions, nodes)
    named, kept = {REST}, set[Node]()
    for names, part in stream:
        whole = batch(names, *part)
        pruned = pruning.prune(whole)
        named |= pruned.functions.keys()
        kept |= pruned.tree.keys()
        assert len(named) <= functions
        assert len(kept) <= nodes
        hits = sum(usage.self_hits for usage in pruned.functions.values())
        assert len(whole.functions) == hits
        assert len(whole.tree) == sum(pruned.tree.values()) == inclusive(pruned.tree)[ROOT]
        assert {n.path[:-TOKEN_LENGTH] for n in pruned.tree} <= {"", *(n.path for n in kept)}


def test_functions_without_a_place_count_for_the_rest() -> None:
    """The first ones stay; all others are one."""
    pruning = Pruning(3, 1)
    first = {function("a"): ONCE, function("b"): ONCE}
    assert first == pruning.prune(batch("ab")).functions
    assert {function("b"): ONCE, REST: ONCE.plus(ONCE)} == pruning.prune(batch("bcd")).functions


def test_nodes_without_a_place_count_for_the_nearest_above() -> None:
    """The first ones stay; later ones count for the nodes that called them."""
    pruning = Pruning(1, 3)
    assert tree("ab") == pruning.prune(batch("", "ab")).tree
    assert {ROOT: 3, node("a"): 1, node("ab"): 3} == pruning.prune(batch("", "abcd", "ef")).tree


def test_what_has_ended_makes_room() -> None:
    """An heir has one place for all that have ended; one that had no place needs none."""
    pruning = Pruning(4, 4)
    pruning.prune(batch("abc", "abc", "d"))
    heir, node_heir = function("heir"), node("z")
    pruning.retire(
        Batch(
            retired={function("a"): heir, function("b"): heir, function("d"): heir},
            retired_nodes={node("ab"): node_heir, node("abc"): node_heir, node("d"): node_heir},
        )
    )
    pruned = pruning.prune(batch("ef", "aef"))
    assert {function("e"): ONCE, REST: ONCE} == pruned.functions
    assert {ROOT: 1, node("a"): 1, node("ae"): 2} == pruned.tree


def test_what_had_no_place_leaves_none() -> None:
    """The heir of what was never let through takes no place from others."""
    pruning = Pruning(2, 2)
    pruning.prune(batch("ab", "a", "b"))
    heir, node_heir = function("heir"), node("z")
    pruning.retire(Batch(retired={function("b"): heir}, retired_nodes={node("b"): node_heir}))
    pruned = pruning.prune(Batch({heir: ONCE}, tree={ROOT: 0, node_heir: 1}))
    assert {REST: ONCE} == pruned.functions
    assert {ROOT: 1} == pruned.tree


def test_exemplars_of_functions_without_a_place_are_left_out() -> None:
    """What counts for the rest has no span of its own."""
    spans = {function(name): Exemplar("7" * 32, name * 16, 0.25, 1.0) for name in "ab"}
    pruned = Pruning(2, 1).prune(replace(batch("ab"), exemplars=spans))
    assert {function("a"): spans[function("a")]} == pruned.exemplars
