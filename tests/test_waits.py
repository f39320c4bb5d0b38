"""Waits are counted where threads were found still, and nothing is lost."""

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ox_otel._looks import Thread
from ox_otel._tallies import Tally
from ox_otel._tickers import Ticker
from ox_otel._waits import Waits
from ox_otel.recorders import Function

NOWHERE = Tally((Function("m", "nowhere"),))
"""Where waits go if nothing is known; its figures are of no test's interest."""


def place(waits: Waits, *tickers: Ticker, somewhere: Tally = NOWHERE) -> None:
    """Have the waits of all placed."""
    waits.place(tickers, lambda _: somewhere)


def ticker() -> Ticker:
    """Return the ticker of a thread."""
    return Ticker(Thread(1, 1, 0, 0), 0)


def tallies(*names: str) -> list[Tally]:
    """Return the tallies of functions."""
    return [Tally((Function("m", name),)) for name in names]


def milliseconds(*some: Tally) -> list[int]:
    """Return what has been counted as waiting."""
    return [round(tally.wait / 1_000_000) for tally in some]


def stand(one: Ticker, at: Tally, elapsed: int, used: int = 0) -> None:
    """Have a thread found still, after so many milliseconds with so many of CPU."""
    one.waited += 1_000_000 * (elapsed - used)
    one.look(at, 1_000_000 * elapsed, 1_000_000 * used)


def run(one: Ticker, elapsed: int, used: int) -> None:
    """Have it found running."""
    one.waited += 1_000_000 * (elapsed - used)
    one.look(None, 1_000_000 * elapsed, 1_000_000 * used)


def tick(one: Ticker, ticked: dict[Tally, int]) -> None:
    """Have a thread tick; milliseconds of CPU."""
    for tally, cpu in ticked.items():
        one.tick(tally, 1, 1_000_000 * cpu)


def test_waiting_is_where_a_thread_was_found_still() -> None:
    """In proportion to the time that these looks stand for; none of it is where it only ran."""
    one, (hot, nap, call) = ticker(), tallies("hot", "nap", "call")
    run(one, 300, 200)
    stand(one, nap, 75, 50)
    stand(one, call, 25)
    tick(one, {hot: 250})
    place(Waits(), one)

    assert [0, 112, 38] == milliseconds(hot, nap, call)


def test_what_was_stopped_for_the_look_has_not_waited() -> None:
    """All cores were busy: half of the CPU was never found in use, so a look had taken the core."""
    one, (hot, nap) = ticker(), tallies("hot", "nap")
    run(one, 100, 100)
    stand(one, hot, 100, 100)
    stand(one, nap, 100)
    tick(one, {hot: 200})
    place(Waits(), one)

    assert [0, 100] == milliseconds(hot, nap)


def test_what_waits_for_a_core_has() -> None:
    """It is found still for longer than looks can have stopped it."""
    one, (hot, nap) = ticker(), tallies("hot", "nap")
    run(one, 100, 100)
    stand(one, hot, 200, 100)
    stand(one, nap, 100)
    tick(one, {hot: 200})
    place(Waits(), one)

    assert [100, 100] == milliseconds(hot, nap)


def test_who_is_found_running_more_than_it_does_tells_nothing_of_looks() -> None:
    """By chance: none of them has stopped a thread then, and no place has waited the more for it."""
    one, (hot, nap) = ticker(), tallies("hot", "nap")
    run(one, 200, 100)
    stand(one, hot, 100)
    stand(one, nap, 100)
    tick(one, {hot: 100})
    place(Waits(), one)

    assert [150, 150] == milliseconds(hot, nap)


def test_how_often_looks_stop_a_thread_is_that_of_late() -> None:
    """None did for long, while there were cores; then one does: it is not taken for a wait."""
    one, (hot, nap, call), waits = ticker(), tallies("hot", "nap", "call"), Waits()
    for _ in range(50):
        run(one, 100, 100)
        tick(one, {hot: 100})
        place(waits, one)
    stand(one, call, 100)
    stand(one, nap, 100)
    tick(one, {call: 20})
    place(waits, one)
    before = milliseconds(hot, nap, call)
    stand(one, hot, 100, 100)
    stand(one, nap, 100)
    tick(one, {hot: 100})
    place(waits, one)

    assert [0, 100, 100] == before
    assert [0, 200, 100] == milliseconds(hot, nap, call)


def test_stacks_of_one_function_are_judged_together() -> None:
    """One stack of many may be found still and never tick, by chance; its function does."""
    one, (hot, nap) = ticker(), tallies("hot", "nap")
    other = Tally((Function("m", "caller"), Function("m", "hot")))
    stand(one, hot, 100, 100)
    stand(one, nap, 100)
    tick(one, {other: 100})
    place(Waits(), one)

    assert [0, 100, 0] == milliseconds(hot, nap, other)


