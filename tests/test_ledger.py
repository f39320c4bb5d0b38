"""The ledger: bounded, monotonic, conserved (invariants 1 to 3)."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from ox_otel._heat import REMEMBERED, RETIRE_AFTER
from ox_otel._ledger import Ledger
from ox_otel.recorders import NOTHING, OTHER, REST, Batch, Function, Stack, Usage


def usage(hits: int, cpu_seconds: float = 0.0, wait_seconds: float = 0.0) -> Usage:
    """Return the usage of a whole stack, where self and inclusive are the same."""
    return Usage(hits, hits, cpu_seconds, wait_seconds, cpu_seconds, wait_seconds)


def stacks_of(functions: Iterable[Function], hits: int = 1) -> dict[Stack, Usage]:
    """Return one stack for each function, which stands on it alone."""
    return {(function,): usage(hits, cpu_seconds=hits * 0.25) for function in functions}


def functions(module: str, count: int, prefix: str = "f") -> list[Function]:
    """Return *count* functions of *module*."""
    return [Function(module, f"{prefix}{number}") for number in range(count)]


names = st.builds(
    Function, st.sampled_from(["a", "b", "c", OTHER]), st.sampled_from([*"fghijklm", OTHER])
)
# binary fractions, so that sums of floats are exact
seconds = st.integers(0, 100).map(lambda number: number / 64)
batches = st.lists(
    st.tuples(
        st.dictionaries(
            st.lists(names, min_size=1, max_size=6).map(tuple),
            st.builds(usage, st.integers(0, 50), seconds, seconds),
            max_size=12,
        ),
        st.sampled_from([0.0, 1.0, 60.0, RETIRE_AFTER, 10 * RETIRE_AFTER, 1e6]),
    ),
    max_size=25,
)


@given(batches, st.integers(2, 12))
def test_any_stream_is_conserved_bounded_and_monotonic(
    stream: list[tuple[dict[Stack, Usage], float]], limit: int
) -> None:
    """Whatever comes in: sums are exact, series never too many, none ever decreases."""
    ledger = Ledger(limit)
    total = Batch()
    hits, cpu_seconds, wait_seconds, now = 0, 0.0, 0.0, 0.0
    for stacks, elapsed in stream:
        now += elapsed
        gains, retired = ledger.settle(stacks, now)
        hits += sum(used.hits for used in stacks.values())
        cpu_seconds += sum(used.cpu_seconds for used in stacks.values())
        wait_seconds += sum(used.wait_seconds for used in stacks.values())
        before, total = total, total.plus(Batch(gains, retired=retired))

        usages = total.functions.values()
        assert hits == sum(used.self_hits for used in usages)
        assert cpu_seconds == sum(used.self_cpu_seconds for used in usages)
        assert wait_seconds == sum(used.self_wait_seconds for used in usages)
        assert len(total.functions) <= len(ledger) <= limit
        for function, used in total.functions.items():
            assert all(
                new >= old
                for new, old in zip(used, before.functions.get(function, NOTHING), strict=True)
            )
            assert used.self_hits <= used.hits
            assert used.self_cpu_seconds <= used.cpu_seconds


@given(batches)
def test_inclusive_counts_a_stack_once(
    stream: list[tuple[dict[Stack, Usage], float]],
) -> None:
    """No series has more hits than there were stacks, however many frames it stands for."""
    ledger = Ledger(2)  # nearly everything overflows into the same series
    for stacks, elapsed in stream:
        gains, _ = ledger.settle(stacks, elapsed)

        most = sum(used.hits for used in stacks.values())
        assert all(used.hits <= most for used in gains.values())


def test_recursion_counts_once() -> None:
    """A function that stands on a stack many times has one hit for it, and its time once."""
    function = Function("m", "f")
    ledger = Ledger(10)
    gains, _ = ledger.settle({(function,) * 5: usage(3, cpu_seconds=1.5)}, 0.0)

    assert Usage(3, 3, 1.5, 0.0, 1.5, 0.0) == gains[function]


def test_a_function_seen_once_has_no_series() -> None:
    """One hit among many earns nothing: it counts under `__other__`."""
    ledger = Ledger(100)
    hot, cold = Function("m", "hot"), Function("m", "cold")
    gains, _ = ledger.settle({(hot,): usage(50), (hot, cold): usage(1)}, 0.0)

    assert {hot, REST} == gains.keys()
    assert 1 == gains[REST].self_hits


def test_the_module_is_kept_where_only_the_function_overflows() -> None:
    """Fifty thousand generated functions of one module count under its `__other__`."""
    ledger = Ledger(50)
    total = Batch()
    for second in range(50):
        crowd = functions("generated", 1000, prefix=f"s{second}_")
        gains, retired = ledger.settle(stacks_of(crowd), float(second))
        total = total.plus(Batch(gains, retired=retired))

    assert len(total.functions) <= 50
    assert 50_000 == sum(used.self_hits for used in total.functions.values())
    by_module = sum(u.self_hits for f, u in total.functions.items() if f.module == "generated")
    assert by_module > 45_000


def test_modules_overflow_too() -> None:
    """Fifty thousand modules count under the module `__other__`, and take no more series."""
    ledger = Ledger(50)
    total = Batch()
    for second in range(50):
        crowd = [Function(f"m{second}_{number}", "f") for number in range(1000)]
        gains, _ = ledger.settle(stacks_of(crowd), float(second))
        total = total.plus(Batch(gains))

    assert len(total.functions) <= 50
    assert 50_000 == sum(used.self_hits for used in total.functions.values())


def test_start_up_code_does_not_fill_the_table() -> None:
    """After a crowd of start-up functions the ones that are hot later still get their series."""
    ledger = Ledger(60)
    ledger.settle(stacks_of(functions("start", 5000), hits=3), 0.0)
    hot = functions("work", 20)
    for second in range(1, 300):
        gains, _ = ledger.settle(stacks_of(hot, hits=5), float(second))

    assert set(hot) <= gains.keys()


def test_busy_functions_are_named_among_many_idle_threads() -> None:
    """Threads that only wait do not outweigh the function that uses the CPU."""
    ledger = Ledger(40)
    idle = {(function,): usage(50, wait_seconds=1.0) for function in functions("pool", 500)}
    busy = Function("work", "busy")
    for second in range(5):
        gains, _ = ledger.settle({**idle, (busy,): usage(1, cpu_seconds=0.1)}, float(second))

    assert 1 == gains[busy].self_hits


def test_the_hot_set_may_change_completely() -> None:
    """When other functions are hot for long, they have the series and the old ones are retired."""
    ledger = Ledger(30)
    old, new = functions("old", 25), functions("new", 25)
    total, now = Batch(), 0.0
    for hot in (old, new):
        for _ in range(360):
            now += 10.0
            gains, retired = ledger.settle(stacks_of(hot, hits=4), now)
            total = total.plus(Batch(gains, retired=retired))

    named = {function for function in total.functions if function.module == "new"}
    assert len(named & set(new)) >= 20
    assert not named & set(old)
    assert 2 * 25 * 4 * 360 == sum(used.self_hits for used in total.functions.values())


def test_what_is_retired_keeps_its_total_in_a_new_series() -> None:
    """Each retirement has an heir of its own, so that no series jumps up."""
    ledger = Ledger(16)
    total, now = Batch(), 0.0
    heirs: list[Function] = []
    for generation in range(4):
        crowd = functions(f"g{generation}", 12)
        for _ in range(5):
            now += 1.0
            gains, retired = ledger.settle(stacks_of(crowd, hits=5), now)
            before, total = total, total.plus(Batch(gains, retired=retired))
            if retired:
                (heir,) = set(retired.values())
                assert heir not in before.functions
                assert heir not in gains
                heirs.append(heir)
        now += 2 * RETIRE_AFTER

    assert 3 == len(heirs) == len(set(heirs))
    assert 1 == sum(function in total.functions for function in heirs)


def test_a_series_is_retired_only_after_long() -> None:
    """However hot the newcomers are, a series that grew in the last half hour stays."""
    ledger = Ledger(16)
    old, steady, new = functions("old", 10), functions("steady", 3), functions("new", 8)
    ledger.settle(stacks_of([*old, *steady], hits=50), 0.0)
    for now in range(60, 2 * int(RETIRE_AFTER), 60):
        stacks = stacks_of(new, hits=1000) | (stacks_of(steady) if now % 600 == 0 else {})
        gains, retired = ledger.settle(stacks, float(now))

        assert set(retired) <= (set(old) if now >= RETIRE_AFTER else set())
    assert set(new) <= gains.keys()


def test_a_full_table_still_knows_modules() -> None:
    """The last places are kept for `__other__` of modules whose functions find none."""
    ledger = Ledger(32)
    for second in range(20):
        gains, _ = ledger.settle(stacks_of(functions("first", 27), hits=9), float(second))
    for second in range(20, 200):
        gains, _ = ledger.settle(stacks_of(functions("late", 5), hits=900), float(second))

    assert Function("late", OTHER) in gains


def test_candidates_are_bounded() -> None:
    """What has no series is remembered only for the hottest few."""
    ledger = Ledger(50)
    for second in range(200):
        ledger.settle(stacks_of(functions(f"m{second}", 500)), float(second))

    assert len(ledger._heat) <= 4 * 50 + 500


def test_a_stack_that_comes_again_finds_a_series_that_is_new() -> None:
    """As soon as a function has its series, stacks that were there before land in it too."""
    ledger = Ledger(100)
    hot, late = Function("m", "hot"), Function("m", "late")
    again = {(hot, late): usage(1)}
    ledger.settle({(hot,): usage(50), **again}, 0.0)
    gains, _ = ledger.settle({**again, (late,): usage(50)}, 1.0)

    assert {REST: NOTHING, hot: usage(1)._replace(self_hits=0), late: usage(51)} == gains


def test_a_stack_that_comes_again_does_not_find_a_series_that_has_ended() -> None:
    """A series that ends to make room gains nothing, though the last batch had a stack for it."""
    ledger = Ledger(16)
    old, new = functions("old", 12), functions("new", 8)
    for second in range(2):
        ledger.settle(stacks_of(old, hits=50), float(second))
    stacks = stacks_of(old) | stacks_of(new, hits=1000)
    gains, retired = ledger.settle(stacks, 2 * RETIRE_AFTER)

    assert set(old) <= retired.keys()
    assert not gains.keys() & retired.keys()
    assert 12 + 8 * 1000 == sum(used.self_hits for used in gains.values())


def test_where_a_series_ends_for_one_that_then_finds_no_place() -> None:
    """What has ended gains nothing, also where no series has begun in its place."""
    ledger = Ledger(16)
    old = functions("old", 2)
    ledger.settle(stacks_of(old, hits=50), 0.0)
    assert set(old) == ledger._retire(2 * RETIRE_AFTER).keys()
    gains, _ = ledger.settle(stacks_of(old, hits=1), 2 * RETIRE_AFTER)

    assert {REST: usage(2, cpu_seconds=0.5)} == gains


def test_only_stacks_of_the_last_batch_are_remembered() -> None:
    """Where a stack landed is known until the next batch, however many there have been."""
    ledger = Ledger(50)
    for second in range(10):
        ledger.settle(stacks_of(functions(f"m{second}", 100)), float(second))
        assert 100 == len(ledger._landings)
    ledger.settle({}, 10.0)

    assert {} == ledger._landings


def test_of_a_batch_with_very_many_stacks_none_is_remembered() -> None:
    """They would take more memory than they are worth."""
    ledger = Ledger(50)
    ledger.settle(stacks_of(functions("m", REMEMBERED + 1)), 0.0)

    assert {} == ledger._landings
