"""Which node of the calling-context tree does an increment land in? Bounded and conserved.

A node earns its series by being hot, and only below a parent that has one. What has none stays in
the self time of the nearest node above that has: so the self times of all nodes are all the time
observed, and a node with all below it never has less than its children.

The path of a node has a token a level, which is a checksum of the function's name: the same in
every process, so that the trees of a fleet add up. Where the tokens of two siblings are the same
(one pair in twelve million), the later one gets no node and stays in its parent.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush
from math import inf
from zlib import crc32

from ox_otel._heat import REMEMBERED, RETIRE_AFTER, Heat
from ox_otel.profiles import TIMES
from ox_otel.recorders import OTHER, TOKEN_LENGTH, Function, Node, Stack, Usage

SERIES_PER_NODE = 2
"""Its time with all that it called, and its own."""

DEPTH = 64
"""Levels below the root; what is deeper stays in the node at this level."""

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def token(label: str) -> str:
    """Return the letters that stand for a function in paths, in whichever process it runs."""
    number, letters = crc32(label.encode("utf-8")), ""
    for _ in range(TOKEN_LENGTH):
        number, place = divmod(number, len(_LETTERS))
        letters += _LETTERS[place]
    return letters


def folded(stack: Stack) -> Stack:
    """Return *stack* without its recursion.

    A function that calls itself counts once. Where a call (of one function by another) is on the
    path already, the path goes back to it: a, b, a, b, c is a, b, c. But a, b, a, c stays: there
    no call repeats, and b may be something else that is called through a decorator's wrapper, a.
    """
    if len(set(stack)) == len(stack):
        return stack
    calls: dict[tuple[Function | None, Function], int] = {}  # and their places on the path
    caller = None
    for function in stack:
        if function != caller:
            place = calls.setdefault((caller, function), len(calls))
            while len(calls) > place + 1:
                calls.popitem()
            caller = function
    return tuple([function for _, function in calls])


Candidate = tuple[str, Function]
"""What may become a branch: the path of the branch that it stands on, and its function."""


class _Branch:
    """A node that has its series, and the branches below it."""

    __slots__ = ("children", "last_used", "node")

    def __init__(self, node: Node, now: float) -> None:
        self.node = node
        self.children: dict[Function, _Branch] = {}
        self.last_used = now

    def nodes(self) -> Iterator[Node]:
        """Yield the node and all below it."""
        yield self.node
        for child in self.children.values():
            yield from child.nodes()


class _Climb:
    """How far a stack has come: the branches that it has reached, of the path that it takes."""

    __slots__ = ("branches", "hits", "nanoseconds", "path")

    def __init__(self, root: _Branch, path: Stack) -> None:
        self.branches = [root]
        self.path = path
        self.hits = self.nanoseconds = 0

    def up(self) -> None:
        """Go on as far as there are branches."""
        path, branches = self.path, self.branches
        while len(branches) <= len(path):
            child = branches[-1].children.get(path[len(branches) - 1])
            if child is None:
                break
            branches.append(child)

    def candidate(self) -> Candidate | None:
        """Return what may become the next branch; None at the end of the path."""
        level = len(self.branches) - 1
        if level == len(self.path):
            return None
        return self.branches[-1].node.path, self.path[level]


class Tree:
    """Assigns what stacks used to at most *limit* nodes; *time* is one of `TIMES`."""

    def __init__(self, limit: int, time: str) -> None:
        self._limit = limit
        self._time = TIMES[time]
        self._root = _Branch(Node(token("total"), 0, "total"), 0.0)
        self._branches = {self._root.node.path: self._root}
        self._heat: Heat[Candidate] = Heat(limit)
        self._retirements = 0
        # the climbs of the last batch, if it was small: they go on where they were. No
        # branch ends below them, since only those do that no stack of a batch has reached
        self._last: dict[Stack, _Climb] = {}

    def __len__(self) -> int:
        return len(self._branches)

    def settle(
        self, stacks: Mapping[Stack, Usage], now: float
    ) -> tuple[dict[Node, int], dict[Node, Node]]:
        """Return what the self time of each node gains, and the nodes that end, with their heirs.

        What gains is a tree by itself: the nodes above are there too.

        *now* is in seconds of any clock that does not go back.
        """
        self._heat.cool(now)
        climbs = self._climbs(stacks, now)
        hits = max(sum(climb.hits for climb in climbs), len(climbs))
        self._heat.observe(hits)
        nanoseconds = sum(climb.nanoseconds for climb in climbs)
        # the heat is as many hits as there were, shared out by time
        admitted, retired = self._admit(climbs, hits / max(nanoseconds, 1), now)

        gains = {self._root.node: 0}
        for climb in climbs:
            for branch in reversed(climb.branches):
                if branch.node in gains:
                    break  # and so are those above
                gains[branch.node] = 0
            gains[climb.branches[-1].node] += climb.nanoseconds
        for node in admitted:
            path = node.path
            while (above := self._branches[path].node) not in gains:
                gains[above] = 0
                path = path[:-TOKEN_LENGTH]
        if len(stacks) > REMEMBERED:
            self._last = {}
        return gains, retired

    def _climbs(self, stacks: Mapping[Stack, Usage], now: float) -> Collection[_Climb]:
        """Let each stack that used any time climb as far as there are branches."""
        self._root.last_used = now
        before, self._last = self._last, {}
        for stack, usage in stacks.items():
            nanoseconds = round(1e9 * self._time(usage))
            if not nanoseconds:
                continue
            climb = before.get(stack) or _Climb(self._root, folded(stack)[:DEPTH])
            climb.hits, climb.nanoseconds = usage.hits, nanoseconds
            climb.up()
            for branch in climb.branches:
                branch.last_used = now
            self._last[stack] = climb
        return self._last.values()

    def _admit(
        self, climbs: Iterable[_Climb], heat_of_a_nanosecond: float, now: float
    ) -> tuple[list[Node], dict[Node, Node]]:
        """Make branches of the candidates that have earned it, and let the climbs go on there.

        The hottest comes first, whatever its level: a hot path is followed to its end before what
        is colder has a place. Return the new nodes, and those that ended to make room.
        """
        admitted: list[Node] = []
        retired: dict[Node, Node] | None = None
        waiting: dict[Candidate, list[_Climb]] = {}
        self._wait(climbs, waiting, heat_of_a_nanosecond)
        queue = [(-heat, candidate) for heat, candidate in self._heat.worthy()]
        heapify(queue)
        while queue:
            heat, candidate = heappop(queue)
            if retired is None and len(self) >= self._limit and self._heat.matters(-heat):
                retired = self._retire(now)
            if not self._has_room(-heat):
                break
            self._heat.forget(candidate)
            branch = self._grow(*candidate, now)
            if branch is not None:
                admitted.append(branch.node)
                climbing = waiting.pop(candidate, [])
                for climb in climbing:
                    climb.up()
                new = self._wait(climbing, waiting, heat_of_a_nanosecond)
                for heat, candidate in self._heat.worthy(new):
                    heappush(queue, (-heat, candidate))
        return admitted, retired or {}

    def _wait(
        self,
        climbs: Iterable[_Climb],
        waiting: dict[Candidate, list[_Climb]],
        heat_of_a_nanosecond: float,
    ) -> set[Candidate]:
        """Let *climbs* wait for their candidates, which they warm; return these."""
        candidates = set()
        for climb in climbs:
            candidate = climb.candidate()
            if candidate is not None:
                waiting.setdefault(candidate, []).append(climb)
                self._heat.warm([candidate], climb.nanoseconds * heat_of_a_nanosecond)
                candidates.add(candidate)
        return candidates

    def _has_room(self, heat: float) -> bool:
        # a quarter is enough for what was seen a few times: hot paths are long
        limit = self._limit if self._heat.matters(heat) else self._limit // 4
        return len(self) < limit

    def _grow(self, path: str, function: Function, now: float) -> _Branch | None:
        """Return a new branch below the one with this *path*.

        None if there is none with this path any more, or if a sibling has the same token.
        """
        parent = self._branches.get(path)
        path += token(str(function))
        if parent is None or path in self._branches:
            return None
        branch = _Branch(Node(path, parent.node.level + 1, str(function)), now)
        self._branches[path] = parent.children[function] = branch
        return branch

    def _retire(self, now: float) -> dict[Node, Node]:
        """End the nodes that have not grown for long, where that makes room.

        The nodes that end below one parent have an heir there that is new each time: it appears
        with their self times and stays flat, so that no rate sees these a second time, and the
        nodes above have what they had.
        """
        retired: dict[Node, Node] = {}
        for parent in list(self._branches.values()):
            if now - parent.last_used >= RETIRE_AFTER:
                continue
            old = {f: b for f, b in parent.children.items() if now - b.last_used >= RETIRE_AFTER}
            nodes = [node for branch in old.values() for node in branch.nodes()]
            if len(nodes) < 2:  # one place goes to the heir
                continue
            for function in old:
                del parent.children[function]
            for node in nodes:
                del self._branches[node.path]
            heir = None
            while heir is None:
                self._retirements += 1
                name = Function(OTHER, f"__retired_{self._retirements}__")
                heir = self._grow(parent.node.path, name, -inf)  # it ends with the next ones
            retired |= dict.fromkeys(nodes, heir.node)
        return retired
