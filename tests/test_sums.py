"""Stacks added up: nothing is lost, and memory has a bound."""

import pytest

from ox_otel import Function, Usage
from ox_otel._sums import MAX_FRAMES, MAX_STACKS, Sum
from ox_otel.profiles import REST_STACK
from ox_otel.recorders import Stack

USED = Usage(1, 1, 0.5, 0.25, 0.5, 0.25)


def stack(number: int, depth: int) -> Stack:
    """Return a stack of that many frames, none of which another number has."""
    return tuple(Function("m", f"f{number}_{level}") for level in range(depth))


@pytest.mark.parametrize("depth", [1, 64, 1000, MAX_FRAMES])
def test_stacks_of_any_depth(depth: int) -> None:
    """What has no room counts for one stack; those that have one go on to count for themselves."""
    total, number = Sum(), MAX_STACKS + 5 if depth == 1 else MAX_FRAMES // depth + 5
    stacks = {stack(n, depth): USED for n in range(number)}
    for _ in range(2):
        total.add(stacks)

    held = total.stacks
    assert min(MAX_STACKS, MAX_FRAMES // depth + 1) == len(held)
    assert MAX_FRAMES + 1 >= sum(map(len, held))
    assert 2 * number == sum(usage.hits for usage in held.values())
    assert number == sum(usage.cpu_seconds for usage in held.values())
    assert 2 * (number - len(held) + 1) == held[REST_STACK].hits


def test_a_stack_that_is_deeper_than_all_the_room() -> None:
    """It counts, but not by its name."""
    total = Sum()
    total.add({stack(0, MAX_FRAMES + 1): USED, stack(1, 3): USED})
    assert {REST_STACK: USED, stack(1, 3): USED} == total.stacks
