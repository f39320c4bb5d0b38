"""The profiler: its states, its thread, and that it never harms its host."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from ox_otel import (
    Batch,
    ConfigError,
    CountingRecorder,
    Function,
    Profiler,
    Settings,
    _delivery,
    _life,
    _sampling,
)
from ox_otel._clock import Schedule
from ox_otel._native import own_idents
from ox_otel._pipeline import Pipeline
from ox_otel._sampling import Sampling
from ox_otel._threads import Threads
from ox_otel.recorders import Usage

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until *condition* holds; fail after *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have whoever asks for figures wait until there are some, however busy the machine is."""
    monkeypatch.setattr(_life, "FLUSH_SECONDS", 60.0)


@pytest.fixture
def profiler() -> Iterator[Profiler]:
    """Return a profiler at 200 samples a second that is cancelled in the end."""
    made = Profiler(Settings(interval=0.005, max_overhead=1))
    yield made
    made.cancel()


def burn(seconds: float) -> None:
    """Use that much CPU."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def state(profiler: Profiler) -> str:
    """Return what state the profiler says it is in."""
    return profiler.status().state


def test_a_profile_names_what_burns(profiler: Profiler) -> None:
    """A started profiler finds the function that uses the CPU, and its seconds."""
    with profiler:
        burn(0.5)
        records, total = profiler.query("*.burn")

    assert 1 == total
    assert f"{__name__}.burn" == records[0].name
    assert 0.5 == pytest.approx(records[0].usage.cpu_seconds, abs=0.1)
    assert records[0].hits > 5
    assert "burn" in profiler.show()


def test_an_answer_holds_what_happened_just_now(profiler: Profiler) -> None:
    """Nobody has to wait for the next batch."""
    with profiler:
        until(lambda: profiler.status().samples > 5)
        counted = profiler.snapshot()

    assert counted.samples > 5


def test_the_verbs_and_their_states(profiler: Profiler) -> None:
    """Each verb leads where it says, from wherever, and may be repeated."""
    assert "stopped" == state(profiler)
    profiler.pause()
    assert "stopped" == state(profiler)
    for _ in range(2):
        profiler.start()
        assert "running" == state(profiler)
    for _ in range(2):
        profiler.pause()
        assert "paused" == state(profiler)
        assert profiler.is_paused()
    profiler.start()
    assert "paused" == state(profiler)
    for _ in range(2):
        profiler.unpause()
        assert "running" == state(profiler)
        assert not profiler.is_paused()
    for _ in range(2):
        profiler.cancel()
        assert "stopped" == state(profiler)
    profiler.start()
    before = profiler.status().samples
    until(lambda: profiler.status().samples > before)


def test_it_may_start_paused() -> None:
    """With `start_paused` nothing is sampled before `unpause`."""
    with Profiler(Settings(start_paused=True, interval=0.005)) as profiler:
        time.sleep(0.1)
        assert ("paused", 0) == (state(profiler), profiler.status().samples)
        profiler.unpause()
        until(lambda: profiler.status().samples)


def test_time_spent_paused_is_not_counted(profiler: Profiler) -> None:
    """Pausing for a while adds no seconds to any function."""
    began = time.monotonic()
    with profiler:
        until(lambda: profiler.status().samples > 5)
        profiler.pause()
        paused = time.monotonic()
        time.sleep(0.5)
        elapsed = time.monotonic() - paused
        profiler.unpause()
        samples = profiler.status().samples
        until(lambda: profiler.status().samples > samples + 5)
        counted = profiler.snapshot().functions
    seconds = sum(u.self_wait_seconds + u.self_cpu_seconds for u in counted.values())

    # one thread, some 15 samples 5 ms apart: next to nothing of the half second
    assert 0 < seconds < time.monotonic() - began - 0.8 * elapsed


def test_paused_nothing_is_missed() -> None:
    """To be asked for figures while it rests, before the first sample or later, is no delay."""
    with Profiler(Settings(start_paused=True)) as profiler:
        profiler.snapshot()
        profiler.unpause()
        until(lambda: profiler.status().samples > 2)
        profiler.pause()
        missed = profiler.snapshot().missed
        time.sleep(0.3)
        profiler.snapshot()
        assert missed == profiler.snapshot().missed < 1000


@linux_only
@pytest.mark.parametrize("paused", [True, False])
def test_paused_there_are_no_wake_ups(
    profiler: Profiler,
    paused: bool,  # noqa: FBT001 - pytest gives it by name
) -> None:
    """A paused profiler's thread does not run at all (a running one does: the count counts)."""
    with profiler:
        until(lambda: profiler.status().samples > 5)
        if paused:
            profiler.pause()
        (mine,) = [
            task
            for task in Path("/proc/self/task").iterdir()
            if (task / "comm").read_text() == "ox_otel\n"
        ]

        def switches() -> int:
            lines = (mine / "status").read_text().splitlines()
            return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)

        def is_still() -> bool:
            before = switches()
            time.sleep(0.2)
            return before == switches()

        if paused:
            until(is_still)
        before = switches()
        time.sleep(1.0)
        after = switches()

    assert (after == before) if paused else (after > before + 10)


