"""Deliveries: a recorder that fails loses nothing and harms nobody."""

import pytest

from ox_otel._delivery import FIRST_RETRY, LAST_RETRY, Delivery
from ox_otel.recorders import Batch, CountingRecorder, Function, Usage

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


def test_what_a_recorder_refuses_comes_again() -> None:
    """After a failure nothing is lost: the batches come merged, once it is well."""
    recorder = Moody()
    delivery = Delivery(recorder)
    delivery.deliver(batch(1), 0.0)
    delivery.deliver(batch(2), 10.0)
    recorder.broken = False
    delivery.deliver(batch(4), 100.0)

    counted = recorder.counts.snapshot()
    assert Usage(7, 7, 1.5, 0.75, 1.5, 0.75) == counted.functions[FUNCTION]
    assert 7 == counted.samples


def test_a_recorder_that_fails_is_asked_ever_more_rarely() -> None:
    """Retries back off to one a minute, and begin anew after a success."""
    recorder = Moody()
    delivery = Delivery(recorder)
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


def test_not_even_an_exit_passes() -> None:
    """A recorder that raises what is no `Exception` is kept from its neighbours too."""

    class Leaving:
        """A recorder that wants the process to end."""

        def record(self, batch: Batch) -> None:
            """Say so."""
            raise SystemExit

    assert not Delivery(Leaving()).deliver(batch(1), 0.0)


def test_a_failure_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """A fault repeated a thousand times makes one line."""
    delivery = Delivery(Moody())
    failures = [not delivery.deliver(batch(1), 100.0 * n) for n in range(1000)]

    assert 1000 == sum(failures)
    assert 1 == len(caplog.records)
    assert "Moody" in caplog.text
