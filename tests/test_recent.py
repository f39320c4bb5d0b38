"""The last minute: kept while somebody looks, as long as asked for, and bounded."""

import time
from sys import getsizeof
from types import SimpleNamespace

import pytest

from ox_otel import Function, Profile, Profiler, Settings, Usage, _sums
from ox_otel import _recent as module
from ox_otel._recent import FORGET_SECONDS, KEPT_SECONDS, MAX_STACKS, Recent
from ox_otel.profiles import REST_STACK

STACK = (Function("m", "f"),)


class Clock:
    """A monotonic clock that is set, in place of the real one, and what lives by it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.recent = Recent()
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(module, "since_epoch", lambda: 1e9 + self.now)

    def ask(self, seconds: float = KEPT_SECONDS) -> Profile:
        """Ask for what was used lately."""
        return self.recent.profile(seconds, 0.02)

    def second(self, *, stacks: int = 1) -> None:
        """Let a second pass, with a batch at its end in which each stack has used it."""
        self.now += 1
        used = {(Function("m", f"f{n}"),): Usage(1, 1, 1.0, 0.0, 1.0, 0.0) for n in range(stacks)}
        self.recent.take(used, 1.0, self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock, at which nobody has asked yet."""
    return Clock(monkeypatch)


def cpu_seconds(profile: Profile) -> float:
    """Return all CPU in a profile."""
    return sum(usage.cpu_seconds for usage in profile.stacks.values())


def asked(clock: Clock, seconds: float) -> tuple[float, float]:
    """Return length and CPU of what was used in the last *seconds*."""
    shown = clock.ask(seconds)
    return shown.seconds, cpu_seconds(shown)


def test_nothing_is_kept_before_anybody_asks(clock: Clock) -> None:
    """The first answer is empty; what comes after it is in the next ones."""
    clock.second()
    assert (0.0, {}) == (clock.ask().seconds, clock.ask().stacks)
    clock.second()
    clock.second()
    shown = clock.ask()
    assert (2.0, 2.0) == (shown.seconds, cpu_seconds(shown))
    assert 1e9 + 1001.0 == shown.started


@pytest.mark.parametrize(("asked", "expected"), [(1, 1), (10, 10), (9.5, 10), (60, 60)])
def test_as_long_as_asked_for(clock: Clock, asked: float, expected: float) -> None:
    """The answer is of the last batches that reach as far back as asked for, and says how far."""
    clock.ask()
    for _ in range(100):
        clock.second()
        clock.ask()
    shown = clock.ask(asked)
    assert (expected, expected) == (shown.seconds, cpu_seconds(shown))


def test_when_nobody_asks_any_more_all_is_forgotten(clock: Clock) -> None:
    """Half a minute after the last question nothing is kept, until somebody asks again."""
    clock.ask()
    for _ in range(int(FORGET_SECONDS)):
        clock.second()
    assert clock.recent._kept
    clock.second()
    assert () == clock.recent._kept
    assert 0.0 == clock.ask().seconds


