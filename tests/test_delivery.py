"""Deliveries: a recorder that fails or hangs loses nothing and harms nobody."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from math import isclose

import pytest

from ox_otel import _delivery, _notices
from ox_otel._delivery import FIRST_RETRY, LAST_RETRY, PATIENCE, Courier, Delivery
from ox_otel._ledger import RETIRE_AFTER, Ledger
from ox_otel._native import own_idents
from ox_otel.recorders import Batch, CountingRecorder, Function, Recorder, Usage

FUNCTION = Function("m", "f")


class Moody:
    """A recorder that fails while *broken*, and counts how often it was asked."""

    def __init__(self) -> None:
        self.broken = True
        self.asked = 0
        self.counts = CountingRecorder()

    def record(self, batch: Batch) -> None:
        """Count the batch, or fail."""
        self.asked += 1
        if self.broken:
            raise RuntimeError("moody")
        self.counts.record(batch)


def batch(hits: int) -> Batch:
    """Return a batch in which one function has that many hits."""
    usage = Usage(hits, hits, 0.5, 0.25, 0.5, 0.25)
    return Batch({FUNCTION: usage}, {(FUNCTION,): usage}, samples=hits)


@pytest.fixture
def errors() -> Counter[str]:
    """The errors by kind, counted by whoever is given the fixture's `update`."""
    return Counter()


def delivery_to(recorder: Recorder, errors: Counter[str]) -> Delivery:
    """Return a delivery whose errors are counted."""
    return Delivery(recorder, lambda kind: errors.update([kind]))


def test_what_a_recorder_refuses_comes_again(errors: Counter[str]) -> None:
    """After a failure nothing is lost: the batches come merged, once it is well."""
    recorder = Moody()
    delivery = delivery_to(recorder, errors)
    delivery.deliver(batch(1), 0.0)
    delivery.deliver(batch(2), 10.0)
    recorder.broken = False
    delivery.deliver(batch(4), 100.0)

    counted = recorder.counts.snapshot()
    assert Usage(7, 7, 1.5, 0.75, 1.5, 0.75) == counted.functions[FUNCTION]
    assert 7 == counted.samples
    assert {"recorder": 2} == errors


def test_a_recorder_that_fails_is_asked_ever_more_rarely(errors: Counter[str]) -> None:
    """Retries back off to one a minute, and begin anew after a success."""
    recorder = Moody()
    delivery = delivery_to(recorder, errors)
    for second in range(600):
        delivery.deliver(batch(1), float(second))
    assert recorder.asked < 20

    recorder.broken = False
    delivery.deliver(batch(1), 600 + LAST_RETRY)
    recorder.broken = True
    asked = recorder.asked
    delivery.deliver(batch(1), 1000.0)
    delivery.deliver(batch(1), 1000.0 + FIRST_RETRY)

    assert asked + 2 == recorder.asked
    assert 601 == recorder.counts.snapshot().samples


def test_not_even_an_exit_passes(errors: Counter[str]) -> None:
    """A recorder that raises what is no `Exception` is kept from its neighbours too."""

    class Leaving:
        """A recorder that wants the process to end."""

        def record(self, batch: Batch) -> None:
            """Say so."""
            raise SystemExit

    delivery_to(Leaving(), errors).deliver(batch(1), 0.0)
    assert {"recorder": 1} == errors


def test_a_failure_is_reported_once(caplog: pytest.LogCaptureFixture, errors: Counter[str]) -> None:
    """A fault that comes and goes makes one line, and one that then lasts no more, for ever."""
    recorder = Moody()
    delivery = delivery_to(recorder, errors)
    for n in range(1000):
        recorder.broken = bool(n % 2)
        delivery.deliver(batch(1), 100.0 * n)
    for n in range(1000, 2000):
        _notices._told.clear()  # a line of a minute ago would not keep the next one away
        delivery.deliver(batch(1), 100.0 * n)

    assert 1500 == errors["recorder"]
    assert 1 == len(caplog.records)
    assert "Moody" in caplog.text


FIVE_DAYS = 5 * 24 * 3600
STEP = 300


