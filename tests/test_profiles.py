"""Profiles: the times of stacks, and the tree as stacks."""

import pytest

from ox_otel import Batch, Function, Profile, Usage
from ox_otel.profiles import REST_STACK, stacks_of_tree
from ox_otel.recorders import Node

MAIN, LOAD, IDLE = Function("app", "main"), Function("app.db", "Cart.load"), Function("app", "idle")


def profile() -> Profile:
    """Return a profile of three stacks."""
    stacks = {
        (MAIN,): Usage(1, 1, 1.0, 0.0, 1.0, 0.0),
        (MAIN, LOAD): Usage(2, 2, 0.5, 0.25, 0.5, 0.25),
        (MAIN, IDLE): Usage(3, 3, 0.0, 3.0, 0.0, 3.0),
    }
    return Profile(stacks, 1.0, 10.0, 0.02)


def test_times() -> None:
    """A profile is looked at by CPU, by waiting or by both; stacks without any are left out."""
    assert {(MAIN,): 10**9, (MAIN, LOAD): 500_000_000} == profile().nanoseconds("cpu")
    assert {(MAIN, LOAD): 250_000_000, (MAIN, IDLE): 3 * 10**9} == profile().nanoseconds("wait")
    assert {
        (MAIN,): 10**9,
        (MAIN, LOAD): 750_000_000,
        (MAIN, IDLE): 3 * 10**9,
    } == profile().nanoseconds("wall")


def test_a_time_that_is_not_known() -> None:
    """What a profile does not know it does not make up."""
    with pytest.raises(ValueError, match="wall is not known here; there is cpu"):
        Profile({}, 0.0, 1.0, 0.02, ("cpu",)).nanoseconds("wall")


TREE = {
    Node("aaaaa", 0, "total"): 5,
    Node("aaaaabbbbb", 1, "app.main"): 0,
    Node("aaaaabbbbbccccc", 2, "app.db.Cart.load"): 70,
    Node("aaaaabbbbbddddd", 2, "un.known.f"): 20,
}


def test_the_nodes_of_a_tree_are_stacks() -> None:
    """Each is the path that leads to it; the root's own time is that of no function."""
    snapshot = Batch(functions={LOAD: Usage()}, tree=TREE)
    stacks = stacks_of_tree(snapshot, "cpu")

    assert {
        REST_STACK: Usage(cpu_seconds=5e-9, self_cpu_seconds=5e-9),
        (MAIN,): Usage(),
        (MAIN, LOAD): Usage(cpu_seconds=7e-8, self_cpu_seconds=7e-8),
        (MAIN, Function("un", "known.f")): Usage(cpu_seconds=2e-8, self_cpu_seconds=2e-8),
    } == stacks
    # whatever is taken for its module, a node's label is what it was
    labels = [node.label for node in TREE if node.level == 2]
    assert labels == [str(stack[-1]) for stack in stacks if len(stack) == 2]


def test_a_tree_of_wall_time() -> None:
    """Its parts are not known, but all of it is there."""
    found = Profile(stacks_of_tree(Batch(tree=TREE), "wall"), 0.0, 1.0, 0.02, ("wall",))
    assert 95 == sum(found.nanoseconds("wall").values())


def test_a_stack_of_the_rest_by_name_loses_nothing() -> None:
    """A node that is named as the rest adds to it."""
    tree = {Node("aaaaa", 0, "total"): 5, Node("aaaaabbbbb", 1, "__other__.__other__"): 7}
    assert [12e-9] == [
        usage.cpu_seconds for usage in stacks_of_tree(Batch(tree=tree), "cpu").values()
    ]
