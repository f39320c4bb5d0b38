"""The behaviour that every recorder must have, as one check for whoever writes a recorder."""

import gc
import math
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

from ox_otel.recorders import NOTHING, OTHER, REST, Batch, Function, Recorder, Stack, Usage

ROUNDS = 400
KEPT_BYTES_PER_ROUND = 100
"""How much memory a batch may leave behind in the end."""


def check_recorder(
    recorder: Recorder, read: Callable[[], Mapping[Function, Usage] | Mapping[str, Usage]]
) -> None:
    """Check that *recorder* does what is demanded of a recorder.

    *recorder* has not been told anything yet. *read* returns what its backend holds as soon as
    everything recorded has arrived there: what each function used since the start, by `Function`
    or by its text, `module.function`.

    The recorder is told of some dozen functions, in batches, on a thread that is not the caller's:

    - after each batch every function holds the sum of all that it was given, hits exactly and
      seconds to float accuracy, and nothing else holds anything. So no figure gets lost, counts
      twice or decreases;
    - this is so for every valid name, whatever quotes, escapes, separators or scripts it is in;
    - a series that is retired is gone (to show it at 0 would be a decrease), its heir carries its
      total on, and a function of the same name begins anew;
    - an empty batch changes nothing;
    - no batch is changed, neither at once nor later;
    - the same functions over and over, or others that come and are retired, fill no memory.

    Raises:
        AssertionError: the recorder does something else; the message says what.
    """
    given: list[tuple[Batch, Batch]] = []
    total = Batch()
    with ThreadPoolExecutor(max_workers=1) as profiler:

        def record(batch: Batch) -> None:
            try:
                profiler.submit(recorder.record, batch).result()
            except Exception as error:
                raise AssertionError(f"record raised {error!r}") from error

        for what, batch in _history():
            untouched = deepcopy(batch)
            given.append((batch, untouched))
            record(batch)
            if any(batch != untouched for batch, untouched in given):
                raise AssertionError(f"after {what}: a batch has been changed")
            total = total.plus(untouched)
            _compare(what, total, {str(function): usage for function, usage in read().items()})
        _check_memory(record)


HOT = Function("shop.cart", "Cart.total")
COLD = Function("shop.cart", "Cart.load")
NAMESAKE = Function("shop.stock", "Cart.load")
AWKWARD = (
    Function('a "quoted" module', "it's"),
    Function("back\\slash", "\\n\\\\"),
    Function("модуль", "日本語_🦊"),
    Function("m" * 150, "f" * 150),
    Function("a,b=c;d", "{e}%s|f"),
    Function(" ", "outer.<locals>.<lambda>"),
    REST,
)


def _history() -> Iterator[tuple[str, Batch]]:
    """Yield batches, each with what it is."""
    first, second = Function(OTHER, "__retired_1__"), Function(OTHER, "__retired_2__")
    yield "the first batch", _batch(HOT, COLD, NAMESAKE)
    yield "the same functions again", _batch(COLD, HOT)
    yield "an empty batch", Batch()
    yield "awkward names", _batch(*AWKWARD)
    yield "the same awkward names again", _batch(*AWKWARD)
    yield "the end of two series", _batch(HOT, retired={COLD: first, NAMESAKE: first})
    yield "the return of a retired function", _batch(COLD)
    yield (
        "another end and return, in one batch",
        _batch(COLD, retired=dict.fromkeys(AWKWARD, first) | {COLD: first}),
    )
    yield "the end of an heir", _batch(HOT, retired={first: second})
    yield "an empty batch at the end", Batch()


def _batch(*functions: Function, retired: Mapping[Function, Function] | None = None) -> Batch:
    """Return a batch in which no two functions, nor two figures of one, are the same."""
    usages = {
        function: Usage(7 * n, 5 * n, 0.4 * n, 0.3 * n, 0.2 * n, 0.1 * n)
        for n, function in enumerate(functions, 1)
    }
    stacks: dict[Stack, Usage] = {(function,): usage for function, usage in usages.items()}
    return Batch(usages, stacks, samples=1, retired=retired or {})


def _compare(what: str, total: Batch, found: Mapping[str, Usage]) -> None:
    expected = {str(function): usage for function, usage in total.functions.items()}
    ended = {str(function) for function in total.retired} - expected.keys()
    for name in expected.keys() | found.keys():
        wanted, held = expected.get(name, NOTHING), found.get(name, NOTHING)
        if not all(
            math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
            for one, other in zip(wanted, held, strict=True)
        ):
            raise AssertionError(f"after {what}: {name} should hold {wanted}, and holds {held}")
        if name in ended and name in found:
            raise AssertionError(f"after {what}: {name} has been retired, and is still there")


def _check_memory(record: Callable[[Batch], None]) -> None:
    """Record the same functions over and over, and others that come and go."""
    was_tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        before = _traced_bytes(record, range(ROUNDS))
        kept = (_traced_bytes(record, range(ROUNDS, 2 * ROUNDS)) - before) / ROUNDS
    finally:
        if not was_tracing:
            tracemalloc.stop()
    if kept > KEPT_BYTES_PER_ROUND:
        raise AssertionError(
            f"each batch leaves {kept:.0f} bytes behind, though what was new has been retired"
        )


def _traced_bytes(record: Callable[[Batch], None], rounds: range) -> int:
    """Return the bytes in use after a batch for each of *rounds*."""
    for n in rounds:
        ended, heir = Function("generated", f"f{n - 1}"), Function(OTHER, f"__retired_{n}__")
        last_heir = Function(OTHER, f"__retired_{n - 1}__")
        new = Function("generated", f"f{n}")
        record(_batch(HOT, COLD, new, retired={ended: heir, last_heir: heir}))
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
