"""What the page shows of a profile: conserved, bounded, in the order of a walk."""

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ox_otel import Function, Profile, Usage
from ox_otel._graph import MAX_FUNCTIONS, graph
from ox_otel._tree import DEPTH
from ox_otel.recorders import OTHER, Stack

A, B, C = (Function("m", name) for name in "abc")


def profile(stacks: Mapping[Stack, tuple[float, float]]) -> Profile:
    """Return a profile of ten seconds, given the CPU and the waiting of each stack."""
    used = {stack: Usage(1, 1, cpu, wait, cpu, wait) for stack, (cpu, wait) in stacks.items()}
    return Profile(used, 0.0, 10.0, 0.02)


def frames(shown: Mapping[str, Any]) -> list[tuple[str, int, float, float]]:
    """Return the frames by name."""
    return [(shown["names"][name], *figures) for name, *figures in shown["frames"]]


def table(shown: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """Return the functions by name."""
    return {shown["names"][name]: tuple(figures) for name, *figures in shown["functions"]}


def test_a_small_profile() -> None:
    """Frames stand below their callers, by name; functions are by their own time, hottest first."""
    shown = graph(profile({(A, C): (1, 0), (A, B): (2, 0.5), (A,): (0.25, 0)}))
    assert [
        ("total", 0, 0, 0),
        ("m.a", 1, 0.25, 0),
        ("m.b", 2, 2, 0.5),
        ("m.c", 2, 1, 0),
    ] == frames(shown)
    assert [
        ("m.b", (2, 0.5, 2, 0.5)),
        ("m.c", (1, 0, 1, 0)),
        ("m.a", (0.25, 0, 3.25, 0.5)),
    ] == list(table(shown).items())
    assert (10.0, ("cpu", "wait", "wall")) == (shown["seconds"], shown["times"])


def test_recursion() -> None:
    """A function that calls itself is one frame, and counts once a stack in the table."""
    shown = graph(profile({(A, A, A): (1, 0), (A, B, A, B, C): (2, 0)}))
    assert [("total", 0), ("m.a", 1), ("m.b", 2), ("m.c", 3)] == [
        (name, level) for name, level, *_ in frames(shown)
    ]
    assert (1, 0, 3, 0) == table(shown)["m.a"]


def test_nothing() -> None:
    """An empty profile has a root, and nothing in it."""
    shown = graph(profile({}))
    assert [("total", 0, 0, 0)] == frames(shown)
    assert {} == table(shown)


def test_what_is_narrow() -> None:
    """What no graph could show of a caller is one frame of it, and none of its time is lost."""
    narrow = {(A, Function("m", f"narrow_{n}")): (1e-4, 0.0) for n in range(50)}
    shown = graph(profile({(A, B): (10, 0), (A, C): (0, 1e-3), **narrow}))
    other = f"{OTHER}.{OTHER}"
    assert ["total", "m.a", "m.b", "m.c", other] == [name for name, *_ in frames(shown)]
    assert (other, 2, pytest.approx(50e-4), 0) == frames(shown)[-1]


@pytest.mark.parametrize("used", [(0.0, 1.0), (1.0, 0.0)], ids=["waiting", "CPU"])
def test_a_profile_of_one_time(used: tuple[float, float]) -> None:
    """Where all there is is waiting, or CPU, what is narrow of it is still one frame."""
    narrow = {(A, Function("m", f"narrow_{n}")): used for n in range(3000)}
    other = f"{OTHER}.{OTHER}"
    shown = frames(graph(profile(narrow)))
    assert [("total", 0, 0, 0), ("m.a", 1, 0, 0), (other, 2, *(3000 * t for t in used))] == shown


def test_one_frame_for_all_others() -> None:
    """What the profile had no room for, and what the graph has none for, is one frame."""
    stacks = {(Function(OTHER, OTHER),): (1e3, 2e3), (A,): (1e4, 1e4), (B,): (0.5, 0.5)}
    rest = (f"{OTHER}.{OTHER}", 1, 1000.5, 2000.5)
    assert [("total", 0, 0, 0), ("m.a", 1, 1e4, 1e4), rest] == frames(graph(profile(stacks)))


def test_a_deep_stack() -> None:
    """What is deeper than the tree counts for the last function that is in it."""
    stack = tuple(Function("m", f"f{n}") for n in range(1000))
    shown = frames(graph(profile({stack: (1.0, 0.0)})))
    assert 1 + DEPTH == len(shown)
    assert (f"m.f{DEPTH - 1}", DEPTH, 1.0, 0.0) == shown[-1]


def test_many_functions() -> None:
    """The table is bounded; the colder ones are one line, with their own time alone."""
    count = MAX_FUNCTIONS + 5
    stacks = {(A, Function("m", f"f{n}")): (1 + n, 0.0) for n in range(count)}
    rows = table(graph(profile(stacks)))
    assert MAX_FUNCTIONS + 1 == len(rows)
    assert (15, 0, 15, 0) == rows[f"{OTHER}.{OTHER}"]


def test_functions_of_somebody_who_knows_better() -> None:
    """Where functions are given, the table is theirs and the tree that of the stacks."""
    shown = graph(profile({(A,): (1, 0)}), {B: Usage(1, 1, 4, 3, 2, 1)})
    assert {"m.b": (2, 1, 4, 3)} == table(shown)
    assert ["total", "m.a"] == [name for name, *_ in frames(shown)]


functions = st.builds(Function, st.sampled_from(["m", "n", OTHER]), st.sampled_from("abcd"))
seconds = st.integers(0, 10**9).map(lambda nanoseconds: nanoseconds * 1e-9)
stacks = st.dictionaries(
    st.lists(functions, min_size=1, max_size=8).map(tuple), st.tuples(seconds, seconds), max_size=20
)


@given(stacks)
def test_any_profile_is_conserved(used: dict[Stack, tuple[float, float]]) -> None:
    """The self times of the frames, and those of the functions, add up to all that there is."""
    shown = json.loads(json.dumps(graph(profile(used))))
    for column, time in enumerate(zip(*used.values(), strict=True) if used else ((0,), (0,))):
        allowed = pytest.approx(sum(time), abs=1e-4)  # each figure is rounded
        assert allowed == sum(row[2 + column] for row in shown["frames"])
        assert allowed == sum(row[1 + column] for row in shown["functions"])
    levels = [level for _, level, *_ in shown["frames"]]
    assert all(after <= before + 1 for before, after in pairwise(levels))