def days_of_work() -> Iterator[tuple[Batch, float]]:
    """Yield batches of days in which functions come, are hot for a while, and are retired."""
    ledger = Ledger(limit=20)
    for now in range(0, FIVE_DAYS, STEP):
        hot = [Function("m", f"f{now // RETIRE_AFTER}_{n}") for n in range(8)]
        stacks = {(FUNCTION, function): Usage(9, 9, 1.0, 2.0, 1.0, 2.0) for function in hot}
        gains, retired = ledger.settle(stacks, float(now))
        yield Batch(gains, stacks, retired=retired), float(now)


def test_days_of_failure_fill_no_memory(errors: Counter[str]) -> None:
    """What is kept is as much after days as after hours, and in the end the totals are right."""
    recorder, well = Moody(), CountingRecorder()
    recorder.broken = False
    delivery = delivery_to(recorder, errors)
    kept, ended, known = [], set(), frozenset[Function]()
    for batch_, now in days_of_work():
        recorder.broken = 3 * RETIRE_AFTER < now < FIVE_DAYS - 3 * RETIRE_AFTER
        known = known or (
            frozenset(recorder.counts.snapshot().functions) if recorder.broken else known
        )
        delivery.deliver(batch_, now)
        well.record(batch_)
        if delivery._kept is not None:
            kept.append(delivery._kept)
            ended |= delivery._kept.retired.keys()

    assert len(kept) > 1000
    assert max(len(one.functions) for one in kept) <= 20
    assert max(len(one.stacks) for one in kept) <= 8  # of one batch at the most
    assert ended <= known  # of the recorder, when it began to fail
    assert same(well.snapshot(), recorder.counts.snapshot())


def same(one: Batch, other: Batch) -> bool:
    """Return whether two totals agree, to float accuracy."""
    return one.functions.keys() == other.functions.keys() and all(
        isclose(a, b)
        for function, usage in one.functions.items()
        for a, b in zip(usage, other.functions[function], strict=True)
    )


class Slow:
    """A recorder that returns only when it may, and tells when it has begun."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.free = threading.Event()
        self.threads: set[int] = set()
        self.batches: list[Batch] = []
        self.counts = CountingRecorder()

    def record(self, batch: Batch) -> None:
        """Wait, then count the batch."""
        self.threads.add(threading.get_ident())
        self.begun.set()
        assert self.free.wait(60)
        self.batches.append(batch)
        self.counts.record(batch)


@pytest.fixture
def slow(errors: Counter[str]) -> Iterator[tuple[Slow, Courier]]:
    """A recorder that hangs, and the courier to it; both end with the test."""
    recorder = Slow()
    courier = courier_to(recorder, errors)
    yield recorder, courier
    recorder.free.set()
    courier.end()
    courier.join(10)


def courier_to(
    recorder: Recorder, errors: Counter[str], charge: Callable[[float], None] = id
) -> Courier:
    """Return a courier whose errors are counted."""

    def on_error(kind: str) -> None:
        errors.update([kind])

    return Courier(Delivery(recorder, on_error), on_error, charge)


def test_whoever_delivers_does_not_wait(slow: tuple[Slow, Courier], errors: Counter[str]) -> None:
    """While a recorder hangs, batches become one that waits for it; then nothing has been lost."""
    recorder, courier = slow
    courier.deliver(batch(1), 0.0)
    assert recorder.begun.wait(10)
    for n in range(1, 1000):
        courier.deliver(batch(1), float(n))
        assert 1 == len(courier._waiting)
    recorder.free.set()
    courier.end()
    courier.join(10)

    assert [1, 999] == [one.samples for one in recorder.batches]
    assert 1000 == recorder.counts.snapshot().functions[FUNCTION].hits
    assert {} == recorder.batches[1].stacks
    assert threading.get_ident() not in recorder.threads
    assert 1 == len(recorder.threads)


def test_days_of_hanging_fill_no_memory(slow: tuple[Slow, Courier]) -> None:
    """What waits for a recorder that hangs is bounded too, and its totals are right in the end."""
    recorder, courier = slow
    well, ended, first = CountingRecorder(), set(), frozenset[Function]()
    for batch_, now in days_of_work():
        courier.deliver(batch_, now)
        assert recorder.begun.wait(10)
        well.record(batch_)
        first = first or frozenset(batch_.functions)
        for waiting in list(courier._waiting):
            assert len(waiting.functions) <= 20
            assert len(waiting.stacks) <= 8
            ended |= waiting.retired.keys() if now > STEP else set()
    recorder.free.set()
    courier.end()
    courier.join(10)

    assert ended <= first
    assert same(well.snapshot(), recorder.counts.snapshot())


def test_the_end_of_what_a_recorder_is_being_told_of(slow: tuple[Slow, Courier]) -> None:
    """A series that comes and ends while the recorder hangs ends there, if it has heard of it."""
    recorder, courier = slow
    heir, unheard = Function("__other__", "__retired_1__"), Function("m", "unheard")
    courier.deliver(batch(1), 0.0)
    assert recorder.begun.wait(10)
    courier.deliver(Batch({unheard: Usage(1, 1)}), 1.0)
    courier.deliver(Batch(retired={FUNCTION: heir, unheard: heir}), 2.0)
    recorder.free.set()
    courier.end()
    courier.join(10)

    assert {FUNCTION: heir} == recorder.batches[1].retired
    assert [heir] == list(recorder.counts.snapshot().functions)


def test_what_a_recorder_holds_is_bounded(errors: Counter[str]) -> None:
    """What has ended is forgotten, so that after days it is no more than there are series."""
    delivery = delivery_to(CountingRecorder(), errors)
    for batch_, now in days_of_work():
        delivery.deliver(batch_, now)
        assert len(delivery._held) <= 20


def test_a_recorder_that_hangs_is_said_to(
    slow: tuple[Slow, Courier], errors: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery that takes too long is an error, counted once; when it is over, all is well."""
    recorder, courier = slow
    began = time.monotonic()
    courier.deliver(batch(1), began)
    assert recorder.begun.wait(10)
    assert not courier.delivery.hangs(began)
    for second in range(1, 100):
        courier.deliver(batch(1), began + PATIENCE + 10 + second)
    assert courier.delivery.hangs(began + PATIENCE + 100)
    assert {"recorder": 1} == errors
    recorder.free.set()
    courier.end()
    courier.join(10)
    assert not courier.delivery.hangs(began + 1e9)


