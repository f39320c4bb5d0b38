"""Was a thread running when it was seen? The estimator behind the CPU seconds.

A sampler that needs the GIL sees a thread only when that one lets go of it: at the beginning of a
call that waits, or after a long call in C. So the CPU that a thread used since the last look must
not simply go to where it is seen now. It goes there only on evidence that the thread was *running*
there; what cannot be placed is said to be unplaced.

A frame that stands where a function begins or a loop comes round was interrupted while it ran: the
interpreter hands over the GIL nowhere else between two instructions. A frame that stands in a call
may have been forced out after it, or may wait in it, and one look cannot tell which. But the place
of the call can, over time, so evidence is gathered by call site:

- *burning*: the clock of the thread goes on while we hold the GIL; or we were kept waiting for the
  GIL as long as it takes to force somebody out (longer, if this thread itself had to wait for a
  core), without being woken in between, and nobody else has used any CPU;
- *waiting*: we got the GIL at once and nobody stood interrupted, so it was free. This counts double:
  on a starved machine we may be late without having forced anybody.

`bench/` has the programs of known truth on which the rule was found and, others, tested.
"""

import time
from opcode import opmap
from types import CodeType

from ox_otel._interpreter import native_id_of, waits_of_ours
from ox_otel._looks import Look, Site
from ox_otel._native import get_native_id
from ox_otel._tasks import core_wait

PROMPT = 0.001
"""Seconds: served within them, a wake-up found the GIL free."""

SWITCH = 0.005
"""Seconds after which a waiter forces the holder of the GIL out (`sys.getswitchinterval`)."""

BUSY = 1_000_000
"""Nanoseconds of CPU that are more than a glance at something."""

MAX_SITES = 20_000
"""Call sites remembered; beyond, all evidence is gathered anew."""

TOO_LONG = 2_000_000
"""Nanoseconds after which a sample has lost the GIL in between, and clocks prove nothing."""

# conditional jumps go backwards in 3.11 only
_INTERRUPTIBLE = {
    code
    for name, code in opmap.items()
    if name in ("RESUME", "JUMP_BACKWARD") or name.startswith("POP_JUMP_BACKWARD")
}
_PROVEN = 2
_CERTAIN = 4  # evidence is not counted beyond, so that a site can change its nature


def is_interruptible(code: CodeType, instruction: int) -> bool:
    """Return whether a frame at this instruction can only have been stopped while it ran."""
    return code.co_code[instruction] in _INTERRUPTIBLE


class Sites:
    """What is known of the call sites at which threads were seen."""

    def __init__(self) -> None:
        self._evidence: dict[Site, int] = {}

    def burns(self, site: Site, *, burning: bool, waiting: bool) -> bool:
        """Weigh new evidence for *site*; return whether threads run there, by all of it."""
        known = self._evidence.get(site, 0)
        if burning:
            known = min(known + 1, _CERTAIN)
        elif waiting:
            known = max(known - 2, -_CERTAIN)
        if known or site in self._evidence:
            self._evidence[site] = known
        if len(self._evidence) > MAX_SITES:
            self.forget()
        return known >= _PROVEN

    def is_certain(self, site: Site) -> bool:
        """Return whether more evidence for burning would change nothing."""
        return self._evidence.get(site, 0) >= _CERTAIN

    def forget(self) -> None:
        """Forget all evidence."""
        self._evidence = {}


class Placement:
    """Tells who was running, sample after sample."""

    def __init__(self) -> None:
        self._sites = Sites()
        self._core_wait = 0  # how long our own thread had waited for a core when last asked
        self._waits = 0  # how often it had waited for anything, when the last sample was over

    def forget(self) -> None:
        """Forget all evidence: ids of code objects mean nothing any more."""
        self._sites.forget()

    def running(self, looks: list[Look], delay: float, others: int) -> list[bool]:
        """Return, for each look of one sample, whether the thread was running.

        *delay* is by how many seconds the sample was late, *others* how many nanoseconds of CPU
        all threads but ours have used since the one before. Lets go of the GIL.
        """
        interrupted = any(look.interrupted for look in looks)
        advancing = [not look.interrupted and _clock_advances(look) for look in looks]
        verdicts = []
        for look, advances in zip(looks, advancing, strict=True):
            running = look.interrupted
            if not running:
                alone = look.used > BUSY and others - look.used < BUSY
                burning = advances or (alone and delay >= SWITCH and self._held(look, delay))
                waiting = delay < PROMPT and not interrupted
                running = self._sites.burns(look.site, burning=burning, waiting=waiting)
            verdicts.append(running)
        self._waits = waits_of_ours()
        return verdicts

    def _held(self, look: Look, delay: float) -> bool:
        """Return whether the GIL was held all the *delay*, and not only because cores were busy."""
        if self._sites.is_certain(look.site):
            return True  # no need to ask, which is dear
        # whoever waits for the GIL looks every 5 ms whether it is still held; woken more often, it
        # was let go of and taken again under our nose, by whoever calls into C and does not burn
        if waits_of_ours() - self._waits > 4 + 2 * delay / SWITCH:
            return False
        thread, clock = look.thread, look.thread.clock
        if clock is None:
            return False
        own_before, self._core_wait = self._core_wait, core_wait(get_native_id())
        before, thread.core_wait = thread.core_wait, core_wait(native_id_of(clock))
        waited = self._core_wait - own_before + thread.core_wait - before
        return delay - 1e-9 * waited >= SWITCH


def _clock_advances(look: Look) -> bool:
    """Return whether the thread's clock has gone on while we hold the GIL."""
    thread = look.thread
    clock, elapsed = thread.clock, time.monotonic_ns() - thread.read_at
    if clock is None or elapsed > TOO_LONG:
        return False
    try:
        return time.clock_gettime_ns(clock) - thread.cpu >= elapsed / 2
    except OSError:  # it is gone
        return False
