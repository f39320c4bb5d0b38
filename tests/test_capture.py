"""Captures: what happened in a window, and nothing else, with no harm to anybody's figures."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import pytest

from ox_otel import (
    Batch,
    CaptureError,
    ConfigError,
    Function,
    Profile,
    Profiler,
    Settings,
    TooManyCapturesError,
    Usage,
    _capture,
    _sampling,
)
from ox_otel._capture import MAX_CAPTURES, Capture, wait_for
from ox_otel._endpoint import MAX_CONNECTIONS
from ox_otel._pipeline import Pipeline
from ox_otel._sums import MAX_STACKS
from ox_otel.profiles import REST_STACK
from ox_otel.recorders import NOTHING, Stack


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until *condition* holds; fail after *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.005)


def earlier(seconds: float) -> None:
    """Use that much CPU."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def within(done: list[object]) -> None:
    """Use CPU until there is something in *done*."""
    while not done:
        pass


def total(profile: Profile | Batch) -> Usage:
    """Return what all stacks used together."""
    found = NOTHING
    for usage in profile.stacks.values():
        found = found.plus(usage)
    return found


@pytest.fixture
def profiler() -> Iterator[Profiler]:
    """A profiler at 200 samples a second that runs."""
    with Profiler(Settings(interval=0.005, max_overhead=1)) as made:
        yield made


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads to wait for captures on."""
    with ThreadPoolExecutor() as pool:
        yield pool


def running(profiler: Profiler) -> list[Capture]:
    """Return the captures whose window has begun."""
    return [one for one in profiler._pipeline.captures._running if one.began]


def test_a_capture_holds_what_happened_in_its_window(
    profiler: Profiler, pool: ThreadPoolExecutor
) -> None:
    """Who is at work meanwhile is in it; who was before is not; the window is told."""
    earlier(0.3)
    samples = profiler.status().samples
    until(lambda: profiler.status().samples > samples + 5)  # what one saw last is in the window
    done: list[object] = []
    captured = pool.submit(profiler.capture, 0.5)
    captured.add_done_callback(done.append)
    began = time.time()
    within(done)
    profile = captured.result()
    here = Function(__name__, "within")
    seen = [usage for stack, usage in profile.stacks.items() if here in stack]

    assert Function(__name__, "earlier") not in {f for stack in profile.stacks for f in stack}
    assert 0.5 <= profile.seconds < 10
    assert began - 1 < profile.started < began + 10
    assert profiler.status().interval == profile.interval
    assert sum(u.cpu_seconds + u.wait_seconds for u in seen) > 0.7 * profile.seconds
    assert 0 < total(profile).cpu_seconds < profile.seconds + 0.2  # one thread at work


class Keeper:
    """A recorder that keeps all batches."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def record(self, batch: Batch) -> None:
        """Keep *batch*."""
        self.batches.append(batch)


def added(batches: list[Batch]) -> dict[Stack, Usage]:
    """Return what each stack used in these batches."""
    stacks: dict[Stack, Usage] = {}
    for batch in batches:
        for stack, usage in batch.stacks.items():
            stacks[stack] = stacks.get(stack, NOTHING).plus(usage)
    return stacks


def test_captures_are_the_batches_of_their_windows(pool: ThreadPoolExecutor) -> None:
    """Two captures at once each hold some batches in a row, whole, and nobody lacks these."""
    keeper = Keeper()
    profiler = Profiler(Settings(interval=0.005, max_overhead=1))
    profiler.add_recorder(keeper, quick=True)
    with profiler:
        captures = [pool.submit(profiler.capture, seconds) for seconds in (1.2, 0.2)]
        earlier(0.5)
        profiles = [capture.result() for capture in captures]
        counted = profiler.snapshot()
    batches = keeper.batches
    rows = [added(batches[a:b]) for a, b in combinations(range(len(batches) + 1), 2)]

    assert profiles[0].stacks in rows
    assert profiles[1].stacks in rows
    assert min(total(profile).hits for profile in profiles) > 1
    # the counters have all of it, and the tree too
    functions = counted.functions.values()
    stacks = sum(total(batch).hits for batch in batches)
    cpu_seconds = sum(total(batch).cpu_seconds for batch in batches)
    assert stacks >= sum(usage.self_hits for usage in functions) > 0
    assert counted.functions.keys() == {f for batch in batches for f in batch.functions}
    assert pytest.approx(cpu_seconds, rel=0.5) == sum(u.self_cpu_seconds for u in functions)
    assert pytest.approx(sum(counted.tree.values()) / 1e9) == sum(
        u.self_cpu_seconds for u in functions
    )