def test_the_thread_begins_with_the_first_batch_and_can_begin_again(errors: Counter[str]) -> None:
    """A courier that has ended delivers again when it is given something."""
    recorder = Moody()
    recorder.broken = False
    courier = courier_to(recorder, errors)
    assert set() == own_idents
    for n in range(1, 4):
        courier.deliver(batch(1), float(n))
        courier.end()
        courier.join(10)
        assert n == recorder.counts.snapshot().samples
        assert set() == own_idents


def test_where_there_is_no_thread_the_batch_waits(
    errors: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a thread to be had nothing is lost: the next batch tries again."""
    recorder = Moody()
    recorder.broken = False
    courier = courier_to(recorder, errors)
    with monkeypatch.context() as patch:
        patch.setattr(_delivery, "Worker", lambda *_: (_ for _ in ()).throw(RuntimeError))
        courier.deliver(batch(1), 0.0)
    assert {"recorder": 1} == errors
    courier.deliver(batch(1), 1.0)
    courier.end()
    courier.join(10)
    assert 2 == recorder.counts.snapshot().samples


def test_a_fault_of_ours_does_not_end_the_thread(errors: Counter[str]) -> None:
    """Even when a batch cannot be made ready, say for want of memory, later ones come."""

    class Unready(Delivery):
        def deliver(self, batch: Batch, now: float) -> None:
            if batch.samples == 1:
                raise MemoryError
            super().deliver(batch, now)

    recorder = Moody()
    recorder.broken = False
    delivery = Unready(recorder, lambda kind: errors.update([kind]))
    courier = Courier(delivery, lambda kind: errors.update([kind]), id)
    courier.deliver(batch(1), 0.0)
    deadline = time.monotonic() + 10
    while not errors and time.monotonic() < deadline:
        time.sleep(0.001)
    courier.deliver(batch(2), 1.0)
    courier.end()
    courier.join(10)
    assert {"recorder": 1} == errors
    assert 2 == recorder.counts.snapshot().samples


def test_what_a_recorder_costs_is_charged(errors: Counter[str]) -> None:
    """The CPU that a recorder uses on its thread is part of what profiling costs."""
    charged: list[float] = []

    class Dear:
        def record(self, batch: Batch) -> None:
            end = time.thread_time() + 0.05
            while time.thread_time() < end:
                pass

    courier = courier_to(Dear(), errors, charged.append)
    courier.deliver(batch(1), 0.0)
    courier.end()
    courier.join(10)
    assert 0.05 <= sum(charged) < 0.5
