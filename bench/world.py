"""A process to look at: threads that wait, threads that work, each some frames deep."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def at_depth(depth: int, act: Callable[[], object]) -> None:
    """Call *act* with about *depth* frames below it."""
    if depth > 1:
        at_depth(depth - 1, act)
    else:
        act()


def _add() -> int:
    return sum(number * number for number in range(300))


def _join() -> str:
    return ",".join(map(str, range(300)))


def _sort() -> list[int]:
    return sorted(range(300), key=lambda number: number % 7)


@contextmanager
def world(parked: int, depth: int, busy: int, nap: float = 0.0) -> Iterator[None]:
    """Have *parked* threads wait and *busy* ones work in Python, all of them *depth* frames deep.

    With *nap* the parked threads are restless: they wait that many seconds at a time.
    """
    over = threading.Event()

    def wait() -> None:
        while not over.wait(nap or None):
            pass

    def work() -> None:
        while not over.is_set():
            for step in (_add, _join, _sort):
                step()

    threads = [threading.Thread(target=at_depth, args=(depth, wait)) for _ in range(parked)]
    threads += [threading.Thread(target=at_depth, args=(depth, work)) for _ in range(busy)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)  # until they are where they stay
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
