"""What each stack used since the last drain: the one dictionary on the hot path.

Stacks are keyed by the ids of their code objects, leaf first, which `Names` keeps alive.
"""

import sys
from collections.abc import Set as AbstractSet
from itertools import takewhile

from ox_otel._names import Names
from ox_otel.recorders import UNPLACED, Function, Stack, Usage

Ids = tuple[int, ...]


class Tally:
    """What one stack used; times in nanoseconds."""

    __slots__ = ("cpu", "hits", "stack", "wait")

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.hits = self.cpu = self.wait = 0

    def take(self) -> Usage:
        """Return what has been counted and begin anew."""
        cpu, wait = self.cpu * 1e-9, self.wait * 1e-9
        usage = Usage(self.hits, self.hits, cpu, wait, cpu, wait)
        self.hits = self.cpu = self.wait = 0
        return usage


class Tallies:
    """A tally for each stack that was seen lately."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._tallies: dict[Ids, Tally] = {}

    def __len__(self) -> int:
        return len(self._tallies)

    def of(self, ids: Ids) -> Tally:
        """Return the tally of the stack of these known code objects."""
        tally = self._tallies.get(ids)
        if tally is None:
            tally = self._tallies[ids] = Tally(self._names.stack(ids))
        return tally

    def unplaced(self, before: Ids, after: Ids) -> Tally:
        """Return the tally for CPU used somewhere below the callers that two stacks share.

        Callers in the standard library at the top of these are left out: they mostly belong to the
        call that waits, not to the work that was done in between.
        """
        pairs = zip(reversed(before), reversed(after), strict=False)
        shared = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)][::-1]
        key = (0, *shared)  # no code object has the id 0
        tally = self._tallies.get(key)
        if tally is None:
            callers = list(self._names.stack(shared))
            while len(callers) > 1 and _is_standard(callers[-1].module):
                callers.pop()
            unplaced = Function(callers[-1].module, UNPLACED)
            tally = self._tallies[key] = Tally((*callers, unplaced))
        return tally

    def take(self, standing: AbstractSet[Tally]) -> dict[Stack, Usage]:
        """Return what each stack used, and forget those neither used nor still *standing*."""
        stacks: dict[Stack, Usage] = {}
        over: list[Ids] = []
        for ids, tally in self._tallies.items():
            if tally.hits or tally.wait or tally.cpu:
                usage = tally.take()
                # one lookup for nearly all: long keys are dear to hash
                before = stacks.setdefault(tally.stack, usage)
                if before is not usage:
                    stacks[tally.stack] = before.plus(usage)
            elif tally not in standing:
                over.append(ids)
        for ids in over:
            del self._tallies[ids]
        return stacks

    def forget(self) -> None:
        """Forget all stacks: their ids mean nothing any more."""
        self._tallies = {}


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names and module != "__main__"
