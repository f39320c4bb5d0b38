"""Contributions to a batch: any thread adds to them, whatever it is doing, and nothing is lost."""

import signal
import threading

import pytest

from ox_otel._contributions import MANY, Contribution, Contributions

NOTHING = Contribution({}, 0.0, 0.0)


def test_what_was_added_is_taken_once() -> None:
    """The sum of all that was added is there for whoever takes it, then no more."""
    contributions = Contributions()
    contributions.add("scrape")
    contributions.add("scrape")
    contributions.add("request", published=0.5)
    contributions.add(published=0.25, in_budget=1.0)

    assert ({"scrape": 2, "request": 1}, 0.75, 1.0) == contributions.take()
    assert NOTHING == contributions.take()


def test_nothing_does_not_wait() -> None:
    """Who adds neither errors nor CPU, as each batch does where there are no requests, adds nothing."""
    contributions = Contributions()
    contributions.add(published=0.0, in_budget=0.0)

    assert 0 == len(contributions._waiting)


def test_what_waits_is_bounded() -> None:
    """Where there are no batches, as in a pause, the sums are kept, not each contribution."""
    contributions = Contributions()
    for _ in range(10 * MANY):
        contributions.add("scrape", published=0.5)

    assert len(contributions._waiting) <= MANY
    assert ({"scrape": 10 * MANY}, 5.0 * MANY, 0.0) == contributions.take()


def test_threads_lose_nothing() -> None:
    """Threads that add, while another takes, find everything counted once."""
    contributions, taken = Contributions(), []
    over = threading.Event()

    def add() -> None:
        for _ in range(5 * MANY):
            contributions.add("scrape", in_budget=0.5)

    def take() -> None:
        while not over.is_set():
            taken.append(contributions.take())

    adders, taker = [threading.Thread(target=add) for _ in range(4)], threading.Thread(target=take)
    for thread in (taker, *adders):
        thread.start()
    for thread in adders:
        thread.join()
    over.set()
    taker.join()
    taken.append(contributions.take())

    assert 20 * MANY == sum(one.errors.get("scrape", 0) for one in taken)
    assert 10.0 * MANY == sum(one.in_budget for one in taken)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers")
def test_a_signal_handler_may_add() -> None:
    """A handler that comes in the middle of an addition, on the same thread, adds to it."""
    contributions, handled = Contributions(), 0

    def handler(*_: object) -> None:
        nonlocal handled
        handled += 1
        contributions.add("request")
        if handled < 100:  # or it would come when nobody handles it any more
            signal.setitimer(signal.ITIMER_REAL, 0.0005)  # one at a time

    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    added = 0
    try:
        while handled < 100:
            contributions.add("scrape")
            added += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)

    assert {"scrape": added, "request": handled} == contributions.take().errors
