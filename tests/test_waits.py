"""Waits are counted where threads wait, those for a core where they burn, and nothing is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ox_otel import _waits
from ox_otel._looks import Thread
from ox_otel._tallies import Tally
from ox_otel._tickers import Sample, Ticker
from ox_otel._waits import ASKED, NOTABLE, Waits
from ox_otel.recorders import Function


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Return the seconds that threads have waited for cores, by clock: what the kernel says."""
    said: dict[int, float] = {}
    monkeypatch.setattr(_waits, "_core_wait", lambda thread: round(1e9 * said.get(thread.clock, 0)))
    return said


def ticker(clock: int = 1) -> Ticker:
    """Return the ticker of a thread with that clock."""
    return Ticker(Thread(clock, clock, 0, 0), 0)


def tallies(*names: str) -> list[Tally]:
    """Return the tallies of functions."""
    return [Tally((Function("m", name),)) for name in names]


def milliseconds(*some: Tally) -> list[int]:
    """Return what has been counted as waiting."""
    return [round(tally.wait / 1_000_000) for tally in some]


def look(one: Ticker, seen: Tally, elapsed: int, used: int, sample: Sample | None = None) -> None:
    """Have a thread *seen* after so much time and CPU, in a sample in time or this one; milliseconds."""
    one.look(seen, elapsed * 1_000_000, used * 1_000_000, sample or Sample(late=False))


def tick(one: Ticker, ticked: dict[Tally, int]) -> None:
    """Have a thread tick; milliseconds of CPU."""
    for tally, cpu in ticked.items():
        one.tick(tally, 1, cpu * 1_000_000)


def live(one: Ticker, seen: Tally, waited: int, ticked: dict[Tally, int]) -> None:
    """Have a thread wait where it is *seen*, and tick elsewhere; milliseconds."""
    look(one, seen, waited, 0)
    tick(one, ticked)


def test_waiting_for_a_core_goes_where_the_thread_ticked(kernel: dict[int, float]) -> None:
    """In proportion to the CPU used there; what else it waited stays where it was seen."""
    waits = Waits()
    one, (call, hot, warm) = ticker(), tallies("call", "hot", "warm")
    kernel[1] = 7.0
    live(one, call, 100, {hot: 10})
    waits.place([one], [])
    first = milliseconds(call, hot, warm)
    kernel[1] = 7.08
    live(one, call, 100, {hot: 30, warm: 10})
    waits.place([one], [])

    assert [100, 0, 0] == first  # nobody knew how much had been before
    assert [120, 60, 20] == milliseconds(call, hot, warm)


def test_no_more_is_moved_than_was_waited(kernel: dict[int, float]) -> None:
    """Though the kernel should count more, of a time before."""
    waits = Waits()
    one, (call, hot) = ticker(), tallies("call", "hot")
    for kernel[1] in (1.0, 9.0):
        live(one, call, 100, {hot: 10})
        waits.place([one], [])

    assert [100, 100] == milliseconds(call, hot)


def test_of_a_thread_that_has_ended_nothing_is_moved(kernel: dict[int, float]) -> None:
    """The kernel says nothing of it, which is no negative time."""
    waits = Waits()
    one, (call, hot) = ticker(), tallies("call", "hot")
    for kernel[1] in (5.0, 0.0):
        live(one, call, 100, {hot: 10})
        waits.place([one], [])

    assert [200, 0] == milliseconds(call, hot)


def test_where_no_tick_came_waits_stay(kernel: dict[int, float]) -> None:
    """There is no place to move them to."""
    waits = Waits()
    one, (call, hot) = ticker(), tallies("call", "hot")
    for kernel[1], ticked in ((1.0, {hot: 10}), (2.0, {})):
        live(one, call, 100, ticked)
        waits.place([one], [])

    assert [200, 0] == milliseconds(call, hot)


