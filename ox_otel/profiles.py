"""Profiles: what each stack used in a window of time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ox_otel.recorders import (
    NOTHING,
    REST,
    TOKEN_LENGTH,
    Batch,
    Function,
    Node,
    Stack,
    Usage,
)

TIMES: Mapping[str, Callable[[Usage], float]] = {
    "cpu": lambda usage: usage.cpu_seconds,
    "wait": lambda usage: usage.wait_seconds,
    "wall": lambda usage: usage.cpu_seconds + usage.wait_seconds,
}
"""The times that a profile can be looked at by, in thread-seconds; *wall* is both others."""

REST_STACK: Stack = (REST,)
"""The stack under which all those count that a profile has no room for."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What each stack used in a window of time.

    Attributes:
        stacks: their number is bounded, and every stack seen counts in one of them, so that they
            add up to all that was observed.
        started: when the window began, in seconds of Unix time.
        seconds: how long the window is.
        interval: mean seconds between two samples, with ticks a fifth of that.
        times: those of `TIMES` that are known; the others are not all there.
    """

    stacks: Mapping[Stack, Usage]
    started: float
    seconds: float
    interval: float
    times: tuple[str, ...] = tuple(TIMES)

    def nanoseconds(self, time: str) -> dict[Stack, int]:
        """Return the time of each stack that has any, in whole nanoseconds.

        Raises:
            ValueError: this *time* is not known.
        """
        if time not in self.times:
            raise ValueError(f"{time} is not known here; there is {', '.join(self.times)}")
        seconds = TIMES[time]
        rounded = {stack: round(1e9 * seconds(usage)) for stack, usage in self.stacks.items()}
        return {stack: nanoseconds for stack, nanoseconds in rounded.items() if nanoseconds}


def stacks_of_tree(snapshot: Batch, time: str) -> dict[Stack, Usage]:
    """Return the nodes of the tree of *snapshot*, which is of this *time*, as stacks.

    They have no hits. All of a wall time stands as waiting, since nobody knows its parts.
    """
    functions = {str(function): function for function in snapshot.functions}
    nodes = {node.path: node for node in snapshot.tree}
    stacks: dict[Stack, Usage] = {}
    for node, nanoseconds in snapshot.tree.items():
        stack = tuple(
            [
                _function(nodes[node.path[:end]], functions)
                for end in range(2 * TOKEN_LENGTH, len(node.path) + 1, TOKEN_LENGTH)
            ]
        )
        usage = _usage(nanoseconds / 1e9, time)
        stacks[stack or REST_STACK] = stacks.get(stack or REST_STACK, NOTHING).plus(usage)
    return stacks


def _function(node: Node, known: Mapping[str, Function]) -> Function:
    """Return the function of *node*: its label alone does not tell where the module's name ends."""
    module, _, name = node.label.partition(".")
    return known.get(node.label) or Function(module, name)


def _usage(seconds: float, time: str) -> Usage:
    if time == "cpu":
        return Usage(cpu_seconds=seconds, self_cpu_seconds=seconds)
    return Usage(wait_seconds=seconds, self_wait_seconds=seconds)
