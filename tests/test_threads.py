"""The engine `threads`: sees everything, keeps nothing, runs no code of the host."""

import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from types import FunctionType

import pytest
from standstill import until_still

from ox_otel import _interpreter, _threads
from ox_otel._names import Names
from ox_otel._native import Worker
from ox_otel._threads import Threads
from ox_otel.recorders import UNPLACED, Function, Stack, Usage

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has clocks of other threads"
)


class Engine(Threads):
    """The engine with the names of its errors, and a count of the stacks it walked."""

    def __init__(self, max_depth: int = 64) -> None:
        self.errors: list[str] = []
        self.walks = 0
        super().__init__(Names(), max_depth, self.errors.append)

    def _walk(self, frame):
        self.walks += 1
        return super()._walk(frame)


@contextmanager
def threads(*targets: Callable[[], None]) -> Iterator[list[threading.Thread]]:
    """Run *targets* on threads of their own, which it yields, and wait for their end."""
    running = [threading.Thread(target=target) for target in targets]
    for thread in running:
        thread.start()
    try:
        yield running
    finally:
        for thread in running:
            thread.join()


@linux_only
def test_in_a_quiet_process_no_thread_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody uses any CPU, hits and waiting are counted without listing a frame."""
    engine = Engine()
    with parked(20):
        while engine.sample(0.0):
            time.sleep(0.01)
        engine.drain()
        monkeypatch.setattr(sys, "_current_frames", lambda: 1 // 0)
        moved = [engine.sample(0.0) for _ in range(30)]
        used = named(engine.drain(), "wait_for_the_end")

    assert [False] * 30 == moved
    assert 20 * 30 == used.hits


@contextmanager
def parked(count: int) -> Iterator[None]:
    """Have *count* threads wait in `wait_for_the_end`."""
    release = threading.Event()
    arrived = threading.Barrier(count + 1)

    def wait_for_the_end() -> None:
        arrived.wait()
        release.wait()

    with threads(*[wait_for_the_end] * count) as waiting:
        arrived.wait()
        try:
            until_still(waiting)  # from the barrier into the wait
            yield
        finally:
            release.set()


def named(stacks: dict[Stack, Usage], name: str) -> Usage:
    """Return the sum over the stacks that have the function *name* anywhere on them."""
    total = Usage()
    for stack, usage in stacks.items():
        if any(function.name.rpartition(".")[2] == name for function in stack):
            total = total.plus(usage)
    return total


def test_every_thread_has_a_hit_a_sample() -> None:
    """Ten samples of five waiting threads are fifty hits, and all the time between is wait."""
    engine = Engine()
    with parked(5):
        engine.sample(0.0)
        began = engine._now
        for _ in range(9):
            time.sleep(0.01)
            engine.sample(0.0)
        elapsed = (engine._now - began) * 1e-9
        used = named(engine.drain(), "wait_for_the_end")

    assert 50 == used.hits
    assert elapsed >= 0.09
    assert 5 * elapsed == pytest.approx(used.wait_seconds + used.cpu_seconds, rel=0.1)
    assert not engine.errors


@contextmanager
def busy() -> Iterator[Callable[[], None]]:
    """Have a thread use CPU all the time; yield what returns when it has got some more."""
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            sum(range(1000))

    def until_it_has_run() -> None:
        before = _threads.cpu_of_others()
        while _threads.cpu_of_others() - before < 3 * _threads.UNNOTICED:
            time.sleep(0.01)

    with threads(burn):
        try:
            yield until_it_has_run
        finally:
            stop.set()


@linux_only
def test_clocks_of_parked_threads_are_read_once_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread explains all the CPU that is used, the others cost nothing."""
    engine, real, clocks = Engine(), time.clock_gettime_ns, []

    def clock(number: int) -> int:
        clocks.append(number)
        return real(number)

    with parked(50), busy() as until_it_has_run:
        engine.sample(0.0)
        monkeypatch.setattr(time, "clock_gettime_ns", clock)
        reads = []
        for number in range(60):
            if number % 30 == 0:
                engine.drain()
            until_it_has_run()
            clocks.clear()
            engine.sample(0.0)
            reads.append(len(set(clocks)))

    assert 51 == reads[0] == reads[30]
    assert 1 == median(reads[31:])