def test_who_was_not_asked_for_a_while_begins_anew(kernel: dict[int, float]) -> None:
    """What it waited for a core in a batch that did not count is not taken off the next ones."""
    waits = Waits()
    one, (call, hot) = ticker(), tallies("call", "hot")
    for kernel[1], waited in ((1.0, 100), (2.0, NOTABLE // 1_000_000 - 1), (3.0, 100), (3.0, 100)):
        live(one, call, waited, {hot: 10})
        waits.place([one], [])

    assert 0 == hot.wait


def test_the_kernel_is_asked_about_few(kernel: dict[int, float]) -> None:
    """About those that waited longest."""
    waits = Waits()
    seen = tallies(*map(str, range(3 * ASKED)))
    (hot,) = tallies("hot")
    several = [ticker(number) for number in range(len(seen))]
    for seconds in (1.0, 2.0):
        for number, one in enumerate(several):
            kernel[number] = seconds
            live(one, seen[number], 100 + number, {hot: 10})
        waits.place(several, [])

    assert [number for number, tally in enumerate(seen) if tally.wait < 150_000_000] == list(
        range(2 * ASKED, 3 * ASKED)
    )


def test_who_burns_where_it_is_seen_has_not_waited_there() -> None:
    """Of a function that was seen for as long as it ticked nothing is left for waiting."""
    one, (hot, nap) = ticker(), tallies("hot", "nap")
    for _ in range(10):
        look(one, hot, 100, 50)
        look(one, nap, 100, 50)
    tick(one, {hot: 1000})
    before = milliseconds(hot, nap)
    Waits().place([one], [])

    assert [500, 500] == before
    assert [0, 1000] == milliseconds(hot, nap)


def test_waiting_is_shared_out_by_what_is_not_cpu() -> None:
    """A function that was seen twice as long as it ticked waited half of the time."""
    one, (hot, nap) = ticker(), tallies("hot", "nap")
    look(one, hot, 600, 300)
    look(one, nap, 300, 0)
    tick(one, {hot: 300})
    Waits().place([one], [])

    assert [300, 300] == milliseconds(hot, nap)


def test_stacks_of_one_function_are_judged_together() -> None:
    """One stack of many may be seen and never tick, by chance; its function does."""
    one, (hot, nap) = ticker(), tallies("hot", "nap")
    other = Tally((Function("m", "caller"), Function("m", "hot")))
    look(one, hot, 100, 50)
    look(one, nap, 100, 50)
    tick(one, {other: 100})
    Waits().place([one], [])

    assert [0, 100, 0] == milliseconds(hot, nap, other)


def test_who_held_the_gil_is_not_taken_to_have_waited_where_it_let_go_of_it() -> None:
    """A thread that burns when a late sample is due is seen at the next call."""
    one, (hot, call, nap) = ticker(), tallies("hot", "call", "nap")
    for late, seen in ((False, call), (False, nap), (True, nap), (True, nap)):
        look(one, seen, 100, 50, Sample(late=late))
    tick(one, {hot: 200})
    Waits().place([one], [])

    assert [0, 100, 100] == milliseconds(hot, call, nap)


def test_whoever_used_the_cpu_is_the_likelier_to_have_held_the_gil() -> None:
    """In a late sample the others are where they are seen."""
    busy, idle = ticker(1), ticker(2)
    hot, call, nap, rest, read = tallies("hot", "call", "nap", "rest", "read")
    late = Sample(late=True)
    look(busy, call, 100, 60)
    look(busy, nap, 100, 60, late)
    look(idle, rest, 100, 20, late)
    look(idle, read, 100, 0)
    tick(busy, {hot: 120})
    tick(idle, {hot: 20})
    Waits().place([busy, idle], [])

    assert [64, 16] == milliseconds(call, nap)  # as 100 to 25
    assert [77, 103] == [round(time.wait / 1e6) for time in (rest, read)]  # as 75 to 100


def test_a_late_sample_in_which_nobody_has_used_cpu() -> None:
    """Nobody of those that it looked at had the GIL: they are where they are seen."""
    one, (hot, nap) = ticker(), tallies("hot", "nap")
    look(one, nap, 100, 0, Sample(late=True))
    tick(one, {hot: 10})
    Waits().place([one], [])

    assert [0, 100] == milliseconds(hot, nap)


def test_the_time_of_whoever_held_the_gil_is_that_of_where_it_burns() -> None:
    """It may have waited there for a core, as a function that is seen for longer than it ticks."""
    one, (hot, nap) = ticker(), tallies("hot", "nap")
    held_by_another = Sample(late=True)
    held_by_another.used = 10**15
    look(one, hot, 200, 100, held_by_another)
    look(one, nap, 100, 100, Sample(late=True))
    look(one, nap, 100, 0)
    tick(one, {hot: 200})
    Waits().place([one], [])

    assert [100, 100] == milliseconds(hot, nap)


def test_what_burns_without_the_gil_has_not_held_it() -> None:
    """It is seen burning by samples that are not late, and has no part in the time of a holder."""
    one, (hot, free, nap) = ticker(), tallies("hot", "free", "nap")
    look(one, free, 150, 100)
    look(one, nap, 100, 100, Sample(late=True))
    look(one, nap, 100, 0)
    tick(one, {hot: 100, free: 100})
    Waits().place([one], [])

    assert [0, 50, 100] == milliseconds(hot, free, nap)


def test_a_look_right_after_another_stands_for_no_time() -> None:
    """Where it finds the thread nothing is known of."""
    one, (hot, nap, call) = ticker(), tallies("hot", "nap", "call")
    look(one, nap, 100, 50)
    look(one, call, 0, 0)
    tick(one, {hot: 50})
    Waits().place([one], [])

    assert [0, 50, 0] == milliseconds(hot, nap, call)


def test_a_function_waits_no_longer_than_it_is_seen() -> None:
    """Though it should have held the GIL for longer than it ticked."""
    one, (hot, nap) = ticker(), tallies("hot", "nap")
    look(one, hot, 100, 100)
    look(one, nap, 900, 100, Sample(late=True))
    look(one, nap, 100, 0)
    tick(one, {hot: 200})
    Waits().place([one], [])

    assert [450, 450] == milliseconds(hot, nap)


def test_what_it_waited_for_a_core_explains_how_long_a_function_is_seen(
    kernel: dict[int, float],
) -> None:
    """It is not waiting of another kind as well."""
    one, (hot, nap), waits = ticker(), tallies("hot", "nap"), Waits()
    tick(one, {hot: 10})
    look(one, nap, 60, 0)
    waits.place([one], [])
    nap.wait, kernel[1] = 0, 0.1
    look(one, hot, 200, 100)
    look(one, nap, 100, 0)
    tick(one, {hot: 100})
    waits.place([one], [])

    assert [100, 100] == milliseconds(hot, nap)


def test_what_was_seen_before_counts() -> None:
    """Chance shows a function longer than it ticks in one batch, and shorter in another."""
    one, (hot, nap), waits = ticker(), tallies("hot", "nap"), Waits()
    for seen in (50, 140):
        look(one, hot, seen, seen // 2)
        look(one, nap, 100, 50)
        tick(one, {hot: 100})
        waits.place([one], [])

    assert [0, 195] == milliseconds(hot, nap)


def test_threads_that_are_gone_are_judged_by_what_others_did() -> None:
    """A thread for each request is seen too seldom to tell where it burns."""
    (hot, nap), waits = tallies("hot", "nap"), Waits()
    lasting = ticker()
    look(lasting, hot, 100, 100)
    look(lasting, nap, 100, 0)
    tick(lasting, {hot: 120})
    waits.place([lasting], [])
    brief = ticker(2)
    look(brief, hot, 20, 10)
    look(brief, nap, 20, 10)
    tick(brief, {hot: 10})
    waits.place([], [brief])

    assert [0, 120] == milliseconds(hot, nap)


def test_where_nothing_tells_waits_stay() -> None:
    """No function was seen for longer than it ticked, yet the thread has waited."""
    one, (hot,) = ticker(), tallies("hot")
    look(one, hot, 100, 50)
    tick(one, {hot: 150})
    Waits().place([one], [])

    assert [50] == milliseconds(hot)


def test_no_function_is_remembered_for_ever() -> None:
    """What is known fades until it is nothing, however often others are seen."""
    waits = Waits()
    for number in range(1000):
        one, (hot, nap) = ticker(), tallies(f"hot_{number}", f"nap_{number}")
        look(one, nap, 900, 100)
        tick(one, {hot: 100})
        waits.place([one], [])

    assert len(waits._habits) < 300


@given(
    looks=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.integers(0, 10**10),
            st.integers(0, 10**10),
            st.integers(0, 10**10),
            st.booleans(),
        ),
        max_size=8,
    ),
    ticks=st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 10**10)), max_size=5),
    core=st.floats(0, 30),
    parted=st.booleans(),
)
def test_nothing_is_lost_and_nothing_is_less_than_nothing(
    looks: list[tuple[str, int, int, int, bool]],
    ticks: list[tuple[str, int]],
    core: float,
    *,
    parted: bool,
) -> None:
    """Whatever the figures, all waiting is as much as before, to the nanosecond."""
    one, waits = ticker(), Waits()
    places = dict(zip("abcde", tallies(*"abcde"), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        for said in (0.0, core):
            patch.setattr(_waits, "_core_wait", lambda _, said=said: round(1e9 * said))
            for name, waited, used, others, late in looks:
                sample = Sample(late=late)
                sample.used = others
                one.look(places[name], waited + used, used, sample)
            for name, cpu in ticks:
                one.tick(places[name], 1, cpu)
            waits.place([] if parted and said else [one], [one] if parted and said else [])

    everywhere = [tally.wait for tally in places.values()]
    assert 2 * sum(waited for _, waited, *_ in looks) == sum(everywhere)
    assert min(everywhere) >= 0
