"""Programs that know the truth: each function accounts for its own wall and CPU time.

A profiler's answer is compared with what these programs say of themselves. Every function of
interest is wrapped by `timed`, which reads the wall clock and the thread's CPU clock around each
call and subtracts nested calls. A function's *self* seconds are therefore what a perfect profiler
would credit to it, the C functions that it calls and its waits for the GIL included.

Each thread of a program steps through a seeded mix of actions until its time is over. Amounts of
work are nominal milliseconds (loop counts of a machine of 2024): they differ between machines, and
the truth is always measured, never assumed. An estimator may be tuned on the programs that are not
held out; figures are published for those that are.

    python -m bench.programs alternate --seconds 20

prints the truth as JSON.
"""
# ruff: noqa: D103 - the names of the functions below say what they burn or await

import argparse
import asyncio
import contextlib
import functools
import hashlib
import inspect
import json
import os
import queue
import random
import re
import selectors
import socket
import threading
import time
import types
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

Action = Callable[[float], object]  # takes an amount in nominal milliseconds
Step = tuple[Action, float, float]  # an action, its least and its greatest amount
Body = Callable[[random.Random, float], None]  # what a thread runs, until a `time.monotonic()`


class Spent(NamedTuple):
    """Seconds of one function over all threads; `wall` and `cpu` include what it called."""

    self_wall: float
    self_cpu: float
    wall: float
    cpu: float


NOTHING = Spent(0.0, 0.0, 0.0, 0.0)


class _Books(threading.local):
    """What the functions of one thread have spent, and the calls that are open."""

    of_all_threads: ClassVar[list[dict[str, Spent]]] = []

    def __init__(self) -> None:
        self.spent: dict[str, Spent] = {}
        self.open: list[str] = []
        self.nested_wall = 0.0
        self.nested_cpu = 0.0
        self.of_all_threads.append(self.spent)


_books = _Books()