@linux_only
def test_a_parked_thread_that_moves_beside_a_busy_one_is_seen() -> None:
    """More CPU than the known movers used makes the engine ask all threads."""
    engine, first, last = Engine(), threading.Event(), threading.Event()
    there = threading.Event()

    def before() -> None:
        first.wait()
        sum(range(100_000))  # more CPU than may go unnoticed

    def after() -> None:
        there.set()
        last.wait()

    with threads(lambda: (before(), after())) as moving, busy() as until_it_has_run:
        until_still(moving)
        for _ in range(3):
            until_it_has_run()
            engine.sample(0.0)
        seen = named(engine.drain(), "before").hits
        until_it_has_run()
        engine.sample(0.0)
        first.set()
        there.wait()
        for _ in range(20):
            until_it_has_run()
            engine.sample(0.0)
        last.set()

    assert 3 == seen
    assert named(engine.drain(), "after").hits > 10


@linux_only
def test_a_new_thread_is_seen_at_once() -> None:
    """A thread that was not there before is looked at, however little CPU it has used."""
    engine = Engine()
    with busy():
        engine.sample(0.0)
        with parked(1):
            engine._explained = 10**18  # as if nobody but known movers had used any CPU
            engine.sample(0.0)

    assert 1 == named(engine.drain(), "wait_for_the_end").hits


@linux_only
def test_cpu_whose_clock_went_unread_is_credited_in_full() -> None:
    """Threads that work a little, beside one that works all the time, lose none of their CPU."""
    engine, stop, truths = Engine(), threading.Event(), []

    def work() -> None:
        while not stop.wait(0.02):
            sum(range(300))
        truths.append(time.thread_time())

    with busy(), threads(*[work] * 5):
        engine.sample(0.0)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            time.sleep(0.005)
            engine.sample(0.0)
        engine._moving = set()  # so that the next sample reads all clocks
        engine.sample(0.0)
        used = named(engine.drain(), "work")
        stop.set()

    assert sum(truths) == pytest.approx(used.cpu_seconds, rel=0.2, abs=0.005)


@linux_only
def test_a_thread_that_has_not_run_is_not_walked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of a sample follows what moves, not how many threads there are."""
    monkeypatch.setattr(_threads, "UNNOTICED", -(10**18))  # no process passes for quiet
    engine = Engine()
    with parked(20):
        engine.sample(0.0)
        engine.drain()
        walks = engine.walks
        for _ in range(50):
            engine.sample(0.0)

        assert engine.walks - walks <= 60  # 50 of them the thread of this test
        assert 20 * 50 == named(engine.drain(), "wait_for_the_end").hits


@linux_only
def test_cpu_seconds_are_those_of_the_thread() -> None:
    """A thread's CPU seconds, placed or not, are those of its clock."""
    engine = Engine()
    spent: list[float] = []

    def burn() -> None:
        began.set()
        while time.thread_time() < 0.5:
            sum(range(100))
        spent.append(time.thread_time())
        release.wait()  # so that its clock can be read

    began, release = threading.Event(), threading.Event()
    with threads(burn) as (thread,):
        began.wait()
        engine.sample(0.0)
        before = engine._threads[thread.ident or 0].cpu * 1e-9
        while not spent:
            time.sleep(0.01)
            engine.sample(0.0)
        engine.sample(0.0)
        used = named(engine.drain(), "burn")
        release.set()

    assert spent[0] - before == pytest.approx(used.cpu_seconds, abs=0.02)


def test_recursion_is_seen_to_the_depth_allowed() -> None:
    """Of a stack that is too deep the frames next to the top are seen."""
    engine = Engine(max_depth=10)
    release, arrived = threading.Event(), threading.Event()

    def dive(depth: int) -> None:
        if depth:
            dive(depth - 1)
        else:
            arrived.set()
            release.wait()

    with threads(lambda: dive(500)):
        arrived.wait()
        engine.sample(0.0)
        stacks = engine.drain()
        release.set()

    (deep,) = [stack for stack in stacks if any(f.name.endswith("dive") for f in stack)]
    assert 10 == len(deep)
    assert deep[-1].name == "Event.wait" or deep[-1].name.startswith("Condition.")


def test_more_threads_than_can_be_walked_are_seen_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With no time to look at all of them every thread is still seen, and no time is lost."""
    monkeypatch.setattr(_threads, "LOOKING", 0)
    engine, stop = Engine(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            time.sleep(0.0005)

    with threads(*[work] * 12):
        began = time.monotonic()
        for _ in range(400):
            engine.sample(0.0)
            time.sleep(0.003)
        elapsed = time.monotonic() - began
        stacks = engine.drain()
        stop.set()
    used = named(stacks, "work")

    assert engine.walks <= 500
    assert 12 * elapsed == pytest.approx(used.wait_seconds + used.cpu_seconds, rel=0.15)


def test_who_is_left_out_is_seen_although_nobody_moves_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Threads that a sample had no time for are looked at by the next ones, however quiet it is."""
    monkeypatch.setattr(_threads, "LOOKING", 0)
    monkeypatch.setattr(_threads, "cpu_of_others", lambda: 1)  # after the first sample: quiet
    engine = Engine()
    with parked(20):
        for _ in range(40):
            engine.sample(0.0)

    assert engine.walks >= 20


