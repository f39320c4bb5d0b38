"""From samples to recorders: engine, ledger and deliveries, in the order of the data flow."""

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ox_otel._books import Books, keep, leave
from ox_otel._capture import Captures
from ox_otel._clock import Delays, Schedule, since_epoch
from ox_otel._contributions import Contribution, Contributions
from ox_otel._delivery import Courier, Delivery
from ox_otel._engines import engine_for
from ox_otel._ledger import SERIES_PER_FUNCTION, Ledger
from ox_otel._names import Names
from ox_otel._recent import Recent
from ox_otel._settings import Settings
from ox_otel._spans import Span
from ox_otel._status import OWN_SERIES
from ox_otel._tree import SERIES_PER_NODE, Tree
from ox_otel.recorders import (
    NOTHING,
    Batch,
    CountingRecorder,
    Exemplar,
    Function,
    Recorder,
    Usage,
)

BATCH_SECONDS = 1.0

SERIES_PER_ROUTE = 3
"""Requests, CPU and wait."""

MAX_ROUTES = 600
"""However many series there may be: fewer than an SDK of OpenTelemetry allows an instrument."""

_SMOOTHING_SECONDS = 3.0  # about how far back the overhead ratio looks


def series(counted: Batch) -> int:
    """Return how many series these totals are published as, our own included."""
    functions = len(counted.functions) * SERIES_PER_FUNCTION
    nodes, routes = len(counted.tree) * SERIES_PER_NODE, len(counted.routes) * SERIES_PER_ROUTE
    return functions + nodes + routes + OWN_SERIES


class Places(NamedTuple):
    """How many functions, nodes of the tree, and routes have series at most."""

    functions: int
    nodes: int
    routes: int


