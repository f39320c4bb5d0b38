"""Deliveries to one recorder: whatever it does, neither the host nor its neighbours notice."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import replace

from ox_otel._fork import uncut
from ox_otel._names import valid
from ox_otel._native import Alarm, Worker, get_ident
from ox_otel._notices import warn
from ox_otel._signals import as_host
from ox_otel.recorders import Batch, Function, Node, Recorder

FIRST_RETRY = 1.0
LAST_RETRY = 60.0
"""Seconds until a recorder that failed is tried again; they double with each failure."""

PATIENCE = 10.0
"""Seconds after which a recorder that has not returned is said to hang."""


class Delivery:
    """Hands batches to *recorder*; what it refuses is kept, merged, without the stacks.

    *on_error* is called with a kind of error whenever it fails.

    Attributes:
        name: the recorder's class.
    """

    def __init__(self, recorder: Recorder, on_error: Callable[[str], None]) -> None:
        self.name = valid(type(recorder).__qualname__)
        self._recorder = recorder
        self._on_error = on_error
        self._held: set[Function | Node] = set()  # by the recorder
        self._kept: Batch | None = None  # what it is being told, or has refused
        self._pause = 0.0
        self._retry_at = 0.0
        self._began: float | None = None  # the call that has not returned yet

    def hangs(self, now: float) -> bool:
        """Return whether the recorder has not returned for longer than `PATIENCE`."""
        began = self._began
        return began is not None and now - began > PATIENCE

    def deliver(self, batch: Batch, now: float) -> None:
        """Hand over *batch* and what was kept, or keep it too."""
        if self._kept is not None:
            batch = merged(self._kept, batch, self._held.intersection)
        self._kept = batch
        if now < self._retry_at:
            return
        self._began = now
        try:
            with uncut:
                self._recorder.record(batch)
        except BaseException as error:  # a SystemExit of its own must not harm the others either
            if not self._pause:  # once, not at every retry
                warn("ox_otel: recorder %s failed: %s", self.name, type(error).__name__)
            self._pause = min(max(2 * self._pause, FIRST_RETRY), LAST_RETRY)
            self._retry_at = now + self._pause
            self._on_error("recorder")
        else:
            self._hold(batch)
            self._kept = None
            self._pause = 0.0
        finally:
            self._began = None

    def concerned(self, some: Iterable[Function | Node]) -> set[Function | Node]:
        """Return which of them the recorder holds, or will with what it is being told.

        Any thread may ask.
        """
        kept = self._kept  # before what is held: once it has been told, it is there
        told = set() if kept is None else _of(kept)
        return {one for one in some if one in self._held or one in told}

    def _hold(self, batch: Batch) -> None:
        """Take note of what the recorder holds now that it has *batch*."""
        self._held.update(batch.functions, batch.tree)
        if batch.retired or batch.retired_nodes:
            self._held.update(batch.retired.values(), batch.retired_nodes.values())
            self._held -= batch.retired.keys() - batch.functions.keys()
            self._held -= batch.retired_nodes.keys() - batch.tree.keys()


def _of(batch: Batch) -> set[Function | Node]:
    """Return the functions and nodes that whoever has been told of *batch* holds."""
    known: set[Function | Node] = set(batch.functions)
    return known.union(batch.tree, batch.retired.values(), batch.retired_nodes.values())


def merged(
    kept: Batch,
    later: Batch,
    concerned: Callable[[Iterable[Function | Node]], AbstractSet[Function | Node]],
) -> Batch:
    """Return two batches as one, which tells of the ends of those *concerned* only.

    What has come and gone while a recorder fails would fill memory, and ends nothing that it holds.
    """
    both = kept.plus(later)
    ended = concerned((*both.retired, *both.retired_nodes))
    return replace(
        both,
        retired={one: heir for one, heir in both.retired.items() if one in ended},
        retired_nodes={one: heir for one, heir in both.retired_nodes.items() if one in ended},
    )


class Courier:
    """Makes a delivery on a thread of its own, where a recorder may be slow, or hang for ever.

    Meanwhile one batch waits for it, to which all others are added. No lock is needed, which a
    recorder that hangs could hold: each step of a deque is whole, and only `deliver` adds to it.

    *charge* is called with the CPU seconds that each delivery has cost.
    """

    def __init__(
        self,
        delivery: Delivery,
        on_error: Callable[[str], None],
        charge: Callable[[float], None],
    ) -> None:
        self.delivery = delivery
        self._on_error = on_error
        self._charge = charge
        self._waiting: deque[Batch] = deque()
        self._alarm = Alarm()
        self._worker: Worker | None = None
        self._ending = False
        self._is_late = False

    def deliver(self, batch: Batch, now: float) -> None:
        """Have *batch* delivered as soon as the recorder returns from the one before."""
        try:
            waiting = self._waiting.pop()
        except IndexError:  # it has been fetched
            pass
        else:
            batch = merged(waiting, batch, self.delivery.concerned)
        self._waiting.append(batch)
        self._ending = False
        try:
            if self._worker is None or not self._worker.alive():
                self._worker = Worker(self._run, "ox_otel_record")
        except (RuntimeError, MemoryError, OSError):  # the next batch tries again
            self._on_error("recorder")
        self._alarm.ring()
        was_late, self._is_late = self._is_late, self.delivery.hangs(now)
        if self._is_late and not was_late:
            self._on_error("recorder")

    def end(self) -> None:
        """Have the thread end when it has delivered what waits."""
        self._ending = True
        self._alarm.ring()

    def join(self, seconds: float) -> None:
        """Wait at most *seconds* for the end of the thread."""
        if self._worker is not None and self._worker.alive() and not self.is_caller():
            self._worker.join(seconds)

    def is_caller(self) -> bool:
        """Return whether it is the recorder that asks."""
        return self._worker is not None and self._worker.ident == get_ident()

    def _run(self) -> None:
        charged = 0.0
        while not (self._ending and not self._waiting):
            self._alarm.wait(None)
            try:
                batch = self._waiting.popleft()
            except IndexError:  # one more is being added to it
                continue
            try:
                with as_host():
                    self.delivery.deliver(batch, time.monotonic())
            except BaseException:  # out of memory, say: the thread goes on
                self._on_error("recorder")
            del batch  # not to be kept until the next one comes
            cpu_seconds = time.thread_time()
            self._charge(cpu_seconds - charged)
            charged = cpu_seconds
