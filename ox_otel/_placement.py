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

from opcode import opmap
from types import CodeType

PROMPT = 0.001
"""Seconds: served within them, a wake-up found the GIL free."""

SWITCH = 0.005
"""Seconds after which a waiter forces the holder of the GIL out (`sys.getswitchinterval`)."""

BUSY = 1_000_000
"""Nanoseconds of CPU that are more than a glance at something."""

MAX_SITES = 20_000
"""Call sites remembered; beyond, all evidence is gathered anew."""

_INTERRUPTIBLE = {opmap["RESUME"], opmap["JUMP_BACKWARD"]}
_PROVEN = 2
_CERTAIN = 4  # evidence is not counted beyond, so that a site can change its nature

Site = tuple[int, int]
"""A call site: the id of a known code object, and the offset of the instruction."""


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
