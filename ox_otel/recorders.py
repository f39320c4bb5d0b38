"""What a recorder is told, and the recorder that keeps it in memory.

Everything that a third party needs to write a recorder stands here and in `ox_otel.testing`:
a recorder is any object with one method, `record`, that takes a `Batch`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from operator import add
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

K = TypeVar("K")
V = TypeVar("V")

OTHER = "__other__"
"""The module or function under which everything counts that has no series of its own."""

UNPLACED = "__unplaced__"
"""The function under which CPU time counts of which only the caller's module is known."""


UNMATCHED = "__unmatched__"
"""The route under which requests count that no route of the application has matched."""


class Function(NamedTuple):
    """A function by name: valid, printable text of at most 150 characters each.

    *module* is the `__name__` of its globals, *name* the `co_qualname` of its code.
    """

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


Stack = tuple[Function, ...]
"""The functions of one stack, outermost first."""


class Usage(NamedTuple):
    """What a function or a stack used; times are thread-seconds.

    *hits* and the plain times count stacks with the function anywhere on them, once a stack
    however deep it recurses; the *self* ones count stacks with the function at the top.
    For a whole stack both are the same.
    """

    hits: int = 0
    self_hits: int = 0
    cpu_seconds: float = 0.0
    wait_seconds: float = 0.0
    self_cpu_seconds: float = 0.0
    self_wait_seconds: float = 0.0

    def plus(self, other: "Usage") -> "Usage":
        """Return the sum, field by field."""
        return Usage(
            self.hits + other.hits,
            self.self_hits + other.self_hits,
            self.cpu_seconds + other.cpu_seconds,
            self.wait_seconds + other.wait_seconds,
            self.self_cpu_seconds + other.self_cpu_seconds,
            self.self_wait_seconds + other.self_wait_seconds,
        )


NOTHING = Usage()

REST = Function(OTHER, OTHER)
"""What everything counts for that has no series of its own, nor its module one."""


class Exemplar(NamedTuple):
    """A span of a trace in which a function was seen running, at the top of the stack.

    *trace_id* (32 hexadecimal digits) and *span_id* (16) are OpenTelemetry's; the span is one that
    is sampled. *cpu_seconds* is what the function gained in that batch, *seen_at* when it was seen,
    in seconds since 1970.
    """

    trace_id: str
    span_id: str
    cpu_seconds: float
    seen_at: float


class RouteUsage(NamedTuple):
    """What requests of one route used; *cpu_seconds* are of all threads that worked for them.

    *requests* are those that are over. *wait_seconds* is the rest of the time that they took.
    """

    requests: int = 0
    cpu_seconds: float = 0.0
    wait_seconds: float = 0.0

    def plus(self, other: "RouteUsage") -> "RouteUsage":
        """Return the sum, field by field."""
        return RouteUsage(
            self.requests + other.requests,
            self.cpu_seconds + other.cpu_seconds,
            self.wait_seconds + other.wait_seconds,
        )


TOKEN_LENGTH = 5
"""Letters that a node's path has for each level."""


class Node(NamedTuple):
    """A node of the calling-context tree: a function as called by those above it, root at the top.

    *path* has `TOKEN_LENGTH` letters from a to z for each level, the root's first: sorted by it,
    nodes stand in the order of a walk through the tree. *level* is the depth, that of the root 0.
    *label* is the function as `module.function`.
    """

    path: str
    level: int
    label: str


def inclusive(tree: Mapping[Node, int]) -> dict[Node, int]:
    """Return the time of each node with all below it, given the self times."""
    times = {node.path: time for node, time in tree.items()}
    for path in sorted(times, reverse=True):  # what is below comes first
        parent = path[:-TOKEN_LENGTH]
        if parent in times:
            times[parent] += times[path]
    return {node: times[node.path] for node in tree}


@dataclass(frozen=True, slots=True)
class Batch:
    """What happened since the last batch (or, as a snapshot, since the start).

    The number of functions is bounded and every stack counts in exactly one of them: the sum of
    their self hits is the number of stacks seen, the sum of their self seconds all the time
    observed.

    Attributes:
        functions: what each function used, `OTHER` and `UNPLACED` included.
        stacks: what each stack used; empty in a snapshot.
        tree: self time of each node of the calling-context tree, in whole nanoseconds: their sum
            is all the time observed in the state that the tree is of, exactly and in any order.
            With each node the ones above it are there. Empty where there is no tree.
        routes: what requests used, by the route that they took; `OTHER` and `UNMATCHED` included.
        samples: samples taken; one sample looks at all threads at one instant.
        missed: samples that came too late to be taken.
        delays: samples by how late they were taken: how many up to each bound in seconds, counted
            under the lowest bound that holds.
        delay_seconds: how late all samples were, together.
        overhead_seconds: CPU seconds that profiling cost.
        errors: what went wrong, counted by kind.
        retired: series that end with this batch, each with the series that carries its total on.
        retired_nodes: the same for nodes of the tree.
        exemplars: for functions that gained self CPU in a span, one such span, the latest.
    """

    functions: Mapping[Function, Usage] = field(default_factory=dict)
    stacks: Mapping[Stack, Usage] = field(default_factory=dict)
    tree: Mapping[Node, int] = field(default_factory=dict)
    routes: Mapping[str, RouteUsage] = field(default_factory=dict)
    samples: int = 0
    missed: int = 0
    delays: Mapping[float, int] = field(default_factory=dict)
    delay_seconds: float = 0.0
    overhead_seconds: float = 0.0
    errors: Mapping[str, int] = field(default_factory=dict)
    retired: Mapping[Function, Function] = field(default_factory=dict)
    retired_nodes: Mapping[Node, Node] = field(default_factory=dict)
    exemplars: Mapping[Function, Exemplar] = field(default_factory=dict)

    def plus(self, later: "Batch") -> "Batch":
        """Return this batch and a *later* one as one, without the stacks: these have no bound."""
        return replace(
            _total(self, later),
            retired=_chained(self.retired, later.retired),
            retired_nodes=_chained(self.retired_nodes, later.retired_nodes),
        )


