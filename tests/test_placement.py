"""The estimator: who was running when seen, and whose the CPU is."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ox_otel import Profiler, Settings, _placement
from ox_otel._looks import Look, Thread
from ox_otel._names import Names
from ox_otel._placement import BUSY, MAX_SITES, Placement, Sites, is_interruptible
from ox_otel._threads import Threads
from ox_otel.recorders import UNPLACED, Usage

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has clocks of other threads"
)
SITE = (1, 2)


def looks(sites: Sites, evidence: str) -> bool:
    """Have *sites* weigh `b`urning, `w`aiting and `-` no evidence; return the last verdict."""
    verdict = False
    for kind in evidence:
        verdict = sites.burns(SITE, burning=kind == "b", waiting=kind == "w")
    return verdict


@pytest.mark.parametrize(
    ("evidence", "burns"),
    [
        ("-", False),  # unknown
        ("b", False),  # once may be chance
        ("bb", True),
        ("bb-", True),  # no evidence changes nothing
        ("bbw", False),  # waiting counts double
        ("ww" + "bbbbb", False),
        ("ww" + "bbbbbb", True),
        ("b" * 100 + "ww", False),  # a site can change its nature
        ("w" * 100 + "bbbbbb", True),
    ],
)
def test_evidence_is_gathered_by_call_site(evidence: str, burns: bool) -> None:  # noqa: FBT001
    """A call counts as running when the evidence for it outweighs that for waiting."""
    assert burns == looks(Sites(), evidence)


def test_sites_are_bounded() -> None:
    """Evidence for ever new call sites does not fill the memory."""
    sites = Sites()
    for number in range(3 * MAX_SITES):
        sites.burns((number, 0), burning=True, waiting=False)

    assert len(sites._evidence) <= MAX_SITES


@pytest.mark.parametrize(
    ("core_wait", "waits", "burns"),
    [
        (0, 2, True),  # held for as long as it takes to force somebody out
        (10_000_000, 2, False),  # cores were busy for as long as that
        (0, 100, False),  # the GIL was let go of and taken again many times
    ],
)
def test_a_delay_proves_burning_only_if_the_gil_was_held(
    monkeypatch: pytest.MonkeyPatch,
    core_wait: int,
    waits: int,
    burns: bool,  # noqa: FBT001 - pytest gives it by name
) -> None:
    """A late sample is no proof where busy cores, or somebody who lets go, made it late."""
    asked = iter(range(1, 1000))
    monkeypatch.setattr(_placement, "core_wait", lambda _: core_wait * next(asked))
    monkeypatch.setattr(_placement, "waits_of_ours", lambda: waits * next(asked))
    placement, thread = Placement(), Thread(1, 1, 0, 0)
    look = Look(thread, used=10 * BUSY, ids=SITE, site=SITE, interrupted=False, span=None)
    verdicts = [placement.running([look], 0.006, look.used) for _ in range(8)]

    assert [burns] == verdicts[-1]


def stops_of(function: Callable[[threading.Event], object]) -> list[bool]:
    """Return, for each of some looks at a thread in *function*, whether it was interrupted."""
    stop, found = threading.Event(), []
    thread = threading.Thread(target=function, args=(stop,))
    thread.start()
    while len(found) < 20:
        time.sleep(0.01)
        frame = sys._current_frames()[thread.ident]
        if frame.f_code is function.__code__:
            found.append(is_interruptible(frame.f_code, frame.f_lasti))
    stop.set()
    thread.join()
    return found


def test_a_loop_is_interrupted_where_it_comes_round() -> None:
    """A thread that only computes is seen to run."""

    def loop(stop: threading.Event) -> None:
        number = 0
        while not stop._flag:
            number += 1

    assert all(stops_of(loop))


def test_a_sleeper_stands_in_a_call() -> None:
    """A thread that waits is not taken for running."""

    def sleep(stop: threading.Event) -> None:
        while not stop._flag:
            time.sleep(0.005)

    # where it got no core on its way back into the call, it was running
    assert stops_of(sleep).count(True) <= 2


@contextmanager
def profiled(seconds: float, *targets: Callable[[float], None]) -> Iterator[Callable[[str], Usage]]:
    """Profile threads that run *targets* until a time; give a function that finds usages."""
    with Profiler(Settings(interval=0.01, max_overhead=1)) as profiler:
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=target, args=(until,)) for target in targets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        functions = profiler.snapshot().functions

    def used(name: str) -> Usage:
        total = Usage()
        for function, usage in functions.items():
            if function.name.rpartition(".")[2] == name:
                total = total.plus(usage)
        return total

    yield used


def nap(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


def count(seconds: float) -> None:
    """Use that much CPU, in Python."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        for _ in range(1000):
            pass


@linux_only
def test_sleeping_functions_are_credited_with_no_cpu() -> None:
    """Four threads that alternate work and sleep: a naive split gives the sleep 65 to 75 %."""

    def alternate(until: float) -> None:
        while time.monotonic() < until:
            count(0.01)
            nap(0.015)

    with profiled(3.0, *[alternate] * 4) as used:
        whole = used("alternate").cpu_seconds
        asleep = used("nap").self_cpu_seconds
        unplaced = used(UNPLACED).self_cpu_seconds

    assert asleep < 0.05 * whole
    assert unplaced < whole
    assert used("count").self_cpu_seconds + unplaced > 0.9 * whole


@linux_only
@pytest.mark.parametrize("ticking", [True, False])
def test_a_clock_that_goes_on_while_we_hold_the_gil_proves_burning(
    monkeypatch: pytest.MonkeyPatch,
    ticking: bool,  # noqa: FBT001 - pytest gives it by name
) -> None:
    """C code that lets go of the GIL, but not of the CPU, gets its seconds; others do not."""
    release, arrived = threading.Event(), threading.Event()

    def call_into_c() -> None:
        arrived.set()
        release.wait()

    thread = threading.Thread(target=call_into_c)
    thread.start()
    arrived.wait()
    engine = Threads(Names(), 64, lambda _: None)
    looked_at: list[int] = []

    def clock(_: int) -> int:
        """Return a clock that always goes on, or one that stands still during a sample."""
        return time.monotonic_ns() if ticking else looked_at[-1]

    monkeypatch.setattr(time, "process_time_ns", time.monotonic_ns)
    monkeypatch.setattr(time, "clock_gettime_ns", clock)
    for _ in range(50):
        time.sleep(0.005)
        looked_at.append(time.monotonic_ns())
        engine.sample(delay=0.0)
    stacks = engine.drain()
    release.set()
    thread.join()

    mine = {s: u.cpu_seconds for s, u in stacks.items() if any("call_into_c" in f.name for f in s)}
    unplaced = sum(seconds for stack, seconds in mine.items() if UNPLACED == stack[-1].name)
    placed = sum(mine.values()) - unplaced
    assert placed > 0.8 * sum(mine.values()) if ticking else placed == 0.0
    assert sum(mine.values()) > 0.2
