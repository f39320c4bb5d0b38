"""The engine `ticks`: CPU as the kernel counts it, waits as the samples show them."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import FileIO
from itertools import count, cycle
from types import FrameType
from typing import Any, Self

import pytest
from burning import burn
from standstill import until_still

if sys.platform != "linux":
    pytest.skip("ticks are of Linux", allow_module_level=True)

import ox_otel
from ox_otel import _engines, _ticking, _ticks, _timers
from ox_otel._clock import Schedule
from ox_otel._interpreter import frames_of_threads
from ox_otel._looks import Thread
from ox_otel._names import Names
from ox_otel._pipeline import Pipeline
from ox_otel._settings import Settings
from ox_otel._tallies import Tally
from ox_otel._tasks import core_wait
from ox_otel._tickers import Ticker
from ox_otel._ticking import PACE, RESTLESS, Ticks
from ox_otel._waits import Waits
from ox_otel.recorders import UNPLACED, Function, Stack, Usage


class Engine(Ticks):
    """The engine, at 100 ticks a second of CPU at first, with its errors and when it sampled."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.sampled_at: list[int] = []
        self.interval = 0.02
        super().__init__(Names(), 64, self.errors.append, lambda: self.interval)

    def take(self, seconds: float = 0.0) -> None:
        """Take a sample after that time, as the thread that samples does, and note when."""
        due = time.monotonic() + seconds
        if not self.watch([due]):
            time.sleep(max(due - time.monotonic(), 0.0))
            self.sample(0.0)
        self.sampled_at.append(self._now)


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Yield an engine, and take away its timers and its signal."""
    made = Engine()
    yield made
    made.reset()


@contextmanager
def threads(*targets: Callable[[], None]) -> Iterator[None]:
    """Run *targets* on threads of their own, and wait for their end."""
    running = [threading.Thread(target=target) for target in targets]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        for thread in running:
            thread.join()


def observe(engine: Engine, *targets: Callable[[], None]) -> dict[Stack, Usage]:
    """Sample ten times a second while *targets* run; return what each stack used."""
    ended: list[None] = []

    def until_the_end(target: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            armed.wait()
            try:
                target()
            finally:
                ended.append(None)
                release.wait()  # so that its clock can be read

        return run

    armed, release = threading.Event(), threading.Event()
    stacks: dict[Stack, Usage] = {}
    with threads(*map(until_the_end, targets)):
        engine.take()
        armed.set()
        while len(ended) < len(targets):
            engine.take(0.05)
        engine.take()
        release.set()
    for stack, usage in engine.drain().items():
        stacks[stack] = stacks.get(stack, Usage()).plus(usage)
    return stacks


def named(stacks: dict[Stack, Usage], name: str) -> Usage:
    """Return the sum over the stacks that have the function *name* anywhere on them."""
    found = [
        usage
        for stack, usage in stacks.items()
        if any(function.name.rpartition(".")[2] == name for function in stack)
    ]
    total = Usage()
    for usage in found:
        total = total.plus(usage)
    return total


@contextmanager
def burning() -> Iterator[None]:
    """Have a thread use CPU, in `burn`, for as long as the block runs."""

    def burn_on() -> None:
        while not over.is_set():
            burn(0.005)

    over = threading.Event()
    with threads(burn_on):
        try:
            yield
        finally:
            over.set()


def test_cpu_is_that_of_the_clock(engine: Engine) -> None:
    """What a thread's stacks used, placed or not, is what its clock says, but for ticks to come.

    Mostly that is less than two; on a busy machine a thread meets few beats of the kernel's clock.
    """
    spent: list[float] = []

    def work() -> None:
        for _ in range(10):
            burn(0.06)
            time.sleep(0.005)
        spent.append(time.thread_time())

    stacks = observe(engine, work)
    used = named(stacks, "work")

    assert spent[0] == pytest.approx(used.cpu_seconds, abs=0.055)
    assert used.cpu_seconds == pytest.approx(named(stacks, "burn").cpu_seconds, abs=0.055)
    assert not engine.errors


def test_cpu_goes_to_whoever_used_it_whoever_has_the_gil(engine: Engine) -> None:
    """Four threads that alternate work in C that holds the GIL with sleep: sleep has no CPU."""
    spent: list[float] = []

    def hold() -> None:
        sum(range(200_000))

    def nap() -> None:
        time.sleep(0.005)

    def work() -> None:
        while time.thread_time() < 0.3:
            hold()
            nap()
        spent.append(time.thread_time())

    stacks = observe(engine, *[work] * 4)

    assert named(stacks, "nap").cpu_seconds < 0.06 * sum(spent)
    assert named(stacks, "hold").cpu_seconds > 0.85 * sum(spent)
    assert named(stacks, "nap").wait_seconds > 0.1


def test_time_is_cpu_or_wait(engine: Engine) -> None:
    """CPU and wait of a thread are together the time from the first to the last sample of it."""

    def work() -> None:
        burn(0.2)
        time.sleep(0.2)

    used = named(observe(engine, work), "run")
    elapsed = (engine.sampled_at[-1] - engine.sampled_at[0]) * 1e-9

    # what no tick stands for yet is given up as unplaced when it is more than five periods
    assert elapsed == pytest.approx(used.cpu_seconds + used.wait_seconds, abs=0.05)


class Walker:
    """A thread that burns some CPU before it waits, at one of two places in turn."""

    def __init__(self, burnt: float = 0.002) -> None:
        self._go, self._there = threading.Semaphore(0), threading.Semaphore(0)
        self._over = False
        self._burnt = burnt
        self._thread = threading.Thread(target=self.walk)

    def walk(self) -> None:
        """Wait here and there until the end."""
        while not self._over:
            self.here()
            self.there()

    def here(self) -> None:
        """Wait, for the first time or again."""
        self._pause()

    def there(self) -> None:
        """Wait at another place."""
        self._pause()

    def _pause(self) -> None:
        burn(self._burnt)
        self._there.release()
        self._go.acquire()

    def step(self) -> None:
        """Have it go on to the next place, and return when it waits there."""
        self._go.release()
        self._there.acquire()
        until_still([self._thread])

    def __enter__(self) -> Self:
        self._thread.start()
        self._there.acquire()
        until_still([self._thread])
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Have it end, and return when it has."""
        self._over = True
        self._go.release(2)
        self._thread.join()


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Return a list that grows with each list of the frames of all threads that is made.

    Nobody traces, whatever other tests have imported.
    """
    made: list[None] = []

    def frames() -> AbstractContextManager[dict[int, FrameType]]:
        made.append(None)
        return frames_of_threads()

    monkeypatch.setattr("ox_otel._threads.frames_of_threads", frames)
    monkeypatch.setattr("ox_otel._ticking.is_traced", lambda: False)
    return made


def test_whoever_ticks_is_seen_where_it_stands_without_a_list_of_all(
    engine: Engine, listings: list[None]
) -> None:
    """Each sample sees it at its present place; what it waits there is counted there."""
    with Walker() as walker:
        engine.take()
        engine.drain()
        walker.step()
        engine.take()
        before = len(listings)
        for _ in range(10):
            walker.step()
            engine.take()
            time.sleep(0.01)
        engine.take()
        made = len(listings) - before
        stacks = engine.drain()

    here, there = named(stacks, "here"), named(stacks, "there")
    assert (5, 7) == (here.hits, there.hits)
    assert min(here.wait_seconds, there.wait_seconds) > 0.05
    assert 0 == made


def test_where_somebody_traces_now_and_then_a_list_is_made(
    engine: Engine, listings: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sample in five takes frames, to see in which span a function runs."""
    monkeypatch.setattr("ox_otel._ticking.is_traced", lambda: True)
    with Walker() as walker:
        engine.take()
        engine.drain()
        walker.step()
        engine.take()
        before = len(listings)
        for _ in range(10):
            walker.step()
            engine.take()

    assert 2 == len(listings) - before


