"""The schedule: jittered, on time on average, within its budget."""

from itertools import pairwise
from math import inf
from random import Random
from statistics import fmean

import pytest

from ox_otel._clock import LONGEST_INTERVAL, Schedule


def gaps(schedule: Schedule, count: int, delay: float = 0.0) -> list[float]:
    """Return the gaps between *count* samples, each taken *delay* after it was due."""
    now, times = 0.0, []
    schedule.restart(now)
    for _ in range(count):
        now += schedule.wait(now) + delay
        times.append(now)
        schedule.sampled(now, moved=True)
    return [later - earlier for earlier, later in pairwise(times)]


def test_gaps_average_the_interval_and_differ() -> None:
    """Samples come at the rate asked for, but never in lockstep."""
    found = gaps(Schedule(0.02, 1.0, Random(1)), 5000)

    assert 0.02 == pytest.approx(fmean(found), rel=0.02)
    assert min(found) >= 0.01
    assert max(found) <= 0.03
    assert len({round(gap, 4) for gap in found}) > 100


def test_being_a_little_late_does_not_slow_down() -> None:
    """A sample that is served late does not push back all later ones."""
    found = gaps(Schedule(0.02, 1.0, Random(1)), 5000, delay=0.005)

    assert 0.02 == pytest.approx(fmean(found), rel=0.02)


def test_samples_that_come_too_late_are_missed_not_caught_up() -> None:
    """After a long delay there is no burst; what could not be taken is counted."""
    schedule = Schedule(0.02, 1.0, Random(1))
    schedule.restart(0.0)
    schedule.sampled(10.0, moved=True)

    assert 490 <= schedule.delays.missed <= 510
    assert schedule.wait(10.0) >= 0.01


def test_what_happened_before_a_restart_is_not_missed() -> None:
    """A pause of an hour leaves no trace in the count of missed samples."""
    schedule = Schedule(0.02, 1.0, Random(1))
    schedule.restart(0.0)
    schedule.restart(3600.0)
    schedule.sampled(3600.02, moved=True)

    assert 0 == schedule.delays.missed


def test_the_budget_stretches_the_interval_and_lets_it_come_back() -> None:
    """The interval grows at once until the cost fits, and shrinks smoothly when samples get cheap."""
    schedule = Schedule(0.02, 0.01, Random(1))
    schedule.charge(0.001 * 50, 50)  # a millisecond a sample: 5 % of a core at 20 ms

    assert 0.1 <= schedule.stretched <= 0.12

    seen = []
    for _ in range(30):
        schedule.charge(0.0001 * 50, 50)
        seen.append(schedule.stretched)

    assert seen == sorted(seen, reverse=True)
    assert seen[0] > 0.05
    assert 0.02 == seen[-1]


def test_the_budget_never_stops_sampling_altogether() -> None:
    """However dear a sample is, the next one comes."""
    schedule = Schedule(0.02, 0.0001, Random(1))
    for _ in range(50):
        schedule.charge(10.0, 1)

    assert LONGEST_INTERVAL == schedule.stretched


def test_a_quiet_process_is_looked_at_ever_more_rarely() -> None:
    """While nothing moves, a gap grows to a hundredth of the quiet time, up to its limit."""
    schedule, now, found = Schedule(0.02, 1.0, Random(1)), 0.0, []
    schedule.restart(now)
    while now < 120.0:
        gap = schedule.wait(now)
        now += gap
        found.append((now, gap))
        schedule.sampled(now, moved=False)

    assert all(gap <= 0.03 for at, gap in found if at < 2)
    assert all(gap <= 1.5 * 0.01 * at for at, gap in found if at > 3)
    assert 2 * 60 == pytest.approx(sum(at > 60 for at, _ in found), rel=0.1)

    schedule.sampled(now, moved=True)
    assert schedule.wait(now) <= 0.03


def test_a_shorter_interval_holds_at_once_and_once() -> None:
    """However often somebody asks meanwhile, the sample is due when it was at the first question."""
    schedule = Schedule(60.0, 1.0, Random(1))
    schedule.restart(0.0)
    schedule.interval = 0.02
    dues = [now + schedule.wait(now) for now in (0.0, 0.005, 0.010, 0.029)]

    assert [0.03] * 4 == pytest.approx(dues)


def test_delays_are_counted_by_how_late_samples_come() -> None:
    """Every sample is in the class of the lowest bound that its delay does not pass."""
    schedule = Schedule(0.02, 1.0, Random(1))
    for delay in (0.0, 0.0005, 0.003, 0.2):
        schedule.restart(0.0)
        schedule.sampled(schedule.wait(0.0) + delay, moved=True)

    assert {0.001: 2, 0.005: 1, inf: 1} == schedule.delays.counts
    assert 0.2035 == pytest.approx(schedule.delays.seconds)


def test_what_is_due_ahead_is_no_more_than_is_wanted() -> None:
    """Up to the time that is given, with one after it; all of it would be thousands."""
    schedule = Schedule(0.001, 1.0)
    schedule.restart(0.0)
    few, all_of_it = schedule.ahead(0.0, 1.0, 64), schedule.ahead(0.0, 1.0, 5000)

    assert 64 == len(few)
    assert all_of_it[-2] < 1.0 <= all_of_it[-1]


def test_times_ahead_are_those_at_which_samples_are_due() -> None:
    """From the one that is due next, as far apart as ever, to the first beyond the end."""
    schedule = Schedule(0.02, 1.0, Random(1))
    schedule.restart(5.0)
    first = 5.0 + schedule.wait(5.0)
    dues = schedule.ahead(5.0, 6.0, 1000)
    between = [later - earlier for earlier, later in pairwise(dues)]

    assert first == dues[0]
    assert dues[-2] < 6.0 <= dues[-1]
    assert 0.01 <= min(between) <= max(between) <= 0.03
    assert 0.02 == pytest.approx(fmean(between), rel=0.2)


def test_one_time_ahead_there_always_is() -> None:
    """The next sample may be due after the end."""
    schedule = Schedule(0.02, 1.0, Random(1))
    schedule.restart(5.0)

    assert [5.0 + schedule.wait(5.0)] == schedule.ahead(5.0, 5.0, 1000)


def test_a_sample_that_was_agreed_upon_follows() -> None:
    """Neither is the gap drawn anew, nor is anything late that comes then."""
    schedule = Schedule(0.02, 1.0, Random(1))
    schedule.restart(0.0)
    dues = schedule.ahead(0.0, 1.0, 1000)
    for due, following in pairwise(dues):
        schedule.sampled(due, moved=True, following=following)
        assert following - due == pytest.approx(schedule.wait(due))

    assert {0.001: len(dues) - 1} == schedule.delays.counts
    assert 0 == schedule.delays.missed


def test_a_sample_that_was_agreed_upon_and_is_over_is_missed() -> None:
    """The one before came too late for it."""
    schedule = Schedule(0.02, 1.0, Random(1))
    schedule.restart(0.0)
    schedule.sampled(0.035, moved=True, following=0.034)

    assert 1 == schedule.delays.missed
    assert schedule.wait(0.035) >= 0.01