def test_no_frame_is_kept() -> None:
    """A local of a sampled function is gone when the function has returned."""
    engine = Engine()
    release, arrived = threading.Event(), threading.Event()
    references: list[weakref.ref[Engine]] = []

    def hold() -> None:
        big = Engine()
        references.append(weakref.ref(big))
        arrived.set()
        release.wait()

    enabled = gc.isenabled()
    gc.disable()
    try:
        with threads(hold):
            arrived.wait()
            for _ in range(3):
                engine.sample(0.0)
            assert references[0]() is not None
            release.set()

        assert references[0]() is None
    finally:
        if enabled:
            gc.enable()


class Trap(dict):
    """Globals whose methods are code of the host."""

    def get(self, *_: object) -> object:
        """Betray that somebody has called."""
        sys.exit("code of the host has run")

    __getitem__ = __contains__ = get


@pytest.mark.parametrize("name", ["app", 7, None, ["list"]])
def test_globals_of_any_kind_are_read_without_running_code(name: object) -> None:
    """A subclass of dict as globals, or a module name of any type, is no danger."""
    engine = Engine()
    release, arrived = threading.Event(), threading.Event()

    def strange(arrived: threading.Event, release: threading.Event) -> None:
        arrived.set()
        release.wait()

    function = FunctionType(strange.__code__, Trap(__name__=name))
    with threads(lambda: function(arrived, release)):
        arrived.wait()
        try:
            engine.sample(0.0)
        finally:
            release.set()

    found = {f.module for stack in engine.drain() for f in stack if f.name.endswith("strange")}
    assert {"app" if name == "app" else "unknown"} == found
    assert not engine.errors


def test_one_thread_that_cannot_be_read_does_not_spoil_the_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the interpreter gives instead of a frame costs that thread its hit, nobody else."""
    engine = Engine()
    real = sys._current_frames
    monkeypatch.setattr(sys, "_current_frames", lambda: {1: {}, 2: None, 3: object(), **real()})
    with parked(2):
        engine.sample(0.0)
        engine.sample(0.0)
        used = named(engine.drain(), "wait_for_the_end")

    assert 4 == used.hits
    assert {"thread"} == set(engine.errors)


@linux_only
def test_a_thread_that_could_not_be_read_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread that moved, but was not seen where it went, is not taken for parked."""
    monkeypatch.setattr(_threads, "UNNOTICED", -(10**18))  # no process passes for quiet
    engine, real = Engine(), sys._current_frames
    release, there, last = threading.Event(), threading.Event(), threading.Event()

    def after() -> None:
        there.set()
        last.wait()

    def before() -> None:
        release.wait()
        after()

    with threads(before) as moving:
        engine.sample(0.0)
        engine.drain()
        release.set()
        there.wait()
        until_still(moving)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "_current_frames", lambda: dict.fromkeys(real()))
            engine.sample(0.0)
        engine.sample(0.0)
        used = named(engine.drain(), "after")
        last.set()

    assert 1 == used.hits


def test_our_own_threads_are_left_out() -> None:
    """No stack of a profile shows the profiler."""
    engine, release, arrived = Engine(), threading.Event(), threading.Event()

    def work_of_ours() -> None:
        arrived.set()
        release.wait()

    worker = Worker(work_of_ours, "ox_otel_test")
    arrived.wait()
    engine.sample(0.0)
    release.set()
    worker.join(5)

    assert Usage() == named(engine.drain(), "work_of_ours")


@pytest.mark.parametrize("enabled", [True, False])
def test_no_collection_starts_while_frames_are_listed(
    monkeypatch: pytest.MonkeyPatch,
    enabled: bool,  # noqa: FBT001 - pytest gives it by name
) -> None:
    """Where it could do harm, no garbage is collected during list and walk, then all is as before.

    In the listing of frames a destructor could deadlock the process, in a walk crash it.
    """
    monkeypatch.setattr(_interpreter, "_COLLECTS_BETWEEN_INSTRUCTIONS", False)
    real, during = sys._current_frames, []

    class Watched(Engine):
        def _walk(self, frame):
            during.append(gc.isenabled())
            return super()._walk(frame)

    def listed() -> object:
        during.append(gc.isenabled())
        return real()

    monkeypatch.setattr(sys, "_current_frames", listed)
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with parked(1):
            Watched().sample(0.0)
        after = gc.isenabled()
    finally:
        (gc.enable if was else gc.disable)()

    assert [False, False] == during
    assert enabled == after