def test_with_many_stacks_it_reaches_less_far_back(clock: Clock) -> None:
    """No more stacks are kept than there is room for, and the length that is told is true."""
    clock.ask()
    for _ in range(20):
        clock.second(stacks=MAX_STACKS // 4)
    shown = clock.ask()
    assert (4.0, float(MAX_STACKS)) == (shown.seconds, cpu_seconds(shown))


def test_a_batch_is_never_cut(clock: Clock) -> None:
    """A batch with more stacks than there is room for is kept, alone; all of it counts."""
    clock.ask()
    for _ in range(2):
        clock.second(stacks=MAX_STACKS + 1)
    assert (1.0, MAX_STACKS + 1) == asked(clock, KEPT_SECONDS)


def test_a_window_tells_as_many_stacks_apart_as_a_capture(clock: Clock) -> None:
    """What comes as one too many counts under the rest, so that a graph of it is bounded."""
    clock.ask()
    clock.second(stacks=_sums.MAX_STACKS + 10)
    shown = clock.ask()
    assert _sums.MAX_STACKS == len(shown.stacks)
    assert 11.0 == shown.stacks[REST_STACK].cpu_seconds


def test_what_was_used_before_a_rest_is_no_longer_lately(clock: Clock) -> None:
    """Though nothing comes after it, a batch is shown as long as its age is what is asked for."""
    clock.ask()
    clock.second()
    began = 1e9 + 1000.0
    for seconds in (10, KEPT_SECONDS):
        clock.now = 1001.0 + seconds - 0.5
        assert (1.0, 1.0, began) == (*asked(clock, seconds), clock.ask(seconds).started)
        clock.now += 1.0
        assert (0.0, 0.0) == asked(clock, seconds)


def test_a_batch_that_is_longer_than_asked_for(clock: Clock) -> None:
    """Where samples are rare, the last batch is shown until the next one is due."""
    clock.ask()
    clock.recent.take({STACK: Usage(1, 1, 30.0, 0.0, 30.0, 0.0)}, 30.0, clock.now)
    clock.now += 29
    assert (30.0, 30.0) == asked(clock, 1)
    clock.now += 2
    assert (0.0, 0.0) == asked(clock, 1)


def test_batches_without_stacks(clock: Clock) -> None:
    """What is seen after them was going on in their time too, so their length is in the window."""
    clock.ask()
    for stacks in (0, 0, 1, 0, 1):
        clock.second(stacks=stacks)
    assert (5.0, 2.0) == asked(clock, 60)
    assert 1e9 + 1000.0 == clock.ask().started


def test_a_rest_takes_no_place_in_the_window(clock: Clock) -> None:
    """What passes while sampling rests is in no batch that is seen after it."""
    clock.ask()
    clock.second()
    clock.recent.take({}, 20.0, clock.now + 20)
    clock.now += 20
    clock.recent.begin()
    clock.second()
    shown = clock.ask(30)
    assert (2.0, 2.0) == (shown.seconds, cpu_seconds(shown))
    assert 1e9 + 1000.0 == shown.started


def test_a_pause_takes_no_place_in_the_window() -> None:
    """Whatever is asked of a paused profiler, the time is not that of what comes after it."""
    began = time.monotonic()
    with Profiler(Settings(max_overhead=1)) as profiler:
        profiler.recent(60)
        profiler.snapshot()
        profiler.pause()
        paused = time.monotonic()
        while time.monotonic() < paused + 2.0:
            profiler.snapshot()  # a batch of nothing
        profiler.unpause()
        deadline = time.monotonic() + 60
        samples = profiler.status().samples
        while profiler.status().samples < samples + 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        profiler.snapshot()
        shown = profiler.recent(60)
    assert 0 < shown.seconds < time.monotonic() - began - 1.0


def test_memory_at_the_limit(clock: Clock) -> None:
    """What is kept takes 2 MiB at most, beside the stacks that the engine remembers anyway."""
    for _ in range(60):
        clock.ask()
        clock.second(stacks=MAX_STACKS // 60)
    kept = [batch.stacks for batch in clock.recent._kept]
    usages = {id(usage): usage for stacks in kept for usage in stacks.values()}
    assert 60 == len(kept)
    numbers = 2 * getsizeof(1.0) * len(usages)
    assert 2**21 > sum(map(getsizeof, kept)) + sum(map(getsizeof, usages.values())) + numbers


def test_a_running_profiler() -> None:
    """A profiler tells what its threads did lately, in the units of a capture."""
    with Profiler(Settings(max_overhead=1)) as profiler:
        deadline = time.monotonic() + 60
        # of a short time, much may have passed before the first sample where a core is hard to get
        while (shown := profiler.recent(10)).seconds < 2.5:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    here = Function(__name__, "test_a_running_profiler")
    used = sum(
        usage.cpu_seconds + usage.wait_seconds
        for stack, usage in shown.stacks.items()
        if here in stack
    )
    assert pytest.approx(shown.seconds, rel=0.2, abs=0.2) == used