def _total(first: Batch, later: Batch) -> Batch:
    """Return the sum of both, which has nobody to tell what was retired on the way."""
    return Batch(
        functions=_grown(first.functions, later.functions, later.retired, Usage.plus),
        tree=_grown(first.tree, later.tree, later.retired_nodes, add),
        routes=_grown(first.routes, later.routes, {}, RouteUsage.plus),
        samples=first.samples + later.samples,
        missed=first.missed + later.missed,
        delays=_grown(first.delays, later.delays, {}, add),
        delay_seconds=first.delay_seconds + later.delay_seconds,
        overhead_seconds=first.overhead_seconds + later.overhead_seconds,
        errors=_grown(first.errors, later.errors, {}, add),
        exemplars={
            **{f: e for f, e in first.exemplars.items() if f not in later.retired},
            **later.exemplars,
        },
    )


def _grown(
    totals: Mapping[K, V], gains: Mapping[K, V], retired: Mapping[K, K], plus: Callable[[V, V], V]
) -> Mapping[K, V]:
    """Return *totals* with those that have ended moved to their heirs, and with their gains."""
    if not gains and not retired:
        return totals
    grown = dict(totals)
    moved = [(heir, grown.pop(ended)) for ended, heir in retired.items() if ended in grown]
    for key, gain in (*moved, *gains.items()):
        before = grown.get(key)
        grown[key] = gain if before is None else plus(before, gain)
    return grown


def _chained(first: Mapping[K, K], second: Mapping[K, K]) -> dict[K, K]:
    """Return the heirs of both, straight to the last one."""
    return {**{ended: second.get(heir, heir) for ended, heir in first.items()}, **second}


@runtime_checkable
class Recorder(Protocol):
    """Whoever wants the facts.

    The profiler calls `record` about once a second, from a thread that is there for this recorder
    alone. Who takes longer gets what has happened meanwhile as one batch, without the stacks.
    An exception is counted, reported once and never reaches the host or another recorder; the
    recorder gets the same facts again, merged into a later batch, so it must take a batch whole
    or not at all.
    """

    def record(self, batch: Batch) -> None:
        """Take what happened since the last batch."""


class Record(NamedTuple):
    """One line of an answer: a function and what it used since the start."""

    function: Function
    usage: Usage

    @property
    def name(self) -> str:
        """The function as `module.function`."""
        return str(self.function)

    @property
    def hits(self) -> int:
        """Stacks seen with the function anywhere on them."""
        return self.usage.hits


class Answer(NamedTuple):
    """What a query found: the first *records*, and how many match in *total*."""

    records: tuple[Record, ...]
    total: int


class CountingRecorder:
    """Keeps the sum of all batches in memory, without their stacks."""

    def __init__(self) -> None:
        self._total = Batch()

    def record(self, batch: Batch) -> None:
        """Add *batch*; one assignment publishes it, so that readers need no lock."""
        self._total = _total(self._total, batch)

    def snapshot(self) -> Batch:
        """Return all that happened since the start."""
        return self._total

    def query(self, pattern: str = "*", limit: int = 10) -> Answer:
        """Return the *limit* functions hottest at the top of the stack.

        *pattern* is a glob over `module.function`. CPU comes before waiting.
        """
        found = [
            Record(function, usage)
            for function, usage in self._total.functions.items()
            if fnmatchcase(str(function), pattern)
        ]
        found.sort(key=_heat, reverse=True)
        return Answer(tuple(found[: max(limit, 0)]), len(found))

    def show(self, limit: int = 10) -> str:
        """Return the first *limit* functions as a table for people."""
        records, total = self.query(limit=limit)
        lines = [
            f"top {len(records)} of {total} functions, thread-seconds since the start",
            f"{'self cpu':>9} {'cpu':>9} {'self wait':>9} {'wait':>9} {'hits':>8}  function",
        ]
        lines += [
            f"{usage.self_cpu_seconds:9.2f} {usage.cpu_seconds:9.2f}"
            f" {usage.self_wait_seconds:9.2f} {usage.wait_seconds:9.2f}"
            f" {usage.hits:8d}  {function}"
            for function, usage in records
        ]
        return "\n".join(lines)


def _heat(record: Record) -> tuple[float, float, int]:
    usage = record.usage
    return usage.self_cpu_seconds, usage.self_wait_seconds, usage.hits