def _places(settings: Settings) -> Places:
    available = settings.max_series - OWN_SERIES
    routes = min(available // 10 // SERIES_PER_ROUTE, MAX_ROUTES) if settings.routes else 0
    available -= routes * SERIES_PER_ROUTE
    for_tree = 0 if settings.tree == "off" else available // 2
    functions = (available - for_tree) // SERIES_PER_FUNCTION
    return Places(functions, for_tree // SERIES_PER_NODE, routes)


class Pipeline:
    """Takes samples, makes batches of them and hands these to the recorders.

    Belongs to one thread, but for `add`, `captures`, `charge`, `count_error`, `hanging`,
    `is_recorder`, `join`, `recent` and `wake`, which any thread may use.

    Attributes:
        counts: the recorder that is always there.
        captures: those that are being made.
        recent: the last minute, while somebody looks at it.
        since: when it began to count, on the monotonic clock.
        places: how many functions, nodes and routes have series at most.
        overhead_ratio: CPU seconds a second that count in the budget, smoothed over some batches.
        samples: samples taken.
        flushes: batches made.
        last_sample: when the last sample was taken, on the monotonic clock; None before.
    """

    def __init__(self, settings: Settings, schedule: Schedule) -> None:
        self.counts = CountingRecorder()
        self.captures = Captures()
        self.recent = Recent()
        self.since = time.monotonic()
        self.overhead_ratio = 0.0
        self.samples = 0
        self.flushes = 0
        self.last_sample: float | None = None
        self._schedule = schedule
        names = Names(settings.include, settings.exclude)
        self._engine, self._reason = engine_for(
            settings.engine,
            names,
            settings.max_depth,
            self.count_error,
            lambda: schedule.stretched,
        )
        schedule.pace = self._engine.pace
        self.places = places = _places(settings)
        self._ledger = Ledger(places.functions)
        self._tree = Tree(places.nodes, settings.tree) if places.nodes else None
        self._books = Books(places.routes, settings.max_overhead)
        self._quick = [Delivery(self.counts, self.count_error)]
        self._couriers: list[Courier] = []
        self._contributions = Contributions()
        self._cpu_seconds = 0.0
        self._began = 0.0

    @property
    def engine(self) -> str:
        """The name of the engine."""
        return self._engine.name

    @property
    def reason(self) -> str:
        """Why that is not the engine asked for; empty where it is."""
        return self._reason or self._engine.reason

    def add(self, recorder: Recorder, *, quick: bool) -> None:
        """Hand all further batches to *recorder* too: here if it is *quick*, else on a thread."""
        delivery = Delivery(recorder, self.count_error)
        if quick:
            self._quick = [*self._quick, delivery]
        else:
            courier = Courier(delivery, self.count_error, self._charge_recorder)
            self._couriers = [*self._couriers, courier]

    def count_error(self, kind: str) -> None:
        """Count an error of one of the `ERROR_KINDS`."""
        self._contributions.add(kind)

    def charge(self, *, published: float = 0.0, in_budget: float = 0.0) -> None:
        """Count CPU seconds that another thread spent on profiling.

        What is *published* is the cost as the kernel sees it; what is *in_budget* stretches the
        interval. An endpoint of ours also renders the metrics of the host: to sample less would
        not make that any cheaper.
        """
        self._contributions.add(published=published, in_budget=in_budget)

    def _charge_recorder(self, cpu_seconds: float) -> None:
        self.charge(published=cpu_seconds, in_budget=cpu_seconds)

    def hanging(self) -> list[str]:
        """Return the recorders that have not returned from a delivery for long."""
        now = time.monotonic()
        deliveries = (*self._quick, *(courier.delivery for courier in self._couriers))
        return [delivery.name for delivery in deliveries if delivery.hangs(now)]

    def is_recorder(self) -> bool:
        """Return whether the calling thread is one on which a recorder is called."""
        return any(courier.is_caller() for courier in self._couriers)

    def adopt(self) -> None:
        """Take the calling thread, which is new, for the one that samples from now on."""
        self._cpu_seconds = 0.0

    def begin(self, now: float) -> None:
        """Start afresh at *now*: what the threads did before is not looked into."""
        self._engine.reset()
        if self.places.routes:
            keep(self._books)
        self._schedule.restart(now)
        self.recent.begin()
        self.overhead_ratio = 0.0
        self._began = now

    def rest(self, now: float) -> None:
        """Make a last batch, have the engine do nothing until `begin`, and end captures."""
        leave(self._books)
        try:
            self.flush(now)
        finally:
            self.captures.end()
            self._engine.reset()
            self._schedule.rest()

    def wake(self) -> None:
        """End a `watch`; takes no lock."""
        self._engine.wake()

    def watch(self, now: float) -> None:
        """Leave samples to the engine as long as that needs no GIL; make a batch if one is due then."""
        if not (most := self._engine.watched):
            return
        dues = self._schedule.ahead(now, self._began + BATCH_SECONDS, most)
        for (at, moved), following in zip(
            self._engine.watch(dues), [*dues[1:], None], strict=False
        ):
            self._schedule.sampled(at, moved=moved, following=following)
            self.samples += 1
            self.last_sample = now = at
        self._schedule.pace = self._engine.pace
        self._flush_if_due(now)

    def sample(self, now: float) -> None:
        """Take one sample; make a batch if one is due."""
        self.last_sample = now
        moved = self._engine.sample(self._schedule.delay(now))
        self.samples += 1
        self._schedule.pace = self._engine.pace
        self._schedule.sampled(now, moved=moved)
        self._flush_if_due(now)

    def _flush_if_due(self, now: float) -> None:
        if now - self._began >= BATCH_SECONDS or self._engine.full:
            self.flush(now)

    def flush(self, now: float) -> None:
        """Make a batch of all that is not in one yet and hand it to the recorders."""
        stacks, seconds = self._engine.drain(), now - self._began
        gains, retired = self._ledger.settle(stacks, now)
        tree, retired_nodes = self._tree.settle(stacks, now) if self._tree else ({}, {})
        exemplars = self._exemplars(self._engine.take_spans(), gains)
        routes, cost = self._books.settle(seconds)
        self.charge(published=cost, in_budget=cost)
        delays, self._schedule.delays = self._schedule.delays, Delays()
        samples = delays.counts.total()
        others = self._contributions.take()
        batch = Batch(
            functions=MappingProxyType(gains),  # the same for all recorders: nobody can change it
            stacks=MappingProxyType(stacks),
            tree=MappingProxyType(tree),
            routes=MappingProxyType(routes),
            samples=samples,
            missed=delays.missed,
            delays=MappingProxyType(delays.counts),
            delay_seconds=delays.seconds,
            overhead_seconds=self._overhead(now, samples, others),
            errors=MappingProxyType(others.errors),
            retired=MappingProxyType(retired),
            retired_nodes=MappingProxyType(retired_nodes),
            exemplars=MappingProxyType(exemplars),
        )
        for delivery in self._quick:
            delivery.deliver(batch, now)
        for courier in self._couriers:
            courier.deliver(batch, now)
        self.captures.take(stacks, now)
        self.recent.take(batch.stacks, seconds, now)
        self.flushes += 1
        self._schedule.resume(time.monotonic())

    def end(self) -> None:
        """Have the threads of recorders end when they have delivered what they have."""
        for courier in self._couriers:
            courier.end()

    def join(self, deadline: float) -> None:
        """Wait until then, on the monotonic clock, for the end of the threads of recorders."""
        for courier in self._couriers:
            courier.join(max(deadline - time.monotonic(), 0.0))

    def _exemplars(
        self, spans: Mapping[Function, Span], gains: Mapping[Function, Usage]
    ) -> dict[Function, Exemplar]:
        """Return an exemplar for each series that gained CPU in one of the *spans*."""
        epoch = since_epoch() - time.monotonic() if spans else 0.0
        exemplars = {}
        for function, (trace_id, span_id, seen_at) in spans.items():
            home = self._ledger.home(function)
            if cpu_seconds := gains.get(home, NOTHING).self_cpu_seconds:
                ids = f"{trace_id:032x}", f"{span_id:016x}"
                exemplars[home] = Exemplar(*ids, cpu_seconds, epoch + seen_at)
        return exemplars

    def _overhead(self, now: float, samples: int, others: Contribution) -> float:
        """Return the CPU seconds spent since the last batch, by this thread and by *others*."""
        before, self._cpu_seconds = self._cpu_seconds, time.thread_time()
        own = self._cpu_seconds - before + self._engine.cost()
        self._schedule.charge(own + others.in_budget, samples)
        elapsed, self._began = now - self._began, now
        if elapsed > 0:
            weight = elapsed / (elapsed + _SMOOTHING_SECONDS)
            self.overhead_ratio += weight * (
                (own + others.in_budget) / elapsed - self.overhead_ratio
            )
        return own + others.published
