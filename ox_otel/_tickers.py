"""What ticks and looks tell of one thread since the last batch; times in nanoseconds.

What a thread has waited is known to the nanosecond: the time less what its clock says. Where, only
looks can tell, and they tell it of moments. So it is placed when the batch is due, see `_waits`.
"""

from ox_otel._looks import Thread
from ox_otel._tallies import Ids, Tally


class Ticker:
    """The CPU and the waits of one thread that ticks."""

    __slots__ = (
        "due",
        "given_up",
        "handle",
        "ids",
        "running",
        "runs",
        "still",
        "thread",
        "ticked",
        "ticks",
        "used",
        "waited",
        "waits",
    )

    def __init__(self, thread: Thread, handle: int) -> None:
        self.thread = thread
        self.handle = handle
        self.due = 0  # what its clock has counted and no tick stands for yet
        self.given_up = 0  # what no tick came for in time
        self.ids: Ids = thread.ids  # where it ticked last
        self.close()

    def close(self) -> None:
        """Begin a new batch."""
        self.ticks = 0
        self.ticked: dict[Tally, int] = {}  # the CPU of these ticks
        self.waited = 0  # what it waited between looks at different places
        self.waits: dict[Tally, int] = {}  # of that, after which it was seen where
        self.still: dict[Tally, int] = {}  # the time that looks stand for which found it still
        self.running = 0  # the time that looks stand for which found it running
        self.runs = 0  # how many these were
        self.used = 0  # the CPU in all that time

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

    def wait(self, tally: Tally, waited: int) -> None:
        """Take note of so much waiting until it was seen there, be it by who had the GIL."""
        self.waited += waited
        self.waits[tally] = self.waits.get(tally, 0) + waited

    def look(self, tally: Tally | None, elapsed: int, used: int) -> None:
        """Take note that it stands still at the end of that time, or, where None says so, runs."""
        self.used += used
        if tally is None:
            self.runs += 1
            self.running += elapsed
        else:
            self.still[tally] = self.still.get(tally, 0) + elapsed