def test_more_threads_than_can_be_watched_are_listed(
    engine: Engine, listings: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the portable engine, which has a time limit."""
    monkeypatch.setattr(_ticking, "WATCHED", 0)
    with Walker() as walker:
        engine.take()
        walker.step()
        engine.take()

    assert 2 == len(listings)


def test_a_thread_that_cannot_be_looked_at_from_without_is_listed(
    engine: Engine, listings: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has no frames at present, or whose memory is another's."""
    watch = _ticks.watch
    monkeypatch.setattr(
        _ticks,
        "watch",
        lambda *asked: [(at, cpu, False, []) for at, cpu, _, _ in watch(*asked)],
    )
    with Walker() as walker:
        engine.take()
        engine.drain()
        walker.step()
        engine.take()
        walker.step()
        engine.take()
        stacks = engine.drain()

    assert (1, 1) == (named(stacks, "here").hits, named(stacks, "there").hits)
    assert 3 == len(listings)


@contextmanager
def incomplete_watches() -> Iterator[None]:
    """Have each watch end with its first sample, as not complete."""
    with pytest.MonkeyPatch.context() as patch:
        watch = _ticks.watch
        patch.setattr(
            _ticks,
            "watch",
            lambda *asked: [(at, cpu, False, looks) for at, cpu, _, looks in watch(*asked)[:1]],
        )
        yield


@pytest.fixture
def incomplete() -> Iterator[None]:
    """Have each sample need the GIL, whatever has been seen without."""
    with incomplete_watches():
        yield


@pytest.fixture
def walker(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Walker]:
    """Yield one that moves: it waits at its second place, where it has been counted so far.

    Nobody traces, whatever other tests have imported.
    """
    monkeypatch.setattr("ox_otel._ticking.is_traced", lambda: False)
    with Walker() as made:
        engine.take()
        engine.drain()
        made.step()
        engine.take()
        engine.drain()
        yield made


def test_what_has_been_seen_from_without_is_kept_for_the_list(
    engine: Engine, walker: Walker
) -> None:
    """Nobody is looked at again a moment later, where it lets go of the GIL."""
    walker.step()
    with incomplete_watches():
        engine.watch([0.0])
        walker.step()
        engine.watch([0.0])
        engine.sample(0.0)
    stacks = engine.drain()

    assert (1, 0) == (named(stacks, "here").hits, named(stacks, "there").hits)


def test_what_has_been_seen_is_seen_anew_where_ticks_have_ended(
    engine: Engine, walker: Walker
) -> None:
    """Somebody took the signal before the list was made: the portable engine leaves nobody out."""
    walker.step()
    with incomplete_watches():
        engine.watch([0.0])
    before = signal.signal(signal.SIGPROF, lambda *_: None)
    try:
        engine.sample(0.0)
    finally:
        signal.signal(signal.SIGPROF, before)
    stacks = engine.drain()

    assert (1, 0) == (named(stacks, "here").hits, engine.watched)


def test_what_a_thread_uses_before_the_list_is_made_is_no_waiting(
    engine: Engine, walker: Walker
) -> None:
    """It was seen when the sample was due; that may be long before we have the GIL."""
    walker.step()
    with incomplete_watches():
        engine.watch([0.0])
    watched_by = time.monotonic_ns()
    walker._burnt = 0.2
    walker.step()
    engine.sample(0.0)
    (thread,) = (ticker.thread for ticker in engine._tickers.values())
    engine.drain()
    counted_at, seen = thread.counted_at, thread.seen

    assert not seen
    assert counted_at <= watched_by


def test_what_a_thread_uses_before_the_list_is_made_hides_nobody(engine: Engine) -> None:
    """It explains what this thread has used, and nothing that others use later."""
    with Walker() as walker, Walker() as other:
        engine.take()
        engine.drain()
        walker.step()
        other.step()
        engine.take()
        engine.drain()
        walker.step()
        with incomplete_watches():
            engine.watch([0.0])
        walker._burnt = 0.2
        walker.step()
        engine.sample(0.0)
        engine.drain()
        engine._moving.discard(other._thread.ident or 0)
        other.step()
        engine.take()
        (moved,) = (t for t in engine._threads.values() if t.ident == other._thread.ident)
        expected = time.clock_gettime_ns(moved.clock or 0)

    assert expected == moved.cpu


@pytest.mark.usefixtures("incomplete")
def test_who_has_been_looked_at_from_without_is_not_looked_at_twice(
    engine: Engine, listings: list[None]
) -> None:
    """The list is for the others."""
    with Walker() as walker:
        engine.take()
        engine.drain()
        walker.step()
        engine.take()
        engine.drain()
        walker.step()
        engine.take()
        stacks = engine.drain()

    assert (1, 0) == (named(stacks, "here").hits, named(stacks, "there").hits)
    assert 3 == len(listings)


@pytest.mark.usefixtures("incomplete")
def test_a_look_is_void_once_names_are_forgotten(
    engine: Engine, walker: Walker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of code objects that nobody holds any more."""
    walker.step()
    engine.watch([0])
    with monkeypatch.context() as patch:
        patch.setattr("ox_otel._threads.MAX_CODES", 0)
        engine.drain()
    engine.sample(0.0)
    stacks = engine.drain()

    assert 1 == named(stacks, "here").hits


@pytest.mark.usefixtures("incomplete")
def test_a_look_at_a_thread_that_has_ended_since_does_not_count(
    engine: Engine, walker: Walker
) -> None:
    """It stands nowhere when the sample is taken."""
    walker.step()
    engine.watch([0])
    walker.end()
    engine.sample(0.0)
    stacks = engine.drain()

    assert 0 == named(stacks, "walk").hits


@pytest.mark.usefixtures("incomplete")
def test_who_has_been_seen_from_without_has_moved(engine: Engine, walker: Walker) -> None:
    """Though nobody is left for the list."""
    walker.step()
    engine.watch([0])

    assert engine.sample(0.0)
    assert not engine.sample(0.0)


def test_who_stands_still_is_counted_where_it_stood(engine: Engine, walker: Walker) -> None:
    """When it moves, from without as well; a sample in which nobody has tells so."""
    walker.step()
    found = []
    for _ in range(4):
        found += engine.watch([0])
    walker.step()
    found += engine.watch([0])
    stacks = engine.drain()

    assert [True, False, False, False, True] == [moved for _, moved in found]
    assert (4, 1) == (named(stacks, "here").hits, named(stacks, "there").hits)


def test_no_time_of_a_thread_that_runs_is_counted_twice(
    engine: Engine, walker: Walker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at it stands for the time since the last."""
    walker.step()
    watch = _ticks.watch
    monkeypatch.setattr(
        _ticks,
        "watch",
        lambda *asked: [
            (at, others, True, [(0, asked[0][0][2] + 1000, None)])
            for at, others, *_ in watch(*asked)
        ],
    )
    (ticker,) = engine._tickers.values()
    began, before = ticker.thread.counted_at, ticker.thread.counted
    for _ in range(3):
        engine.watch([0])
    elapsed, used = engine._now - began, ticker.thread.cpu - before

    assert (3, elapsed, elapsed) == (ticker.runs, ticker.running, ticker.used + ticker.waited)
    assert used == ticker.used


def test_no_hit_of_a_thread_that_runs_is_lost_when_names_are_forgotten(
    engine: Engine, walker: Walker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it was seen last is not known any more."""
    walker.step()
    with monkeypatch.context() as patch:
        patch.setattr("ox_otel._threads.MAX_CODES", 0)
        engine.drain()
    (ticker,) = engine._tickers.values()
    ticker.look(None, 1, 1)
    stacks = engine.drain()

    assert 1 == sum(usage.hits for usage in stacks.values())


def test_what_a_thread_has_waited_is_counted_though_it_has_ended(
    engine: Engine, walker: Walker
) -> None:
    """It has no ticks any more when the batch is due."""
    (ticker,) = engine._tickers.values()
    ticker.waited = 10**9
    walker.end()
    engine.take()
    stacks = engine.drain()

    assert not engine._tickers
    assert sum(usage.wait_seconds for usage in stacks.values()) >= 1


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("ahead", [-(10**10), 10**10])
def test_no_clock_makes_a_thread_use_more_than_the_time_or_less_than_nothing(
    engine: Engine, walker: Walker, monkeypatch: pytest.MonkeyPatch, *, seen: bool, ahead: int
) -> None:
    """It may seem to have run ahead of the time, or its ticks have."""
    walker.step()
    watch = _ticks.watch
    monkeypatch.setattr(
        _ticks,
        "watch",
        lambda *asked: [
            (at, others, True, [(number, cpu, stack if seen else None)])
            for at, others, _, [(number, cpu, stack)] in watch(*asked)
        ],
    )
    (ticker,) = engine._tickers.values()
    began = ticker.thread.counted_at
    ticker.thread.counted -= ahead
    engine.watch([0])
    elapsed = engine._now - began

    assert (elapsed if ahead > 0 else 0) == ticker.used == elapsed - ticker.waited


def test_what_nobody_has_accounted_for_is_not_lost(
    engine: Engine, walker: Walker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPU that was too little to be looked for is added to what is used next."""
    engine.take()  # it stands still, and is not one of those that have moved lately any more
    engine.drain()
    walker.step()
    watch = _ticks.watch
    with monkeypatch.context() as patch:
        patch.setattr(_ticks, "watch", lambda *asked: watch(*asked[:3], 2**62))
        taken = len(engine.watch([0]))
    engine.take()
    stacks = engine.drain()

    assert 1 == taken
    assert 1 == named(stacks, "here").hits


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list of how many threads and samples have been asked for; none is taken."""
    made: list[tuple[int, int]] = []

    def watch(threads: list[None], dues: list[int], *_: int) -> list[None]:
        made.append((len(threads), len(dues)))
        return []

    monkeypatch.setattr(_ticks, "watch", watch)
    monkeypatch.setattr("ox_otel._ticking.is_traced", lambda: False)
    return made


def test_no_more_is_asked_for_than_can_be_watched(
    engine: Engine, asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty-four samples, and none where there are more threads: one that left some out is no use."""
    with Walker(), Walker():
        engine.take()
        engine._restless = 0
        engine.watch([0.0] * 100)
        monkeypatch.setattr(_ticking, "WATCHED", 1)
        engine.watch([0.0] * 100)

    assert [(2, 64)] == asked[1:]


def test_many_threads_are_watched_for_fewer_samples(
    engine: Engine, asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a watch returns is counted with the GIL, which the host waits for meanwhile."""
    monkeypatch.setattr(_ticking, "LOOKS", 7)
    with Walker(), Walker():
        engine.take()
        engine._restless = 0
        engine.watch([0.0] * 100)

    assert [(2, 3)] == asked[1:]


def test_no_more_samples_come_closer_than_there_shall(
    engine: Engine, asked: list[tuple[int, int]]
) -> None:
    """The times of those beyond are to be drawn anew, at the pace that holds then."""
    engine.take()
    engine._restless = 3
    engine.watch([0.0] * 10)

    assert [(0, 3)] == asked[1:]


@pytest.mark.parametrize("way", ["watch", "sample"])
def test_ticks_are_taken_when_there_are_many(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """There is room for only so many until the batch is due."""
    engine.take()
    drained: list[None] = []
    monkeypatch.setattr(_ticks, "drain", lambda: drained.append(None) or [])
    act = {"watch": lambda: engine.watch([]), "sample": lambda: engine.sample(0.0)}[way]
    found = []
    for due in (_ticking.MOST_DUE, _ticking.MOST_DUE + 1, 0):
        engine._due += due * engine._timers.period
        act()
        found.append(len(drained))

    assert [0, 1, 1] == found


def test_a_watch_is_ended_by_its_own_engine_only(engine: Engine) -> None:
    """A ring of another one, which has no ticks, is not heard by whoever watches next."""
    second = Engine()
    engine.take()
    second.take()
    now = time.monotonic()
    second.wake()
    heard_of_another = not _ticks.watch([], [round(now * 1e9)], 0, 2**62)
    engine.wake()
    heard = not _ticks.watch([], [round(now * 1e9)], 0, 2**62)
    second.reset()

    assert (False, True) == (heard_of_another, heard)


def test_code_made_of_a_string_has_its_module_as_soon_as_a_sample_sees_it(engine: Engine) -> None:
    """A tick sees its name only."""
    with Walker() as walker:
        engine.take()
        engine.drain()
        walker.step()
        engine.take()
        space: dict[str, Any] = {"__name__": "made", "wait": walker.here}
        exec("def here(): wait()", space)  # noqa: S102
        walker.here = space["here"]  # type: ignore[method-assign]
        walker.step()
        engine.take()
        stacks = engine.drain()

    assert Function("made", "here") in {function for stack in stacks for function in stack}


def test_who_moves_at_hardly_any_cost_is_seen_some_batches_later(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a thread uses may stay unnoticed until all clocks are read, and no longer."""
    with Walker() as walker:
        engine.take()
        engine.drain()
        walker.step()
        for _ in range(2):  # in the second of these it has stood still
            engine.take()
            engine.drain()
        walker.step()
        # it seems that those who have moved lately account for all that was used
        watch = _ticks.watch
        monkeypatch.setattr(
            _ticks,
            "watch",
            lambda threads, dues, explained, least: watch(
                threads, dues, explained, least if explained < 0 else 2**62
            ),
        )
        stacks: dict[Stack, Usage] = {}
        for _ in range(_ticking.CHECKED + 1):
            engine.take()
            stacks |= engine.drain()

    assert named(stacks, "here").hits > 0


def test_waiting_for_a_core_is_counted_where_cpu_is_used(engine: Engine) -> None:
    """And not at the call after it, where the sampler gets the GIL at last."""
    core = min(os.sched_getaffinity(0))
    rival = subprocess.Popen(
        [sys.executable, "-c", f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"]
    )

    def work() -> None:
        os.sched_setaffinity(0, {core})
        with open(os.devnull, "wb", buffering=0) as file:
            while not over:
                burn(0.002)
                call(file)

    def call(file: FileIO) -> None:
        file.write(b".")

    over: list[None] = []
    waits = 0.0, 0.0
    deadline = time.monotonic() + 60
    try:
        with threads(work):
            for batch in count():
                for _ in range(10):
                    engine.take(0.03)
                stacks = engine.drain()
                if batch > 1:  # in the first one it is not known yet how much was before
                    found = named(stacks, "burn").wait_seconds, named(stacks, "call").wait_seconds
                    waits = waits[0] + found[0], waits[1] + found[1]
                if sum(waits) > 0.5 or time.monotonic() > deadline:
                    break
            over.append(None)
    finally:
        rival.kill()
        rival.wait()

    assert waits[0] > 0.35
    assert waits[1] < 0.25 * sum(waits)


@pytest.mark.parametrize("ended", [False, True])
def test_waiting_is_not_counted_where_cpu_is_used(engine: Engine, *, ended: bool) -> None:
    """A thread that burns and naps by turns, faster than samples come, has waited in its naps.

    So has one that has ended when the batch is due. What it had to wait for a core is another matter.
    """

    def work() -> None:
        began.set()
        until = time.thread_time() + 1.0
        while time.thread_time() < until:
            burn(0.012)
            nap()
        starved.append(1e-9 * core_wait(threading.get_native_id()))
        if not ended:
            over.wait()

    def nap() -> None:
        time.sleep(0.012)

    for _ in range(5):  # where there are too few cores, looks come when one is free, not at random
        starved: list[float] = []
        began, over = threading.Event(), threading.Event()
        with threads(work):
            began.wait()
            (worker,) = (one for one in threading.enumerate() if one.name.endswith("(work)"))
            while worker.is_alive() and (ended or not starved):
                engine.take(0.03)
            engine.take()
            stacks = engine.drain()
            over.set()
        waited = named(stacks, "burn").wait_seconds, named(stacks, "nap").wait_seconds
        if waited[0] < 0.3 * sum(waited) + starved[0]:
            break

    assert sum(waited) > 0.5
    assert waited[0] < 0.3 * sum(waited) + starved[0]  # half of it, where looks have the GIL


def test_generated_code_has_its_true_name(engine: Engine) -> None:
    """Functions that live for one call are told apart, and their names are those that they had."""
    calls = 0

    def generate() -> None:
        nonlocal calls
        while time.thread_time() < 0.5:
            space: dict[str, object] = {"burn": burn}
            exec(f"def made_{calls}(): burn(0.012)", space)  # noqa: S102
            space[f"made_{calls}"]()  # type: ignore[operator]
            calls += 1

    stacks = observe(engine, generate)
    names = {f.name for stack in stacks for f in stack if f.name.startswith("made")}

    assert names <= {f"made_{number}" for number in range(calls)}
    assert len(names) > 10


def test_code_that_is_seen_by_ticks_only_has_the_module_it_was_loaded_from(engine: Engine) -> None:
    """Where samples never see a function its module is found by its file."""
    stacks = observe(engine, lambda: burn(0.2))

    assert Function("burning", "burn") in {stack[-1] for stack in stacks}


def test_ticks_that_do_not_come_are_said_to_be_unplaced(engine: Engine) -> None:
    """CPU of a thread that blocks the signal, later, is not lost, and it is asked no more."""

    def block() -> None:
        burn(0.05)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
        burn(0.3)

    used = named(observe(engine, block), "run")

    assert used.cpu_seconds == pytest.approx(0.35, abs=0.03)


def test_a_thread_that_blocks_the_signal_is_left_alone(engine: Engine) -> None:
    """It may wait for signals itself, and shall not get one of ours; its CPU is counted."""
    found: list[object] = []

    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
        ready.set()
        go.wait()
        burn(0.1)
        found.append(signal.sigtimedwait({signal.SIGURG}, 0.05))
        over.wait()  # so that its clock can be read

    ready, go, over = threading.Event(), threading.Event(), threading.Event()
    with threads(block):
        ready.wait()
        engine.take()
        go.set()
        while not found:
            engine.take(0.02)
        engine.take()
        over.set()

    assert [None] == found
    assert named(engine.drain(), "block").cpu_seconds > 0.08


def test_a_thread_that_blocks_the_signal_later_is_left_alone_from_then_on(engine: Engine) -> None:
    """The next samples notice: it may be about to wait for signals."""

    def block() -> None:
        while not go.is_set():
            pass
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
        while not over.is_set():
            pass

    def sample_until(count: int) -> int:
        deadline = time.monotonic() + 60
        while timers() != count and time.monotonic() < deadline:
            engine.take(0.02)
        return timers()

    go, over = threading.Event(), threading.Event()
    with threads(block):
        before = sample_until(1)
        go.set()
        after = sample_until(0)
        over.set()

    assert (1, 0) == (before, after)


def test_a_thread_that_can_have_no_timer_is_not_asked_for_one_again(engine: Engine) -> None:
    """It is an error, once; the thread's CPU is counted all the same."""
    limits = resource.getrlimit(resource.RLIMIT_SIGPENDING)
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (0, limits[1]))
    try:
        stacks = observe(engine, lambda: burn(0.4))
    finally:
        resource.setrlimit(resource.RLIMIT_SIGPENDING, limits)

    assert ["timer"] == engine.errors
    assert named(stacks, "run").cpu_seconds > 0.3


@pytest.mark.parametrize("number", [signal.SIGURG, signal.SIGPROF])
def test_whoever_takes_the_signal_later_has_it(engine: Engine, number: int) -> None:
    """The engine stands back, says so, and goes on as the portable one."""
    got: list[int] = []
    with burning():
        engine.take()
        before = signal.signal(number, lambda *_: got.append(1))
        try:
            engine.take()
            came = len(got)
            engine.take(0.1)
            used = engine.drain()
        finally:
            signal.signal(number, before)

    assert ("threads", f"somebody else handles {signal.Signals(number).name}") == (
        engine.name,
        engine.reason,
    )
    assert came == len(got)
    assert named(used, "burn").wait_seconds + named(used, "burn").cpu_seconds > 0.05


def test_two_engines_do_not_share_the_ticks(engine: Engine) -> None:
    """The second one stands back until the first has ended, and what ticks cost is none of its."""
    second = Engine()
    engine.take()
    second.take()
    reason = second.reason
    handle = _ticks.arm(threading.get_ident(), threading.get_native_id(), 10**6, 10**6)
    burn(0.05)
    _ticks.disarm(handle)
    costs = second.cost(), engine.cost() > 0
    engine.reset()
    second.reset()
    second.take()
    engine.take()
    second.reset()

    assert "another profiler of this process has the ticks" == reason == engine.reason
    assert (0.0, True) == costs


def test_of_two_engines_that_begin_at_once_one_has_the_ticks(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may go on while the first one asks for the signal."""
    claim, second = _ticks.claim, Engine()

    def slowly() -> int:
        monkeypatch.setattr(_ticks, "claim", claim)
        second.watch([])
        return claim()

    monkeypatch.setattr(_ticks, "claim", slowly)
    engine.watch([])

    assert ("", "another profiler of this process has the ticks") == (engine.reason, second.reason)


def test_whoever_rings_before_the_ticks_are_taken_ends_the_watch(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread has seen that it is to go on a moment before, and would sleep until a sample."""
    claim = engine._timers.claim
    monkeypatch.setattr(engine._timers, "claim", lambda: (engine.wake(), claim())[1])
    began = time.monotonic()
    engine.watch([began + 60])

    assert time.monotonic() - began < 50


def test_whoever_waits_since_before_a_rest_is_seen(engine: Engine) -> None:
    """The first sample makes a list of all, though nobody has used any CPU meanwhile."""
    with Walker():
        engine.take()
        engine.drain()
        engine.take()
        engine._explained = 2**62  # or the test itself would use some
        engine.reset()
        engine.take()
        known = len(engine._threads)

    assert known >= 1


def test_at_rest_there_is_no_timer_and_no_signal(engine: Engine) -> None:
    """Paused or ended, nothing is left of the engine."""
    with burning():
        engine.take()
        counted = timers()
        engine.reset()
        left = timers(), signal.SIG_DFL == _handler()

    assert counted >= 1
    assert (0, True) == left


def test_what_ticks_take_from_threads_is_in_the_overhead() -> None:
    """The budget knows of it, and so does who reads the metrics."""

    def tick() -> None:
        handle = _ticks.arm(threading.get_ident(), threading.get_native_id(), 10**5, 10**5)
        burn(1.0)
        _ticks.disarm(handle)

    pipeline = Pipeline(Settings(engine="ticks", interval=60), Schedule(60, 1))
    pipeline.adopt()
    pipeline.begin(time.monotonic())
    pipeline.sample(time.monotonic())  # with which the engine takes the signal
    began = time.thread_time()
    pipeline.flush(time.monotonic())
    before = pipeline.counts.snapshot().overhead_seconds
    with threads(tick):
        pass
    pipeline.flush(time.monotonic())
    used = time.thread_time() - began
    overhead = pipeline.counts.snapshot().overhead_seconds - before
    pipeline.rest(time.monotonic())

    assert overhead > used


def test_where_nobody_watches_nothing_is_reckoned_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The portable engine takes one sample after the other, and each would pay for a second's."""
    pipeline = Pipeline(Settings(engine="threads"), Schedule(0.001, 1))
    monkeypatch.setattr(Schedule, "ahead", lambda *_: 1 // 0)
    pipeline.watch(time.monotonic())

    assert 0 == pipeline.samples


def timers() -> int:
    """Return how many POSIX timers this process has."""
    with open("/proc/self/timers", encoding="ascii") as file:
        return file.read().count("ClockID:")


def _handler() -> object:
    """Return what SIGURG does: the default, if it is not caught."""
    with open("/proc/self/status", encoding="ascii") as file:
        caught = next(line.split()[1] for line in file if line.startswith("SigCgt"))
    return None if int(caught, 16) >> (signal.SIGURG - 1) & 1 else signal.SIG_DFL


def test_threads_that_come_and_go_leave_no_timer(engine: Engine) -> None:
    """Hundreds of short threads: their timers end with them."""
    for _ in range(10):
        with threads(*[lambda: time.sleep(0.02)] * 20):
            engine.take()
            if not timers():  # in a process that has not used any CPU lately nobody is looked at
                burn(0.001)
    burn(0.001)
    engine.take()

    assert timers() <= 3
    assert len(engine._tickers) == timers()
    engine.drain()
    assert [] == engine._parted


def test_threads_that_block_the_signal_are_forgotten_when_they_end(engine: Engine) -> None:
    """However many of them come and go."""

    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
        blocking.release()
        over.acquire()

    blocking, over = threading.Semaphore(0), threading.Semaphore(0)
    remembered = []
    for _ in range(6):
        with threads(*[block] * 5):
            for _ in range(5):
                blocking.acquire()
            engine.take()
            remembered.append(len(engine._timers.deaf))
            over.release(5)

    assert 5 == remembered[0]
    # of 30: whoever has an ident of theirs is told from them a sample later
    assert max(remembered) <= 20


def test_samples_come_closer_for_a_while_when_a_thread_is_new(engine: Engine) -> None:
    """As all are at the beginning; and then they are rare."""
    paces = []
    with Walker() as walker:
        for _ in range(RESTLESS + 1):
            engine.take()
            paces.append(engine.pace)
            walker.step()
        with Walker():
            burn(0.001)
            engine.take()
            paces.append(engine.pace)

    assert [*[1] * (RESTLESS - 1), PACE, PACE, 1] == paces


def test_code_is_not_held_for_ever(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the names forget, the ticks forget it first."""
    monkeypatch.setattr("ox_otel._threads.MAX_CODES", 3)
    observe(engine, lambda: burn(0.1))
    seen = _ticks.walk()

    assert seen is not None
    assert not any(isinstance(frame, int) for frame in seen)
    assert not engine._names.known


def test_whoever_waits_is_looked_at_anew_once_names_are_forgotten(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time goes on to be counted in the very next batch."""
    with Walker() as walker:
        engine.take()
        engine.drain()
        walker.step()
        for _ in range(2):  # in the second of these it has stood still
            engine.take()
            engine.drain()
        monkeypatch.setattr("ox_otel._threads.MAX_CODES", 0)
        engine.take()
        engine.drain()
        engine.take()
        used = named(engine.drain(), "there")

    assert 1 == used.hits


def test_the_default_is_the_proven_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` takes ticks on versions that were proven."""
    monkeypatch.setattr(_engines, "PROVEN", (sys.version_info[:2],))
    with ox_otel.Profiler(ox_otel.Settings()) as profiler:
        assert ("ticks", "") == (profiler.status().engine, profiler.status().reason)


def test_an_unproven_version_has_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """There `auto` is threads; who asks for ticks gets them."""
    monkeypatch.setattr(_engines, "PROVEN", ())
    with ox_otel.Profiler(ox_otel.Settings()) as profiler:
        assert ("threads", "") == (profiler.status().engine, profiler.status().reason)
    assert "ticks" == ox_otel.Profiler(ox_otel.Settings(engine="ticks")).status().engine


def test_where_the_signal_is_taken_status_says_so() -> None:
    """A host with its own handler keeps it, and is sampled by threads."""
    before = signal.signal(signal.SIGPROF, lambda *_: None)
    try:
        with ox_otel.Profiler(ox_otel.Settings(engine="ticks")) as profiler:
            status = profiler.status()
    finally:
        signal.signal(signal.SIGPROF, before)

    assert "threads" == status.engine
    assert "the engine ticks cannot be had: somebody else handles SIGPROF" == status.reason


def test_paused_no_thread_has_a_timer() -> None:
    """A paused profiler interrupts nobody; unpaused it does again."""
    with ox_otel.Profiler(ox_otel.Settings(engine="ticks")) as profiler, burning():
        found = []
        for act in (profiler.unpause, profiler.pause, profiler.unpause):
            act()
            deadline = time.monotonic() + 60
            while bool(timers()) == profiler.is_paused() and time.monotonic() < deadline:
                time.sleep(0.01)
            found.append(bool(timers()))

    assert [True, False, True] == found
    assert 0 == timers()


def test_subinterpreters_have_none() -> None:
    """Where the extension cannot be had or cannot work, threads is used."""
    program = (
        "try:\n import _interpreters as i\nexcept ImportError:\n import _xxsubinterpreters as i\n"
        "i.run_string(i.create(), '''\n"
        "import sys\n"
        f"sys.path[:] = {sys.path!r}\n"
        "from ox_otel._engines import engine_for\n"
        "from ox_otel._names import Names\n"
        "engine, reason = engine_for('ticks', Names(), 9, print, lambda: 0.02)\n"
        "print(engine.name, bool(reason))\n"
        "''')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60
    )

    assert (0, "threads True\n") == (done.returncode, done.stdout)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking beside other threads
def test_a_child_can_have_its_own(engine: Engine) -> None:
    """What the parent has is nothing to a forked child."""
    engine.take()
    child = os.fork()
    if not child:
        own = Engine()
        own.take()
        os._exit(0 if own.name == "ticks" and _timers._owner is own._timers else 1)
    _, status = os.waitpid(child, 0)

    assert 0 == status
    assert _timers._owner is engine._timers


def test_the_period_follows_the_interval(engine: Engine) -> None:
    """A longer interval means fewer ticks."""
    with burning():
        engine.take()
        engine.interval = 0.08
        burn(0.05)  # so that the other one has moved, too
        engine.take()
        period = engine._timers.period
        counted = timers()

    assert 0.04e9 == period
    assert counted >= 1


def test_unplaced_is_none_of_a_thread_that_ticks(engine: Engine) -> None:
    """Next to nothing of a busy thread's CPU is unplaced."""
    stacks = observe(engine, lambda: burn(0.5))
    unplaced = sum(u.cpu_seconds for stack, u in stacks.items() if stack[-1].name == UNPLACED)

    assert unplaced < 0.03


def test_a_change_of_the_period_counts_nothing_twice(engine: Engine) -> None:
    """What ticks have told already is not told again by the clock when they end."""
    intervals = cycle([0.02, 0.06])
    spent: list[float] = []

    def work() -> None:
        burn(0.8)
        spent.append(time.thread_time())
        over.wait()

    over = threading.Event()
    with threads(work):
        while not spent:
            engine.take(0.03)
            engine.interval = next(intervals)
        engine.take()
        used = named(engine.drain(), "work").cpu_seconds
        over.set()

    assert spent[0] == pytest.approx(used, abs=0.05)


def test_nobody_takes_the_ticks_of_another_engine(engine: Engine) -> None:
    """A second profiler of the process asks for a batch, and gets none of them."""

    def work() -> None:
        burn(0.3)
        burnt.set()
        over.wait()  # so that its clock can be read

    other, burnt, over = Engine(), threading.Event(), threading.Event()
    with threads(work):
        engine.take()
        while not burnt.wait(0.04):
            other.drain()
        engine.take()
        stacks = engine.drain()
        over.set()
    placed = named(stacks, "burn").cpu_seconds
    unplaced = sum(u.cpu_seconds for stack, u in stacks.items() if stack[-1].name == UNPLACED)

    assert placed > 0.15
    assert unplaced < 0.06


def test_a_tick_that_comes_late_does_not_tell_again_what_was_given_up() -> None:
    """It stands for CPU that has been said to be unplaced by then."""
    ticker = Ticker(Thread(1, None, 0, 0), 0)
    tally = Tally((Function("m", "f"),))
    ticker.given_up = 30
    ticker.tick(tally, 2, 20)
    Waits().place([ticker], lambda _: tally)  # a place without CPU is none to reckon with
    first = tally.cpu
    ticker.tick(tally, 2, 20)

    assert (0, 10, 0) == (first, tally.cpu, ticker.given_up)


def test_a_thread_without_a_tick_for_long_goes_on_to_tick(engine: Engine) -> None:
    """It may have met no beat of the kernel's clock: only who blocks the signal is left alone."""
    over = threading.Event()
    with threads(lambda: over.wait() and None):
        engine.take()
        (ticker,) = engine._tickers.values()
        ticker.due = 10**9
        engine.drain()
        over.set()

    assert ticker.thread.ident in engine._tickers
    assert not engine._timers.deaf