@pytest.mark.parametrize("verb", ["run", "pause", "suspend", "long interval"])
def test_it_stops_within_a_second_from_any_state(
    profiler: Profiler, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cancel` ends the thread, whatever that is doing."""
    profiler.start()
    until(lambda: profiler.status().samples)
    if verb == "pause":
        profiler.pause()
    elif verb == "long interval":
        profiler.set_interval(60)
    elif verb == "suspend":
        monkeypatch.setattr(_sampling, "FIRST_SUSPENSION", 100.0)
        monkeypatch.setattr(Pipeline, "sample", lambda *_: 1 // 0)
        until(lambda: state(profiler) == "suspended")
    time.sleep(0.05)
    began = time.monotonic()
    profiler.cancel()

    assert time.monotonic() - began < 1.0
    assert not own_idents


def test_the_interval_can_be_changed(profiler: Profiler) -> None:
    """A new interval holds at once, even if the old one was long."""
    with profiler:
        profiler.set_interval(60)
        until(lambda: profiler.status().interval == 60)
        time.sleep(0.1)
        before = profiler.status().samples
        profiler.set_interval(0.005)

        assert 0.005 == profiler.status().interval
        until(lambda: profiler.status().samples > before + 5)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "abc", None, True, 1e9])
def test_a_wrong_interval_is_refused(profiler: Profiler, seconds: float) -> None:
    """The error names the setting, the value and what is accepted; nothing changes."""
    with pytest.raises(ConfigError, match=r"OX_OTEL_INTERVAL.*seconds from 0.001 to 60"):
        profiler.set_interval(seconds)

    assert 0.005 == profiler.status().interval


def test_errors_suspend_sampling_and_it_comes_back(
    profiler: Profiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault that persists suspends sampling with a reason; when it is gone, all is well."""
    monkeypatch.setattr(_sampling, "FIRST_SUSPENSION", 0.05)
    real, broken = Pipeline.sample, True
    suspensions: list[float] = []

    def sample(pipeline: Pipeline, now: float) -> None:
        if broken:
            suspensions.append(profiler._sampling._suspended_for)
            raise SystemExit("not even this ends the thread")
        real(pipeline, now)

    monkeypatch.setattr(Pipeline, "sample", sample)
    with profiler:
        until(lambda: "SystemExit" in profiler.status().reason)  # it tries again in between
        broken = False
        until(lambda: state(profiler) == "running" and profiler.status().samples > 5)
        errors = profiler.snapshot().errors["sample"]
        suspensions.clear()
        broken = True
        until(lambda: suspensions)

    assert errors >= _sampling.ERRORS_IN_A_ROW
    assert 0.0 == suspensions[0]  # a later fault is a new one: it begins with a short suspension


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """Return a list of the times of samples that the engine has been asked for; it takes them all."""
    asked: list[list[float]] = []

    def watch(_: Threads, dues: list[float]) -> list[tuple[float, bool]]:
        asked.append(dues)
        return [(due, True) for due in dues]

    monkeypatch.setattr(Threads, "watch", watch)
    monkeypatch.setattr(Threads, "watched", 64)
    return asked


def piped(interval: float) -> tuple[Pipeline, Schedule]:
    """Return a pipeline that begins at the time 0, and its schedule."""
    schedule = Schedule(interval, 1)
    pipeline = Pipeline(Settings(engine="threads", interval=interval), schedule)
    pipeline.begin(0.0)
    return pipeline, schedule


def test_samples_without_the_gil_make_a_batch(watching: list[list[float]]) -> None:
    """They are as many as fit in one, they are taken note of, and with the last it is due."""
    pipeline, _ = piped(0.1)
    pipeline.watch(0.0)
    (dues,) = watching

    assert dues[-2] < 1.0 <= dues[-1]
    assert (len(dues), dues[-1]) == (pipeline.samples, pipeline.last_sample)
    assert 1 == pipeline.flushes
    assert len(dues) == pipeline.counts.snapshot().samples


def test_a_batch_is_not_made_before_it_is_due(
    watching: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine may stop before; the next sample is due when it was going to be."""
    pipeline, schedule = piped(0.1)
    watch = Threads.watch
    monkeypatch.setattr(Threads, "watch", lambda *asked: watch(*asked)[:1])
    monkeypatch.setattr(Threads, "pace", 3)
    pipeline.watch(0.0)
    (dues,) = watching

    assert (1, 0) == (pipeline.samples, pipeline.flushes)
    assert dues[1] - dues[0] == pytest.approx(schedule.wait(dues[0]))
    assert 3 == schedule.pace


def test_a_batch_is_made_when_there_is_no_room_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not the engine has taken a sample."""
    pipeline, _ = piped(0.1)
    monkeypatch.setattr(Threads, "full", True)
    monkeypatch.setattr(Threads, "watched", 64)
    pipeline.watch(0.0)

    assert (0, 1) == (pipeline.samples, pipeline.flushes)


class Waiting:
    """An alarm that keeps how long it was to wait, and rings as told."""

    def __init__(self, *, rings: bool = False) -> None:
        self.waits: list[float | None] = []
        self._rings = rings

    def wait(self, seconds: float | None) -> bool:
        """Wait not at all."""
        self.waits.append(seconds)
        return self._rings


def sampled(monkeypatch: pytest.MonkeyPatch, alarm: Waiting, *, taking: bool) -> list[str]:
    """Return what is done from the first watch to the second; the first takes a sample or does not."""
    done: list[str] = []
    sampling = Sampling(Settings(engine="threads", interval=60))

    def watch(pipeline: Pipeline, _: float) -> None:
        pipeline.samples += taking
        note("watch")

    def note(what: str) -> None:
        done.append(what)
        sampling.stopping = done.count(what) > 1

    monkeypatch.setattr(Pipeline, "watch", watch)
    monkeypatch.setattr(Pipeline, "sample", lambda *_: note("sample"))
    monkeypatch.setattr(Pipeline, "flush", lambda *_: done.append("flush"))
    sampling.alarm = alarm  # type: ignore[assignment]
    sampling.stopping = False
    sampling.run()
    return done[: done.index("watch", 1)]


def test_where_the_engine_takes_samples_without_the_gil_there_is_nothing_to_wait_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor one to take: it goes on at once."""
    alarm = Waiting()

    assert ["watch"] == sampled(monkeypatch, alarm, taking=True)
    assert 0.0 == alarm.waits[0]


def test_where_the_engine_takes_none_it_is_taken_when_it_is_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After as long as the schedule says."""
    alarm = Waiting()

    assert ["watch", "sample"] == sampled(monkeypatch, alarm, taking=False)
    assert (alarm.waits[0] or 0) > 20


@pytest.mark.parametrize("taking", [False, True])
def test_whoever_rings_has_a_batch(monkeypatch: pytest.MonkeyPatch, *, taking: bool) -> None:
    """And no sample before it is due."""
    assert ["watch", "flush"] == sampled(monkeypatch, Waiting(rings=True), taking=taking)


def test_the_alarm_ends_what_the_engine_does_without_the_gil(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever rings does not wait for the next sample."""
    woken: list[None] = []
    monkeypatch.setattr(Threads, "wake", lambda _: woken.append(None))
    Sampling(Settings(engine="threads")).alarm.ring()

    assert [None] == woken


def test_the_state_is_that_of_the_thread(
    profiler: Profiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that has ended against all odds is not said to run, and another can be started."""
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "begin", sys.exit)  # where nobody catches it
        profiler.start()
        until(lambda: state(profiler) == "failed")
        assert "the thread has ended" == profiler.status().reason
    profiler.start()
    until(lambda: profiler.status().samples)


def test_a_lasting_fault_is_retried_ever_more_rarely(
    profiler: Profiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Suspensions double, so that a broken host is left alone."""
    monkeypatch.setattr(_sampling, "FIRST_SUSPENSION", 0.05)
    tries: list[float] = []

    def sample(*_: object) -> None:
        tries.append(time.monotonic())
        raise ValueError

    monkeypatch.setattr(Pipeline, "sample", sample)
    with profiler:
        until(lambda: len(tries) >= _sampling.ERRORS_IN_A_ROW + 4)
    pauses = [b - a for a, b in pairwise(tries)][_sampling.ERRORS_IN_A_ROW - 1 :]

    # a busy machine makes them longer, but never shorter
    assert pauses[0] >= 0.05
    assert pauses[1] >= 0.1
    assert pauses[2] >= 0.2


def test_five_times_the_budget_suspends_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it costs far too much in spite of all, it rests, says so, and tries again later."""
    monkeypatch.setattr(_sampling, "FIRST_SUSPENSION", 1.0)
    with Profiler(Settings(interval=0.005)) as profiler:
        until(lambda: profiler.status().samples > 5)
        profiler._pipeline.charge(in_budget=1.0)  # as if scrapes had used a second
        until(lambda: state(profiler) == "suspended")
        assert "the budget is 1.0%" in profiler.status().reason
        until(lambda: state(profiler) == "running")
        assert 1 == profiler.snapshot().errors["budget"]


def test_a_kill_file_suspends_sampling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the file exists nothing is sampled; the reason says so."""
    monkeypatch.setattr(_sampling, "FIRST_SUSPENSION", 0.05)
    file = tmp_path / "stop"
    file.touch()
    with Profiler(Settings(interval=0.005, max_overhead=1, kill_file=str(file))) as profiler:
        until(lambda: state(profiler) == "suspended")
        status = profiler.status()
        assert ("the kill file exists", 0) == (status.reason, status.samples)
        file.unlink()
        until(lambda: profiler.status().samples > 5)
        file.touch()
        until(lambda: state(profiler) == "suspended")


class Collecting:
    """A recorder that keeps its batches, and fails when told to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.batches: list[Batch] = []
        self.threads: set[int] = set()
        self._fails = fails

    def record(self, batch: Batch) -> None:
        """Keep the batch, or fail."""
        self.threads.add(threading.get_ident())
        if self._fails:
            raise RuntimeError("no")
        self.batches.append(batch)


def test_recorders_get_the_same_facts_and_do_not_harm_each_other(profiler: Profiler) -> None:
    """One recorder fails; the other gets everything, conserved, always from one thread."""
    good = Collecting()
    profiler.add_recorder(Collecting(fails=True))
    profiler.add_recorder(good)
    with profiler:
        for number in range(3):
            burn(0.05)
            counted = profiler.snapshot()
            until(lambda: len(good.batches) > number)  # noqa: B023 - it is called at once
        profiler.snapshot()
    total = Batch()
    for batch in good.batches:
        total = total.plus(batch)
        if batch.stacks:  # it is one batch, not several that came too fast
            hits = sum(usage.hits for usage in batch.stacks.values())
            assert hits == sum(usage.self_hits for usage in batch.functions.values())

    assert any(batch.stacks for batch in good.batches)
    assert total.samples >= counted.samples > 0
    assert 1 == len(good.threads)
    assert profiler.snapshot().errors["recorder"] >= 1


def test_a_recorder_may_ask_the_profiler(profiler: Profiler) -> None:
    """A recorder that calls us back waits for nothing, and is not called the more for it."""
    asked: list[float] = []
    started = time.monotonic()

    class Asking:
        def record(self, batch: Batch) -> None:
            began = time.monotonic()
            profiler.query()
            profiler.status()
            asked.append(time.monotonic() - began)

    profiler.add_recorder(Asking())
    with profiler:
        profiler.snapshot()
        until(lambda: asked)
        time.sleep(0.3)
        assert len(asked) <= 2 + time.monotonic() - started  # there is a batch a second

    assert max(asked) < 20  # a minute, if it waited


class Hanging:
    """A recorder that does not return before it may."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.counts = CountingRecorder()

    def record(self, batch: Batch) -> None:
        """Hang, then count."""
        self.free.wait()
        self.counts.record(batch)


def test_a_recorder_that_hangs_stops_nothing(
    profiler: Profiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sampling and other recorders go on; status and errors tell; when it is over, all is there."""
    monkeypatch.setattr(_delivery, "PATIENCE", 0.2)
    hanging, good = Hanging(), CountingRecorder()
    profiler.add_recorder(hanging)
    profiler.add_recorder(good)
    with profiler:
        until(lambda: "delivery" in profiler.status().reason)
        assert "does not return from a delivery: Hanging" == profiler.status().reason
        assert "running" == state(profiler)
        samples = profiler.status().samples
        until(lambda: profiler.status().samples > samples + 10)
        profiler.snapshot()
        until(lambda: good.snapshot().samples > samples)
        until(lambda: profiler.snapshot().errors)
        assert {"recorder": 1} == profiler.snapshot().errors
        hanging.free.set()
        until(lambda: not profiler.status().reason)
    assert good.snapshot().samples == hanging.counts.snapshot().samples == profiler.status().samples


def test_a_quick_recorder_that_hangs_is_named(
    profiler: Profiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One on the thread that samples holds up everything: the status says who, and until when."""
    monkeypatch.setattr(_delivery, "PATIENCE", 0.2)
    hanging = Hanging()
    profiler.add_recorder(hanging, quick=True)
    with profiler:
        until(lambda: profiler.status().reason)
        assert "does not return from a delivery: Hanging" == profiler.status().reason
        hanging.free.set()
        until(lambda: not profiler.status().reason)
        assert "running" == state(profiler)


def test_a_recorder_that_hangs_does_not_delay_the_end(
    profiler: Profiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cancel` waits a second for it, no longer, and a recorder may call `cancel` itself."""
    hanging = Hanging()
    profiler.add_recorder(hanging)
    profiler.start()
    profiler.snapshot()
    began = time.monotonic()
    profiler.cancel()
    assert time.monotonic() - began < 10  # it would hang for ever
    assert 1 == len(own_idents)
    hanging.free.set()
    until(lambda: not own_idents)
    monkeypatch.setattr(_life, "STOP_SECONDS", 60.0)

    class Ending:
        def record(self, batch: Batch) -> None:
            began = time.monotonic()
            profiler.cancel()
            ended.append(time.monotonic() - began)

    ended: list[float] = []
    profiler.add_recorder(Ending())
    profiler.start()
    profiler.snapshot()
    until(lambda: ended and not own_idents)
    assert max(ended) < 20  # a minute, if it waited for itself


def test_what_it_costs_is_published_truly() -> None:
    """The published CPU seconds are those that the kernel counts for our thread."""
    settings = Settings(engine="threads", interval=0.005, max_overhead=1)  # the only one it costs
    with Profiler(settings) as profiler:
        burn(1.0)
        (mine,) = [
            task
            for task in Path("/proc/self/task").iterdir()
            if (task / "comm").read_text() == "ox_otel\n"
        ]
        published = profiler.snapshot().overhead_seconds
        clock = (~int(mine.name) << 3) | 6
        kernel = time.clock_gettime(clock)

    assert kernel == pytest.approx(published, rel=0.1, abs=0.003)


def test_the_budget_holds() -> None:
    """Asked for a thousand samples a second at a tenth of a percent, it takes far fewer."""
    with Profiler(Settings(interval=0.001, max_overhead=0.001)) as profiler:
        end = time.monotonic() + 4
        while time.monotonic() < end:
            burn(0.01)
            time.sleep(0.001)
        before = profiler.snapshot().overhead_seconds
        began = time.monotonic()
        while time.monotonic() < began + 4:
            burn(0.01)
            time.sleep(0.001)
        cost = (profiler.snapshot().overhead_seconds - before) / (time.monotonic() - began)
        interval = profiler.status().interval

    assert interval > 0.01
    assert cost < 2 * 0.001


def test_an_unsupported_interpreter_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where frames cannot be read safely, nothing starts, nothing raises, the status says why."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    profiler = Profiler()
    profiler.start()

    assert "unsupported" == state(profiler)
    assert "GIL" in profiler.status().reason
    assert not own_idents


def test_where_there_is_no_thread_the_host_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that has no thread to give makes a failed profiler, not an exception."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_life, "Worker", refuse)
    profiler = Profiler()
    profiler.start()

    assert "failed" == state(profiler)
    assert "can't start new thread" in profiler.status().reason


def test_nothing_global_is_changed(profiler: Profiler) -> None:
    """The switch interval, trace and profile functions are the host's."""
    before = (sys.getswitchinterval(), sys.gettrace(), sys.getprofile(), threading.gettrace())
    with profiler:
        until(lambda: profiler.status().samples > 20)
        during = (sys.getswitchinterval(), sys.gettrace(), sys.getprofile(), threading.gettrace())

    assert before == during


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run *code* in an interpreter of its own, with a deadline and a traceback for crashes."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


END = """
import time
from ox_otel import Profiler, Settings
profiler = Profiler(Settings(interval=0.001, max_overhead=1))
profiler.start()
time.sleep(0.1)
{last}
"""


@pytest.mark.parametrize("last", ["", "profiler.pause(); time.sleep(0.1)", "del profiler"])
def test_the_interpreter_ends_at_once(last: str) -> None:
    """A program that does not care about the profiler ends as it would without it."""
    began = time.monotonic()
    done = run(END.format(last=last))

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    assert time.monotonic() - began < 30


EXIT = """
import atexit, time
from ox_otel import Profiler
from ox_otel._native import own_idents
profiler = Profiler()
atexit.register(lambda: print(profiler.status().state, len(own_idents)))  # the last to be called
profiler.start()
time.sleep(0.1)
"""


def test_the_thread_has_ended_before_the_interpreter_goes() -> None:
    """While the interpreter is taken apart, none of our threads runs any more."""
    done = run(EXIT)

    assert (0, "stopped 0\n", "") == (done.returncode, done.stdout, done.stderr)


CHILD = """
import os, threading, time, warnings
warnings.simplefilter("ignore")
from ox_otel import Profiler, Settings
settings = Settings(interval=0.005, max_overhead=1)
def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end: pass
def cpu_seconds(profiler, pattern):
    return sum(record.usage.cpu_seconds for record in profiler.query(pattern).records)
parent = Profiler(settings)
parent.start()
burn(0.2)
child = os.fork()
if child == 0:
    with Profiler(settings) as mine:
        burn(0.5)
        threads = [threading.Thread(target=burn, args=(0.3,)) for _ in range(2)]
        for thread in threads: thread.start(); thread.join()
        seconds = cpu_seconds(mine, "__main__.burn")
    print(0.8 < seconds < 1.3 or seconds, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@linux_only
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_that_is_profiled_has_its_cpu() -> None:
    """The main thread of a child, and threads that inherit the ident of ours, are all seen."""
    done = run(CHILD)

    assert ("True\n", "") == (done.stdout, done.stderr)


FORK = """
import os, time, warnings
warnings.simplefilter("ignore")
from ox_otel import Profiler, Settings, _life
_life.FLUSH_SECONDS = _life.STOP_SECONDS = 30  # whoever waits in vain is told from who is slow
profiler = Profiler(Settings(interval=0.002, max_overhead=1))
profiler.start()
time.sleep(0.1)
child = os.fork()
if child == 0:
    began = time.monotonic()
    print(profiler.status().state, flush=True)
    profiler.pause(); profiler.unpause(); profiler.query(); profiler.cancel()
    print(time.monotonic() - began < 20, flush=True)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), profiler.status().state)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_not_harmed() -> None:
    """In a child the profiler runs as before, and hangs nowhere."""
    done = run(FORK)

    assert ("running\nTrue\n0 running\n", "") == (done.stdout, done.stderr)


def test_functions_and_usages_are_facts() -> None:
    """What recorders get cannot be changed by one of them behind another's back."""
    function, usage = Function("m", "f"), Usage()

    with pytest.raises(AttributeError):
        function.name = "g"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        usage.hits = 1  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Batch().samples = 1  # type: ignore[misc]
    kept = Collecting()
    with Profiler(Settings(interval=0.005)) as profiler:
        profiler.add_recorder(kept, quick=True)  # it gets the batch that all get, as it is
        profiler.snapshot()
    for facts in (kept.batches[0].functions, kept.batches[0].stacks, kept.batches[0].errors):
        with pytest.raises(TypeError):
            facts["changed"] = 1  # type: ignore[index]