def timed(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function`, accounting for the seconds of each call under its qualified name."""
    name = function.__qualname__

    @functools.wraps(function)
    def account(*args: P.args, **kwargs: P.kwargs) -> R:
        books = _books
        outer_wall, outer_cpu = books.nested_wall, books.nested_cpu
        books.nested_wall = books.nested_cpu = 0.0
        books.open.append(name)
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
            books.open.pop()
            before = books.spent.get(name, NOTHING)
            recursive = name in books.open
            books.spent[name] = Spent(
                before.self_wall + wall - books.nested_wall,
                before.self_cpu + cpu - books.nested_cpu,
                before.wall + (0.0 if recursive else wall),
                before.cpu + (0.0 if recursive else cpu),
            )
            books.nested_wall, books.nested_cpu = outer_wall + wall, outer_cpu + cpu

    return account


def owner(stack: Sequence[str], spent: Mapping[str, Spent]) -> str | None:
    """Return the function of `stack` whose self seconds its top belongs to.

    That is the innermost one that accounts for itself: what it calls in the standard library is
    part of its self seconds here, and the frames of `timed` are nobody's. `stack` holds qualified
    names, outermost first.
    """
    return next((name for name in reversed(stack) if name in spent), None)


# Pure Python.


@timed
def add_squares(ms: float) -> int:
    total = 0
    for number in range(int(ms * 16_000)):
        total += number * number
    return total


@timed
def fill_dict(ms: float) -> dict[int, int]:
    table: dict[int, int] = {}
    for number in range(int(ms * 18_000)):
        table[number & 1023] = number
    return table


@timed
def format_text(ms: float) -> int:
    length = 0
    for number in range(int(ms * 5_000)):
        length += len(f"{number}:{length}")
    return length


@timed
def pull_generator(ms: float) -> int:
    return sum(number for number in range(int(ms * 18_000)) if number % 3)


def descend(ms: float, depth: int = 200) -> int:
    total = 0
    for number in range(int(ms * 160)):
        total += number
    return total + (descend(ms, depth - 1) if depth else 0)


recurse = timed(descend)  # only the outermost call is timed: all of them are one function


# C that holds the GIL for the whole call.

_numbers = random.Random(1).sample(range(1 << 30), 400_000)
_words = [str(number) for number in _numbers] * 5
_text = " ".join(_words[: len(_numbers)])


@timed
def sum_range(ms: float) -> int:
    return sum(range(int(ms * 60_000)))


@timed
def sort_numbers(ms: float) -> int:
    return len(sorted(_numbers[: int(ms * 8_000)]))


@timed
def join_words(ms: float) -> int:
    return len("".join(_words[: int(ms * 80_000)]))


@timed
def find_numbers(ms: float) -> int:
    return len(re.findall(r"\d+7\b", _text[: int(ms * 24_000)]))


# C that releases the GIL.

_buffer = random.Random(2).randbytes(1 << 20) * 64


@timed
def compress(ms: float) -> int:
    return len(zlib.compress(memoryview(_buffer)[: int(ms * 55_000)]))


@timed
def digest(ms: float) -> bytes:
    return hashlib.sha512(memoryview(_buffer)[: int(ms * 870_000)]).digest()


# Waits.

_never = threading.Event()
_deaf, _mute = socket.socketpair()
_gate = threading.Lock()
_null = open(os.devnull, "wb", buffering=0)  # noqa: SIM115 - open for the process's life
_line = b"a line of a log\n"


@timed
def nap(ms: float) -> None:
    time.sleep(ms / 1000)


@timed
def await_event(ms: float) -> None:
    _never.wait(ms / 1000)


@timed
def await_socket(ms: float) -> None:
    _deaf.settimeout(ms / 1000)
    with contextlib.suppress(TimeoutError):
        _deaf.recv(1)


@timed
def write_null(ms: float) -> None:
    """Give the GIL up without waiting, as a log line to a file does."""
    _null.write(_line)


@timed
def enter_gate() -> None:
    _gate.acquire()


@timed
def guarded(ms: float) -> None:
    """Work in Python while holding the lock that the other threads want."""
    enter_gate()
    try:
        add_squares(ms)
    finally:
        _gate.release()


# One function called from two places.


@timed
def shared(ms: float) -> int:
    total = 0
    for number in range(int(ms * 16_000)):
        total ^= number
    return total


@timed
def called_often(ms: float) -> None:
    shared(ms)
    shared(2 * ms)


@timed
def called_seldom(ms: float) -> None:
    add_squares(ms)
    shared(ms)


def _renamed(function: types.FunctionType, name: str) -> Action:
    """Return a copy of `function` that is a function of its own to any profiler."""
    code = function.__code__.replace(co_name=name, co_qualname=name)
    copy = types.FunctionType(code, function.__globals__, name)
    copy.__qualname__ = name
    return timed(copy)


SHORT = [
    _renamed(
        inspect.unwrap((add_squares, fill_dict, format_text)[number % 3]), f"short_{number:02}"
    )
    for number in range(12)
]


# What a thread runs.


def mix(*steps: Step, rest: Step | None = None) -> Body:
    """Return a body that takes one of `steps` at random, then `rest`, until its time is over."""

    @timed
    def mix_steps(rng: random.Random, until: float) -> None:
        while time.monotonic() < until:
            for action, least, greatest in (rng.choice(steps), *([rest] if rest else ())):
                action(rng.uniform(least, greatest))

    return mix_steps


def producer_and_consumer(*work: Step) -> list[Body]:
    """Return two bodies: one makes an item and puts it, the other gets it and takes a step."""
    items: queue.Queue[float] = queue.Queue(maxsize=4)

    @timed
    def get_item() -> float:
        return items.get()

    @timed
    def put_item(item: float) -> None:
        items.put(item)

    @timed
    def produce(rng: random.Random, until: float) -> None:
        while time.monotonic() < until:
            format_text(rng.uniform(2, 6))
            put_item(rng.random())
            nap(rng.uniform(0, 10))
        put_item(-1.0)

    @timed
    def consume(rng: random.Random, until: float) -> None:
        while (item := get_item()) >= 0:
            action, least, greatest = rng.choice(work)
            action(least + item * (greatest - least))

    return [produce, consume]


def ping_and_pong(ping: Step, pong: Step) -> list[Body]:
    """Return two bodies that work in turn and hand over a byte through a pair of sockets."""
    ends = socket.socketpair()

    @timed
    def receive(end: socket.socket) -> bytes:
        return end.recv(1)

    @timed
    def send(end: socket.socket) -> None:
        end.sendall(b".")

    @timed
    def serve_ping(rng: random.Random, until: float) -> None:
        while time.monotonic() < until:
            ping[0](rng.uniform(*ping[1:]))
            send(ends[0])
            receive(ends[0])
        ends[0].close()

    @timed
    def return_pong(rng: random.Random, until: float) -> None:
        while receive(ends[1]):
            pong[0](rng.uniform(*pong[1:]))
            send(ends[1])

    return [serve_ping, return_pong]


def event_loop(tasks: int, *steps: Step) -> Body:
    """Return a body whose event loop runs `tasks` tasks that sleep and take a step in turn."""

    async def task(rng: random.Random, until: float) -> None:
        while time.monotonic() < until:
            await asyncio.sleep(rng.uniform(0.01, 0.1))
            action, least, greatest = rng.choice(steps)
            action(rng.uniform(least, greatest))

    @timed
    def run_loop(rng: random.Random, until: float) -> None:
        async def main() -> None:
            seeds = [random.Random(rng.random()) for _ in range(tasks)]
            await asyncio.gather(*(task(seed, until) for seed in seeds))

        selector = selectors.DefaultSelector()
        selector.select = timed(selector.select)  # type: ignore[method-assign]
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
            runner.run(main())

    return run_loop


class Program(NamedTuple):
    """What each thread of a program runs, made anew for each run."""

    bodies: Callable[[], list[Body]]
    held_out: bool


_HELD_LONG = (add_squares, 15, 30), (sum_range, 5, 5), (sum_range, 40, 40), (sort_numbers, 20, 40)
_BURSTS = (add_squares, 5, 20), (sum_range, 5, 20), (join_words, 5, 20), (sort_numbers, 5, 20)

PROGRAMS: dict[str, Program] = {
    # for tuning
    "python": Program(
        lambda: [mix((add_squares, 2, 15), (fill_dict, 2, 15), (format_text, 1, 5))],
        held_out=False,
    ),
    "gil_held": Program(lambda: [mix(*_HELD_LONG, (nap, 20, 20))], held_out=False),
    "gil_released": Program(
        lambda: [
            mix((compress, 5, 40), (add_squares, 5, 20)),
            mix((add_squares, 5, 30), (fill_dict, 5, 10)),
        ],
        held_out=False,
    ),
    "alternate": Program(
        lambda: [mix(*_BURSTS, rest=(nap, 5, 20)) for _ in range(4)], held_out=False
    ),
    "shares": Program(
        lambda: [
            mix((add_squares, 5, 20), rest=(nap, 1, 10)),
            mix((fill_dict, 5, 20), rest=(nap, 20, 40)),
            mix((format_text, 5, 10), rest=(await_event, 40, 80)),
            mix((sum_range, 5, 10), rest=(nap, 100, 200)),
        ],
        held_out=False,
    ),
    "short": Program(lambda: [mix(*((action, 0.5, 1.5) for action in SHORT))], held_out=False),
    "bursts": Program(
        lambda: [mix((add_squares, 1, 4), (fill_dict, 1, 4), rest=(nap, 2, 10))], held_out=False
    ),
    "queue": Program(
        lambda: producer_and_consumer((fill_dict, 1, 5), (sum_range, 1, 10)), held_out=False
    ),
    "asyncio": Program(
        lambda: [event_loop(8, (format_text, 1, 6), (fill_dict, 5, 15), (sum_range, 1, 5))],
        held_out=False,
    ),
    "saturated": Program(
        lambda: [
            mix((add_squares, 5, 30)),
            mix((fill_dict, 5, 30)),
            mix((format_text, 2, 6), rest=(nap, 1, 3)),
            mix((sum_range, 2, 10), rest=(await_socket, 2, 20)),
        ],
        held_out=False,
    ),
    "writes": Program(
        lambda: [mix((add_squares, 0.5, 2), (format_text, 0.5, 2), rest=(write_null, 1, 1))],
        held_out=False,
    ),
    # held out
    "python_two": Program(
        lambda: [mix((pull_generator, 5, 20), (fill_dict, 1, 30), (format_text, 4, 8))],
        held_out=True,
    ),
    "gil_held_two": Program(
        lambda: [
            mix(
                (find_numbers, 5, 5),
                (sort_numbers, 40, 40),
                (fill_dict, 10, 40),
                (await_event, 5, 50),
            )
        ],
        held_out=True,
    ),
    "gil_released_two": Program(
        lambda: [
            mix((digest, 10, 60), (format_text, 5, 20), (nap, 10, 20)),
            mix((pull_generator, 5, 30), (nap, 5, 10)),
        ],
        held_out=True,
    ),
    "sleeps": Program(
        lambda: [
            mix((nap, 5, 50), (await_event, 5, 50), (await_socket, 5, 50), (add_squares, 5, 20)),
            mix((nap, 200, 400), (fill_dict, 10, 30)),
        ],
        held_out=True,
    ),
    "short_two": Program(
        lambda: [mix(*((action, 0.2, 2) for action in SHORT[:7]), (sort_numbers, 1, 2))],
        held_out=True,
    ),
    "recursion": Program(
        lambda: [mix((recurse, 5, 30), (add_squares, 5, 20), (nap, 5, 20))], held_out=True
    ),
    "alternate_two": Program(
        lambda: [
            mix((format_text, 5, 20), (find_numbers, 5, 20), rest=(await_event, 5, 20)),
            mix((sort_numbers, 5, 20), (pull_generator, 5, 20), rest=(nap, 5, 20)),
            mix((fill_dict, 5, 20), (join_words, 5, 20), rest=(await_socket, 5, 20)),
            mix((add_squares, 5, 20), (sum_range, 5, 20), rest=(nap, 5, 20)),
        ],
        held_out=True,
    ),
    "shares_two": Program(
        lambda: [
            mix((pull_generator, 10, 40)),
            mix((find_numbers, 5, 20), rest=(nap, 10, 30)),
            mix((format_text, 2, 8), rest=(await_socket, 20, 60)),
            mix((digest, 5, 20), rest=(nap, 20, 60)),
        ],
        held_out=True,
    ),
    "asyncio_two": Program(
        lambda: [
            event_loop(20, (pull_generator, 1, 4), (add_squares, 3, 12), (find_numbers, 2, 8))
        ],
        held_out=True,
    ),
    "two_places": Program(
        lambda: [mix((called_often, 3, 8), (called_seldom, 5, 15), (nap, 5, 10))], held_out=True
    ),
    "locks": Program(
        lambda: [mix((guarded, 2, 15), rest=(nap, 1, 10)) for _ in range(3)], held_out=True
    ),
    "ping_pong": Program(
        lambda: ping_and_pong((format_text, 1, 8), (fill_dict, 1, 12)), held_out=True
    ),
}


def run(name: str, seconds: float) -> dict[str, Spent]:
    """Run a program in threads of its own for about `seconds`; return what each function spent.

    Runs must not overlap.
    """
    _books.of_all_threads.clear()
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=body, args=(random.Random(number), until), name=f"{name}-{number}")
        for number, body in enumerate(PROGRAMS[name].bodies())
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total: dict[str, Spent] = {}
    for spent in _books.of_all_threads:
        for function, seconds_spent in spent.items():
            before = total.get(function, NOTHING)
            total[function] = Spent(*map(sum, zip(before, seconds_spent, strict=True)))
    return total


def main() -> None:
    """Run the program that the command line names and print what it spent, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.programs", description=main.__doc__)
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    spent = run(arguments.program, arguments.seconds)
    print(json.dumps({name: value._asdict() for name, value in sorted(spent.items())}, indent=1))


if __name__ == "__main__":
    main()
