"""What ticks and looks tell of one thread since the last batch; times in nanoseconds.

What a thread has waited is known to the nanosecond: the time less what its clock says. Where, is
only known of the moment of a look. So it is counted there at first, and placed anew when the batch
is due, see `_waits`.
"""

from ox_otel._looks import Thread
from ox_otel._tallies import Ids, Tally


class Sample:
    """One sample, as far as the looks that it takes have to do with each other."""

    __slots__ = ("late", "used")

    def __init__(self, *, late: bool) -> None:
        self.late = late  # somebody had the GIL when it was due
        self.used = 0  # CPU of all threads that it looked at, since the last look at each


class Ticker:
    """The CPU and the waits of one thread that ticks."""

    __slots__ = (
        "_last",
        "core_wait",
        "due",
        "given_up",
        "handle",
        "held",
        "ids",
        "prompt",
        "seen",
        "thread",
        "ticked",
        "ticks",
        "waits",
    )

    def __init__(self, thread: Thread, handle: int) -> None:
        self.thread = thread
        self.handle = handle
        self.due = 0  # what its clock has counted and no tick stands for yet
        self.given_up = 0  # what no tick came for in time
        self.ids: Ids = thread.ids  # where it ticked last
        self.core_wait: int | None = None  # until the last batch, if that asked for it
        self.close()

    def close(self) -> None:
        """Begin a new batch."""
        self.ticks = 0
        self.ticked: dict[Tally, int] = {}  # the CPU of these ticks
        self.waits: dict[Tally, int] = {}  # what has been counted as waiting
        self.seen: dict[Tally, int] = {}  # the time that looks stand for, but what it held the GIL
        self.prompt: dict[Tally, int] = {}  # the part of that by samples that were not late
        self.held = 0
        self._last: tuple[Tally, int, int, Sample] | None = None  # what `settle` has yet to count

    def tick(self, tally: Tally, ticks: int, cpu: int) -> None:
        """Count *ticks* that stand for so much *cpu*, less what has been given up."""
        late = min(cpu, self.given_up)
        self.given_up -= late
        cpu -= late
        tally.cpu += cpu
        self.due -= cpu
        self.ticks += ticks
        if cpu:  # or nothing is known of the place
            self.ticked[tally] = self.ticked.get(tally, 0) + cpu

    def look(self, tally: Tally, elapsed: int, used: int, sample: Sample) -> None:
        """Count the time since the last look; what of it was not *used* as waiting where it is seen."""
        self.settle()
        sample.used += used
        waited = elapsed - used
        tally.wait += waited
        self.waits[tally] = self.waits.get(tally, 0) + waited
        self._last = tally, elapsed, used, sample

    def settle(self) -> None:
        """Count the last look, once its sample is over, for where the thread was when that was due.

        A sample that was late has waited for the GIL. Whoever had it is seen where it let go of it,
        mostly as it begins to wait, but was burning before. Who that was is not known; a thread is
        the likelier the more of the CPU it has used.
        """
        if self._last:
            tally, elapsed, used, sample = self._last
            held = elapsed * used // sample.used if sample.late and used else 0
            self.held += held
            self.seen[tally] = self.seen.get(tally, 0) + elapsed - held
            if not sample.late:
                self.prompt[tally] = self.prompt.get(tally, 0) + elapsed
            self._last = None

    @property
    def waited(self) -> int:
        """How long it has waited since the last batch, if it has ticked as well."""
        return sum(self.waits.values()) if self.ticked else 0