def test_a_capture_is_bounded_and_conserved() -> None:
    """Whatever has no room counts for one stack, so nothing is lost, and memory has a bound."""
    capture = Capture()
    usage = Usage(1, 1, 0.5, 0.25, 0.5, 0.25)
    capture.take({(Function("before", "f"),): usage}, 1.0)
    number = 3 * MAX_STACKS
    for n in range(number):
        capture.take({(Function("m", f"f{n}"),): usage, (Function("m", "f0"),): usage}, 2.0)
    profile = capture.profile(0.02)

    assert MAX_STACKS == len(profile.stacks)
    assert (2 * number - 1, number - 0.5) == total(profile)[1:3]
    assert number - MAX_STACKS + 1 == profile.stacks[REST_STACK].hits
    assert 1.0 == profile.seconds


def test_more_captures_than_can_be(profiler: Profiler, pool: ThreadPoolExecutor) -> None:
    """Who comes as one too many is told so at once, and has room when another has ended."""
    leave = threading.Event()
    captures = [pool.submit(profiler.capture, 300, gone=leave.is_set) for _ in range(MAX_CAPTURES)]
    until(lambda: len(running(profiler)) == MAX_CAPTURES)
    with pytest.raises(TooManyCapturesError, match="4 captures are being made already"):
        profiler.capture(0.1)
    leave.set()
    assert all(capture.result(30).seconds < 60 for capture in captures)
    assert profiler.capture(0.1).seconds >= 0.1
    assert [] == profiler._pipeline.captures._running


def test_scrapes_get_through() -> None:
    """Captures can take half of the connections that our endpoint answers at the most."""
    assert MAX_CAPTURES <= MAX_CONNECTIONS // 2


@pytest.mark.parametrize("seconds", [0.09, 300.1, -1, 0, 1e9, float("nan"), "x", "", None, True])
def test_a_wrong_length_is_refused(profiler: Profiler, seconds: float) -> None:
    """The error says what is accepted."""
    with pytest.raises(ConfigError, match=r"seconds: .* accepted: a number from 0.1 to 300"):
        profiler.capture(seconds)


def test_nothing_is_captured_where_nothing_is_sampled() -> None:
    """Stopped or paused, a capture is refused at once and says why."""
    with Profiler(Settings(start_paused=True)) as profiler:
        with pytest.raises(CaptureError, match="nothing can be captured: paused"):
            profiler.capture(300)
        profiler.cancel()
        with pytest.raises(CaptureError, match="nothing can be captured: stopped"):
            profiler.capture(300)
        assert [] == profiler._pipeline.captures._running


