"""Stacks added up within bounds: what a profile is made of."""

from collections.abc import Mapping

from ox_otel.profiles import REST_STACK
from ox_otel.recorders import NOTHING, Stack, Usage

MAX_STACKS = 4_000
"""Stacks that a profile tells apart; those that come later count together."""

MAX_FRAMES = 60_000
"""Frames that its stacks have in all: to write it in any format takes some tens of MiB then."""


class Sum:
    """What each of the *stacks* used; what there is no room for counts for `REST_STACK`."""

    def __init__(self) -> None:
        self.stacks: dict[Stack, Usage] = {}
        self._frames = 0

    def add(self, stacks: Mapping[Stack, Usage]) -> None:
        """Add what these have used."""
        held = self.stacks
        for stack, usage in stacks.items():
            place = stack if stack in held or self._admits(stack) else REST_STACK
            held[place] = held.get(place, NOTHING).plus(usage)

    def _admits(self, stack: Stack) -> bool:
        """Take a place for *stack*, if there is one."""
        frames = self._frames + len(stack)
        if len(self.stacks) >= MAX_STACKS - 1 or frames > MAX_FRAMES:
            return False
        self._frames = frames
        return True