def test_what_was_seen_before_counts() -> None:
    """Chance stops a function more often than it ticks in one batch, and less often in another."""
    one, (hot, nap), waits = ticker(), tallies("hot", "nap"), Waits()
    for still in (50, 140):
        stand(one, hot, still, 100)
        stand(one, nap, 100)
        one.waited = 100_000_000
        tick(one, {hot: 100})
        place(waits, one)

    assert [0, 200] == milliseconds(hot, nap)


def test_threads_that_are_gone_are_judged_by_what_others_did() -> None:
    """A thread for each request is seen too seldom to tell where it burns."""
    (hot, nap), waits = tallies("hot", "nap"), Waits()
    lasting = ticker()
    stand(lasting, hot, 100, 100)
    tick(lasting, {hot: 120})
    place(waits, lasting)
    brief = ticker()
    stand(brief, hot, 20, 10)
    stand(brief, nap, 20, 10)
    tick(brief, {hot: 10})
    place(waits, brief)

    assert [0, 20] == milliseconds(hot, nap)


def test_without_such_a_look_waits_are_where_others_saw_the_thread() -> None:
    """A sample that had the GIL has seen it somewhere; and if none has, it was somewhere before."""
    one, (nap, call, before), waits = ticker(), tallies("nap", "call", "before"), Waits()
    one.wait(nap, 30_000_000)
    one.wait(call, 10_000_000)
    run(one, 100, 60)
    place(waits, one, somewhere=before)
    run(one, 100, 90)
    place(waits, one, somewhere=before)

    assert [60, 20, 10] == milliseconds(nap, call, before)


def test_where_others_saw_no_waiting_it_was_somewhere_before() -> None:
    """Who had the GIL found that it had only burned, and then it waited unseen."""
    one, (hot, before) = ticker(), tallies("hot", "before")
    one.wait(hot, 0)
    run(one, 100, 60)
    place(Waits(), one, somewhere=before)

    assert [0, 40] == milliseconds(hot, before)


def test_no_place_is_kept_from_one_batch_to_the_next() -> None:
    """Its tally may be forgotten by then, and what is counted there is lost."""
    one, (hot, nap), waits = ticker(), tallies("hot", "nap"), Waits()
    stand(one, hot, 10, 10)
    place(waits, one)
    run(one, 100, 60)
    place(waits, one, somewhere=nap)

    assert [0, 40] == milliseconds(hot, nap)


def test_whoever_was_found_running_is_hit_where_it_ticked() -> None:
    """As often as it was found so, by the CPU of the places."""
    one, (hot, warm, cold), waits = ticker(), tallies("hot", "warm", "cold"), Waits()
    for _ in range(1000):
        run(one, 10, 10)
    tick(one, {hot: 750, warm: 250})
    place(waits, one)

    assert 1000 == hot.hits + warm.hits
    assert hot.hits == pytest.approx(750, abs=100)
    assert 0 == cold.hits


def test_whoever_was_found_running_and_has_not_ticked_is_hit_where_it_was() -> None:
    """No hit is lost."""
    one, (before,) = ticker(), tallies("before")
    run(one, 10, 10)
    place(Waits(), one, somewhere=before)

    assert 1 == before.hits


def test_no_function_is_remembered_for_ever() -> None:
    """What is known fades until it is nothing, however often others are seen."""
    waits = Waits()
    for number in range(1000):
        one, (hot, nap) = ticker(), tallies(f"hot_{number}", f"nap_{number}")
        stand(one, nap, 900, 100)
        tick(one, {hot: 100})
        place(waits, one)

    assert len(waits._habits) < 300


@given(
    looks=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", None]), st.integers(0, 10**10), st.integers(0, 10**10)
        ),
        max_size=8,
    ),
    ticks=st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 10**10)), max_size=5),
)
@example(looks=[("a", 0, 0)], ticks=[("a", 1)])
def test_nothing_is_lost_and_nothing_is_less_than_nothing(
    looks: list[tuple[str | None, int, int]], ticks: list[tuple[str, int]]
) -> None:
    """Whatever the figures, all waiting is placed, to the nanosecond, and all hits."""
    one, waits = ticker(), Waits()
    places = dict(zip("abcde", tallies(*"abcde"), strict=True))
    for _ in range(2):
        for name, waited, used in looks:
            one.waited += waited
            one.look(places[name] if name else None, waited + used, used)
        for name, cpu in ticks:
            one.tick(places[name], 1, cpu)
        place(waits, one, somewhere=places["e"])

    everywhere = [tally.wait for tally in places.values()]
    assert 2 * sum(waited for _, waited, _ in looks) == sum(everywhere)
    assert min(everywhere) >= 0
    runs = Counter(name is None for name, *_ in looks)[True]
    assert 2 * runs == sum(tally.hits for tally in places.values())