def test_nothing_is_captured_while_suspended(
    profiler: Profiler, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor
) -> None:
    """What suspends sampling ends a capture, and is the reason why there is no other."""
    monkeypatch.setattr(_sampling, "FIRST_SUSPENSION", 100.0)
    capture = pool.submit(profiler.capture, 300)
    until(lambda: running(profiler))
    monkeypatch.setattr(Pipeline, "sample", lambda *_: 1 // 0)
    assert capture.result(30).seconds < 60
    with pytest.raises(CaptureError, match="nothing can be captured: 10 errors in a row"):
        profiler.capture(300)


ENDS: dict[str, Callable[[Profiler], None]] = {
    "pause": Profiler.pause,
    "cancel": Profiler.cancel,
}


@pytest.mark.parametrize("how", ENDS)
def test_what_ends_sampling_ends_a_capture(
    profiler: Profiler, pool: ThreadPoolExecutor, how: str
) -> None:
    """It is what has happened by then, and says how long that was."""
    capture = pool.submit(profiler.capture, 300)
    until(lambda: running(profiler))
    before = profiler.status().samples
    until(lambda: profiler.status().samples > before + 20)
    ended = time.monotonic()
    ENDS[how](profiler)
    profile = capture.result(30)

    assert time.monotonic() - ended < 3.0
    assert 0.05 < profile.seconds < 60
    assert total(profile).hits > 0


def test_a_pause_within_is_not_in_the_window(profiler: Profiler, pool: ThreadPoolExecutor) -> None:
    """Though sampling goes on soon after, the capture has ended."""
    capture = pool.submit(profiler.capture, 300)
    until(lambda: running(profiler))
    [one] = running(profiler)
    profiler.pause()
    until(lambda: one.ended)
    profiler.unpause()
    assert capture.result(30).seconds < 60


def test_a_capture_that_is_ended_before_it_begins() -> None:
    """It has no window, so there is no profile."""
    capture = Capture()
    capture.ended = True
    with pytest.raises(CaptureError, match="sampling has ended before the capture began"):
        wait_for(capture, 300, lambda: None, lambda: False)


def test_a_thread_that_does_not_answer(
    profiler: Profiler, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor
) -> None:
    """Whoever waits for a capture does not wait for ever where no batch comes."""
    monkeypatch.setattr(_capture, "ANSWER_SECONDS", 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "flush", lambda *_: None)
        with pytest.raises(CaptureError, match="does not answer"):
            profiler.capture(0.1)
    monkeypatch.setattr(_capture, "ANSWER_SECONDS", 30)
    assert profiler.capture(0.1).seconds >= 0.1


def test_the_thread_that_samples_cannot_wait_for_itself(profiler: Profiler) -> None:
    """A recorder that is called there, and asks for a capture, is refused."""
    refusals: list[str] = []

    class Asker:
        def record(self, batch: Batch) -> None:
            try:
                profiler.capture(0.1)
            except CaptureError as error:
                refusals.append(str(error))

    profiler.add_recorder(Asker(), quick=True)
    until(lambda: refusals)
    assert "nothing can be captured: running" == refusals[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_capture_is_not_carried_over_a_fork(profiler: Profiler) -> None:
    """In a child whose thread waits for one it ends at once, and others can be made there."""
    parent, child = os.getpid(), 0

    def fork(*_: object) -> None:
        nonlocal child
        child = os.fork()

    before = signal.signal(signal.SIGALRM, fork)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        profile = profiler.capture(1)
        if os.getpid() != parent:
            short = profile.seconds < 0.9
            again = profiler.capture(0.1).seconds >= 0.1
            os._exit(not (short and again and not profiler._pipeline.captures._running))
    except BaseException:
        if os.getpid() != parent:
            os._exit(9)
        raise
    finally:
        signal.signal(signal.SIGALRM, before)
    assert (child, 0) == os.waitpid(child, 0)
    assert profile.seconds >= 1


def test_a_capture_ends_with_the_interpreter() -> None:
    """A process that is over waits for no capture, on a thread of the host either."""
    program = """
import threading, time, ox_otel
profiler = ox_otel.install()
threading.Thread(target=profiler.capture, args=(300,)).start()
while not profiler._pipeline.captures._running: time.sleep(0.01)
"""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("time_of_tree", ["cpu", "wall"])
def test_the_profile_since_the_start_is_the_tree(time_of_tree: str) -> None:
    """It has the time of the tree, all of it, and no other; its window is from the start to now."""
    began = time.time()
    with Profiler(Settings(interval=0.005, max_overhead=1, tree=time_of_tree)) as profiler:
        earlier(0.2)
    profile = profiler.since_start()  # nothing is sampled any more
    tree = profiler.snapshot().tree
    usage = total(profile)

    assert (time_of_tree,) == profile.times
    assert pytest.approx(sum(tree.values()) / 1e9) == usage.cpu_seconds + usage.wait_seconds > 0
    assert pytest.approx(began, abs=5) == profile.started
    assert pytest.approx(time.time() - began, abs=5) == profile.seconds


def test_there_is_no_profile_since_the_start_without_a_tree() -> None:
    """The error says which setting has it so."""
    with pytest.raises(CaptureError, match="OX_OTEL_TREE"):
        Profiler(Settings(tree="off")).since_start()
