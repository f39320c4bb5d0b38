"""Tallies: what each stack used, in bounded memory."""

from ox_otel._names import Names
from ox_otel._tallies import Tallies
from ox_otel.recorders import Function, Usage


def tallies_of(names: Names) -> tuple[Tallies, list[tuple[int, ...]]]:
    """Return tallies, and the ids of three stacks, of which the last two look the same."""
    ids = [(names.add_name(name, "m"),) for name in ("f", "g", "g")]
    return Tallies(names), ids


def test_stacks_that_look_the_same_add_up() -> None:
    """Code objects of one name are one function: what their stacks used counts together."""
    tallies, (_, first, second) = tallies_of(Names())
    tallies.of(first).hits = 2
    tallies.of(second).hits = 3
    tallies.of(second).wait = 500_000_000

    stacks = tallies.take(set())
    assert {(Function("m", "g"),): Usage(5, 5, 0.0, 0.5, 0.0, 0.5)} == stacks
    assert {} == tallies.take(set())


def test_what_is_neither_used_nor_stood_at_is_forgotten() -> None:
    """A tally stays while it was used in the last batch, or somebody stands there."""
    tallies, all_ids = tallies_of(Names())
    used, standing, over = (tallies.of(ids) for ids in all_ids)
    used.cpu = 1
    tallies.take({standing})

    assert used is tallies.of(all_ids[0])
    assert standing is tallies.of(all_ids[1])
    assert over is not tallies.of(all_ids[2])
