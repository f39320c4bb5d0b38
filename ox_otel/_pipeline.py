"""From samples to recorders: engine, ledger and deliveries, in the order of the data flow."""

import time
from collections import Counter, deque
from typing import TypeVar

from ox_otel._clock import Schedule
from ox_otel._delivery import Delivery
from ox_otel._ledger import SERIES_PER_FUNCTION, Ledger
from ox_otel._names import Names
from ox_otel._settings import Settings
from ox_otel._status import OWN_SERIES
from ox_otel._threads import Threads
from ox_otel.recorders import Batch, CountingRecorder, Recorder

BATCH_SECONDS = 1.0

T = TypeVar("T")


class Pipeline:
    """Takes samples, makes batches of them and hands these to the recorders.

    Belongs to one thread, but for `charge` and `count_error`, which any thread may call.

    Attributes:
        counts: the recorder that is always there.
        overhead_ratio: CPU seconds that profiling cost per second, during the last batch.
        samples: samples taken.
        flushes: batches made.
        last_sample: when the last sample was taken, on the monotonic clock; None before.
    """

    def __init__(self, settings: Settings, schedule: Schedule) -> None:
        self.counts = CountingRecorder()
        self.overhead_ratio = 0.0
        self.samples = 0
        self.flushes = 0
        self.last_sample: float | None = None
        self._schedule = schedule
        names = Names(settings.include, settings.exclude)
        self._engine = Threads(names, settings.max_depth, self.count_error)
        self._ledger = Ledger((settings.max_series - OWN_SERIES) // SERIES_PER_FUNCTION)
        self._deliveries = [Delivery(self.counts)]
        self._errors: deque[str] = deque()  # appending is atomic: anybody may, without a lock
        self._charges: deque[float] = deque()
        self._reported_samples = 0
        self._reported_missed = 0
        self._cpu_seconds = 0.0
        self._began = 0.0

    @property
    def engine(self) -> str:
        """The name of the engine."""
        return self._engine.name

    def add(self, recorder: Recorder) -> None:
        """Hand all further batches to *recorder* too."""
        self._deliveries = [*self._deliveries, Delivery(recorder)]

    def count_error(self, kind: str) -> None:
        """Count an error of one of the `ERROR_KINDS`."""
        self._errors.append(kind)

    def charge(self, cpu_seconds: float) -> None:
        """Count CPU time that another thread spent on profiling."""
        self._charges.append(cpu_seconds)

    def begin(self, now: float) -> None:
        """Start afresh at *now*: what the threads did before is not looked into."""
        self._engine.reset()
        self._schedule.restart(now)
        self._began = now
        self._cpu_seconds = time.thread_time()

    def sample(self, now: float) -> None:
        """Take one sample; make a batch if one is due."""
        self.last_sample = now
        self._engine.sample()
        self.samples += 1
        self._schedule.sampled(now)
        if now - self._began >= BATCH_SECONDS or self._engine.full:
            self.flush(now)

    def flush(self, now: float) -> None:
        """Make a batch of all that is not in one yet and hand it to the recorders."""
        stacks = self._engine.drain()
        gains, retired = self._ledger.settle(stacks, now)
        samples = self.samples - self._reported_samples
        missed = self._schedule.missed - self._reported_missed
        self._reported_samples += samples
        self._reported_missed += missed
        overhead = self._overhead(now, samples)
        errors = Counter(_taken(self._errors))
        batch = Batch(gains, stacks, samples, missed, overhead, errors, retired)
        for delivery in self._deliveries:
            if not delivery.deliver(batch, now):
                self.count_error("recorder")
        self.flushes += 1

    def _overhead(self, now: float, samples: int) -> float:
        """Return the CPU seconds spent since the last batch, by this thread and by others."""
        cpu_seconds = time.thread_time()
        overhead = cpu_seconds - self._cpu_seconds + sum(_taken(self._charges))
        self._cpu_seconds = cpu_seconds
        self._schedule.charge(overhead, samples)
        elapsed, self._began = now - self._began, now
        if elapsed > 0:
            self.overhead_ratio = overhead / elapsed
        return overhead


def _taken(queue: deque[T]) -> list[T]:
    """Empty *queue*, leaving what is appended meanwhile."""
    return [queue.popleft() for _ in range(len(queue))]