def test_frames_are_let_go_of_before_the_gil_is() -> None:
    """After a look around no frame is left, whoever still has the list of them."""
    with _interpreter.frames_of_threads() as frames:
        assert frames
    assert {} == frames


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_forked_during_a_sample_collects_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a sample has suspended for a moment is not suspended for ever in a child."""
    monkeypatch.setattr(_interpreter, "_COLLECTS_BETWEEN_INSTRUCTIONS", False)
    assert gc.isenabled()
    with _interpreter.frames_of_threads():
        child = os.fork()
        if child == 0:
            os._exit(not gc.isenabled())

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert gc.isenabled()


def test_code_that_comes_and_goes_is_neither_misnamed_nor_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Generated functions whose code is freed: every name is a true one, memory is bounded."""
    monkeypatch.setattr(_threads, "MAX_CODES", 50)
    engine, stop = Engine(), threading.Event()
    calls: list[int] = []

    def generate() -> None:
        while not stop.is_set():
            number = len(calls)
            space: dict[str, object] = {"__name__": "generated", "sleep": time.sleep}
            exec(f"def f{number}(): sleep(0.0005)", space)  # noqa: S102
            space[f"f{number}"]()  # type: ignore[operator]
            calls.append(number)

    kept, names, seconds, hits = 0, set(), 0.0, 0
    with threads(generate):
        began = time.monotonic()
        for number in range(1, 301):
            engine.sample(0.0)
            time.sleep(0.002)
            if number % 20 == 0:
                stacks = engine.drain()
                used = named(stacks, "generate")
                seconds += used.cpu_seconds + used.wait_seconds
                hits += used.hits
                names |= {f for stack in stacks for f in stack if f.module == "generated"}
                # nor is what makes the functions one of them
                names -= {Function("generated", UNPLACED), Function("generated", "<module>")}
                kept = max(kept, len(engine._names.known))
        elapsed = time.monotonic() - began
        stop.set()

    assert names <= {Function("generated", f"f{number}") for number in calls}
    assert len(names) > 50
    assert kept <= 50
    assert 290 <= hits <= 300
    assert elapsed == pytest.approx(seconds, rel=0.15)


def test_threads_that_come_and_go_leave_nothing_behind() -> None:
    """Hundreds of short threads: their hits are counted, and none is remembered."""
    engine = Engine()
    for _ in range(20):
        seen = threading.Event()
        with threads(*[lambda seen=seen: seen.wait(60)] * 20):
            engine.sample(0.0)
            seen.set()
    engine.sample(0.0)

    assert not engine.errors
    assert len(engine._threads) <= 3
    assert named(engine.drain(), "<lambda>").hits > 200
    deadline = time.monotonic() + 60
    while engine._away and time.monotonic() < deadline:
        time.sleep(0.01)  # for the kernel, a thread that has been joined may live a moment longer
        engine.drain()
    assert {} == engine._away


@pytest.mark.parametrize("max_codes", [0, 1000])
def test_no_hit_is_lost_between_drains(monkeypatch: pytest.MonkeyPatch, max_codes: int) -> None:
    """Threads that stand still are counted on, though batches come and code is forgotten."""
    monkeypatch.setattr(_threads, "MAX_CODES", max_codes)
    engine, hits = Engine(), 0
    with parked(3):
        for _ in range(10):
            engine.sample(0.0)
            engine.sample(0.0)
            hits += named(engine.drain(), "wait_for_the_end").hits
            hits += named(engine.drain(), "wait_for_the_end").hits

    assert 3 * 20 == hits


def test_ids_of_forgotten_code_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The id of a code object that may be freed can become another's: nothing goes by it."""
    monkeypatch.setattr(_threads, "MAX_CODES", 0)
    engine = Engine()
    with parked(2):
        engine.sample(0.0)
        engine.drain()

        assert {()} == {thread.ids for thread in engine._threads.values()}
        assert not engine._names.known
        assert 0 == len(engine._tallies)


def test_time_before_a_reset_is_nobodys() -> None:
    """After a pause the first sample counts hits, but no time."""
    engine = Engine()
    with parked(1):
        engine.sample(0.0)
        engine.drain()
        engine._others = 0  # as if somebody had used CPU, who by now is known
        engine.sample(0.0)
        engine.reset()
        time.sleep(0.2)
        engine.sample(0.0)
        used = named(engine.drain(), "wait_for_the_end")

    assert 1 == used.hits
    assert 0.0 == used.wait_seconds
