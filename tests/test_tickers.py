"""What a thread waited for a core is counted where it burned, and nothing is lost on the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ox_otel import _tickers
from ox_otel._looks import Thread
from ox_otel._tallies import Tally
from ox_otel._tickers import ASKED, NOTABLE, Ticker, place_core_waits
from ox_otel.recorders import Function


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Return the seconds that threads have waited for cores, by clock: what the kernel says."""
    said: dict[int, float] = {}
    monkeypatch.setattr(
        _tickers, "_core_wait", lambda thread: round(1e9 * said.get(thread.clock, 0))
    )
    return said


def ticker(clock: int = 1) -> Ticker:
    """Return the ticker of a thread with that clock."""
    return Ticker(Thread(clock, clock, 0, 0), 0)


def tallies(*names: str) -> list[Tally]:
    """Return the tallies of functions."""
    return [Tally((Function("m", name),)) for name in names]


def milliseconds(*some: Tally) -> list[int]:
    """Return what has been counted as waiting."""
    return [tally.wait // 1_000_000 for tally in some]


def live(one: Ticker, seen: Tally, waited: int, ticked: dict[Tally, int]) -> None:
    """Have a thread wait, as it was *seen* to, and tick elsewhere; milliseconds."""
    one.wait(seen, waited * 1_000_000)
    for tally, cpu in ticked.items():
        one.tick(tally, 1, cpu * 1_000_000)


def test_waiting_for_a_core_goes_where_the_thread_ticked(kernel: dict[int, float]) -> None:
    """In proportion to the CPU used there; what else it waited stays where it was seen."""
    one, (call, hot, warm) = ticker(), tallies("call", "hot", "warm")
    kernel[1] = 7.0
    live(one, call, 100, {hot: 10})
    place_core_waits([one])
    first = milliseconds(call, hot, warm)
    kernel[1] = 7.08
    live(one, call, 100, {hot: 30, warm: 10})
    place_core_waits([one])

    assert [100, 0, 0] == first  # nobody knew how much had been before
    assert [120, 60, 20] == milliseconds(call, hot, warm)


def test_no_more_is_moved_than_was_waited(kernel: dict[int, float]) -> None:
    """Though the kernel should count more, of a time before."""
    one, (call, hot) = ticker(), tallies("call", "hot")
    for kernel[1] in (1.0, 9.0):
        live(one, call, 100, {hot: 10})
        place_core_waits([one])

    assert [100, 100] == milliseconds(call, hot)


def test_of_a_thread_that_has_ended_nothing_is_moved(kernel: dict[int, float]) -> None:
    """The kernel says nothing of it, which is no negative time."""
    one, (call, hot) = ticker(), tallies("call", "hot")
    for kernel[1] in (5.0, 0.0):
        live(one, call, 100, {hot: 10})
        place_core_waits([one])

    assert [200, 0] == milliseconds(call, hot)


def test_where_no_tick_came_waits_stay(kernel: dict[int, float]) -> None:
    """There is no place to move them to."""
    one, (call, hot) = ticker(), tallies("call", "hot")
    for kernel[1], ticked in ((1.0, {hot: 10}), (2.0, {})):
        live(one, call, 100, ticked)
        place_core_waits([one])

    assert [200, 0] == milliseconds(call, hot)


def test_who_was_not_asked_for_a_while_begins_anew(kernel: dict[int, float]) -> None:
    """What it waited for a core in a batch that did not count is not taken off the next ones."""
    one, (call, hot) = ticker(), tallies("call", "hot")
    for kernel[1], waited in ((1.0, 100), (2.0, NOTABLE // 1_000_000 - 1), (3.0, 100), (3.0, 100)):
        live(one, call, waited, {hot: 10})
        place_core_waits([one])

    assert 0 == hot.wait


def test_the_kernel_is_asked_about_few(kernel: dict[int, float]) -> None:
    """About those that waited longest."""
    seen = tallies(*map(str, range(3 * ASKED)))
    (hot,) = tallies("hot")
    several = [ticker(number) for number in range(len(seen))]
    for seconds in (1.0, 2.0):
        for number, one in enumerate(several):
            kernel[number] = seconds
            live(one, seen[number], 100 + number, {hot: 10})
        place_core_waits(several)

    assert [number for number, tally in enumerate(seen) if tally.wait < 150_000_000] == list(
        range(2 * ASKED, 3 * ASKED)
    )


@given(
    waits=st.lists(st.integers(0, 10**10), min_size=1, max_size=5),
    ticks=st.lists(st.integers(1, 10**10), min_size=1, max_size=5),
    core=st.floats(0, 30),
)
def test_nothing_is_lost_and_nothing_is_less_than_nothing(
    waits: list[int], ticks: list[int], core: float
) -> None:
    """Whatever the figures, all waiting is as much as before, to the nanosecond."""
    one = ticker()
    seen, ticked = tallies(*"abcde"[: len(waits)]), tallies(*"fghij"[: len(ticks)])
    with pytest.MonkeyPatch.context() as patch:
        for said in (0.0, core):
            patch.setattr(_tickers, "_core_wait", lambda _, said=said: round(1e9 * said))
            for tally, waited in zip(seen, waits, strict=True):
                one.wait(tally, waited)
            for tally, cpu in zip(ticked, ticks, strict=True):
                one.tick(tally, 1, cpu)
            place_core_waits([one])

    everywhere = [tally.wait for tally in (*seen, *ticked)]
    assert 2 * sum(waits) == sum(everywhere)
    assert min(everywhere) >= 0
