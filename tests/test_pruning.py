"""Pruning: within its limit, conserved, and still a tree."""

from hypothesis import given
from hypothesis import strategies as st

from ox_otel._pruning import Pruning
from ox_otel.recorders import TOKEN_LENGTH, Node, inclusive

ROOT = Node("total", 0, "total")


def node(names: str) -> Node:
    """Return the node on the path of functions that one letter each names."""
    return Node(ROOT.path + "".join(5 * name for name in names), len(names), names[-1])


def tree(*paths: str) -> dict[Node, int]:
    """Return a tree of these nodes and those above; each has used one nanosecond itself."""
    nodes = {node(names[:end]) for names in paths for end in range(1, len(names) + 1)}
    return dict.fromkeys(nodes, 1) | {ROOT: 1}


paths = st.lists(st.text("abc", min_size=1, max_size=5), max_size=8)


@given(st.lists(paths, max_size=5), st.integers(1, 10))
def test_any_trees_are_bounded_and_conserved(stream: list[list[str]], limit: int) -> None:
    """Whatever comes: nodes are never too many, each has its parent, and no time is lost."""
    pruning = Pruning(limit)
    kept: set[Node] = set()
    for part in stream:
        whole = tree(*part)
        pruned = pruning.prune(whole)
        kept |= pruned.keys()
        assert len(kept) <= limit
        assert len(whole) == sum(pruned.values()) == inclusive(pruned)[ROOT]
        assert {n.path[:-TOKEN_LENGTH] for n in pruned} <= {"", *(n.path for n in kept)}


def test_what_has_no_place_counts_for_the_nearest_above() -> None:
    """The first ones stay; later ones count for the nodes that called them."""
    pruning = Pruning(3)
    assert {ROOT: 1, node("a"): 1, node("ab"): 1} == pruning.prune(tree("ab"))
    assert {ROOT: 3, node("a"): 1, node("ab"): 3} == pruning.prune(tree("abcd", "ef"))


def test_what_has_ended_makes_room() -> None:
    """An heir has one place for all that have ended; one that had no place needs none."""
    pruning = Pruning(4)
    pruning.prune(tree("abc", "d"))
    heir = node("z")
    pruning.retire({node("ab"): heir, node("abc"): heir, node("d"): heir})
    assert {ROOT: 1, node("a"): 1, node("ae"): 2} == pruning.prune(tree("aef"))
