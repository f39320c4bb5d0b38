"""A program that does its worst to the ticks: `python tests/ticks_stress.py SECONDS`.

Four threads at the highest rate that the kernel gives do what moves frames and code objects about:
generated code that is freed at once and whose memory is used again, generators, coroutines,
exceptions, deep recursion, callbacks from C; beside them threads come and go, processes fork, and
garbage is collected all the time.

Prints, as JSON, how many ticks there were, how many stacks were torn, how many looks found a thread
standing still, and the names seen that no code bears or that stand where they cannot: there must be
none.
"""
# ruff: noqa: D102, D103 - the functions say by their names what they do

import asyncio
import faulthandler
import gc
import json
import os
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from types import CodeType

import ox_otel
from ox_otel import _ticks

PLACES = 7
"""Callers of generated functions: each calls only those whose number leaves its own remainder."""

made = 0
wrong: Counter[str] = Counter()
right: Counter[str] = Counter()


def burn(rounds: int = 200) -> int:
    total = 0
    for number in range(rounds):
        total += number * number
    return total


def call_0(function):
    return function()


def call_1(function):
    return function()


def call_2(function):
    return function()


def call_3(function):
    return function()


def call_4(function):
    return function()


def call_5(function):
    return function()


def call_6(function):
    return function()


CALLERS = call_0, call_1, call_2, call_3, call_4, call_5, call_6


def run_generated() -> None:
    global made  # noqa: PLW0603
    for _ in range(10):
        made += 1
        number = made
        name = f"made_{number}_é" if number % 2 else f"made_{number}"
        space: dict[str, object] = {"burn": burn}
        exec(f"def {name}(): return burn() + burn(300)", space)  # noqa: S102
        CALLERS[number % PLACES](space.pop(name))


def generate(depth: int):
    if depth:
        yield from generate(depth - 1)
    yield burn()


def run_generators() -> None:
    sum(generate(20))
    sum(burn(number) for number in range(30))


async def wait_a_little(depth: int) -> int:
    await asyncio.sleep(0)
    return await wait_a_little(depth - 1) if depth else burn()


async def gather() -> None:
    await asyncio.gather(*(wait_a_little(10) for _ in range(5)))


def run_coroutines() -> None:
    asyncio.run(gather())


def fall(depth: int) -> None:
    try:
        if depth:
            fall(depth - 1)
        raise ValueError(burn())  # noqa: TRY301 - that is the point
    except ValueError as error:
        if depth % 3:
            raise KeyError from error


def run_exceptions() -> None:
    try:
        fall(30)
    except KeyError:
        burn()


def descend(depth: int) -> int:
    return descend(depth - 1) + 1 if depth else burn()


def run_recursion() -> None:
    descend(700)


def replace(match: re.Match[str]) -> str:
    return str(burn(20) + len(match[0]))


def key(number: int) -> int:
    return burn(10) ^ number


def run_callbacks() -> None:
    re.sub(r"\d+", replace, "1 22 333 4444 " * 10)
    sorted(range(100), key=key)


class Made:
    """Instances have a constructor, a property and a destructor in Python, and are garbage."""

    def __init__(self) -> None:
        self.me = self
        self.total = burn(20)

    @property
    def twice(self) -> int:
        return self.total + burn(20)

    def __del__(self) -> None:
        burn(20)


def run_instances() -> None:
    sum(Made().twice for _ in range(20))


def run_collections() -> None:
    gc.collect(0)


def run_threads() -> None:
    threads = [threading.Thread(target=burn, args=(20_000,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


RUNS = (
    *(run_generated, run_generators, run_coroutines, run_exceptions, run_recursion, run_callbacks),
    *(run_instances, run_collections, run_threads),
)


def run(seed: int, until: float) -> None:
    chance = random.Random(seed)
    while time.monotonic() < until:
        chance.choice(RUNS)()


def fork_all_the_time(until: float) -> None:
    """Fork some times a second; a child works a little and ends."""
    while time.monotonic() < until:
        time.sleep(0.3)
        child = os.fork()
        if not child:
            signal.alarm(60)  # a child that hangs is killed, which is an end with a status
            run_generated()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            wrong[f"a child ended with {status}"] += 1


class Names:
    """A recorder that looks at every name of every stack."""

    def __init__(self) -> None:
        self._of_module: dict[str, set[str]] = {}

    def record(self, batch: ox_otel.Batch) -> None:
        """Judge all stacks."""
        for stack in batch.stacks:
            for caller, function in zip((None, *stack), stack, strict=False):
                fits = self._fits(function, caller)
                (right if fits else wrong)[f"{caller} -> {function}"] += 1

    def _fits(self, function: ox_otel.Function, caller: ox_otel.Function | None) -> bool:
        if found := re.fullmatch(r"made_(\d+)(_é)?", function.name):
            number = int(found[1])
            return (
                number <= made
                and bool(found[2]) == bool(number % 2)
                and (caller is None or caller.name == f"call_{number % PLACES}")
            )
        return function.name in self._names(function.module)

    def _names(self, module: str) -> set[str]:
        if module not in self._of_module:
            names = self._of_module[module] = {"__other__", "__unplaced__"}
            # code of a string: of namedtuple, and what makes our functions
            if module == "unknown" or module.startswith("namedtuple_"):
                names |= {"<lambda>", "<module>"}
            # this one calls itself so, and is another module's only content
            home = "_collections_abc" if module == "collections.abc" else module
            source = getattr(sys.modules.get(home), "__file__", None)
            if source:
                with open(source, "rb") as file:
                    _gather(compile(file.read(), source, "exec"), names)
            elif module in sys.modules or module.startswith("importlib"):
                names |= _FROZEN
        return self._of_module[module]


def _gather(code: CodeType, names: set[str]) -> None:
    """Add the qualified names of all functions in *code* to *names*."""
    names.add(code.co_qualname)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _gather(constant, names)


_FROZEN: set[str] = set()


def _learn_frozen() -> None:
    import _frozen_importlib
    import _frozen_importlib_external

    for module in (_frozen_importlib, _frozen_importlib_external):
        for value in vars(module).values():
            for thing in (value, *(vars(value).values() if isinstance(value, type) else ())):
                inner = getattr(thing, "__func__", thing)
                if hasattr(inner, "__code__"):
                    _gather(inner.__code__, _FROZEN)
    _FROZEN.add("<module>")


def main() -> None:
    """Run for as many seconds as the command line says."""
    seconds = float(sys.argv[1])
    faulthandler.enable()
    faulthandler.dump_traceback_later(seconds + 120, exit=True)
    _learn_frozen()
    gc.set_threshold(300, 3, 3)
    ticks: Counter[str] = Counter()
    drain, watch = _ticks.drain, _ticks.watch

    def drained() -> list[tuple[int, int, object]]:
        found = drain()
        ticks.update("torn" if stack is None else "whole" for _, _, stack in found)
        return found

    def watched(*asked: object) -> list[tuple[int, int, bool, list[tuple[int, int, object]]]]:
        found = watch(*asked)
        for _, _, _, looks in found:
            ticks.update("running" if stack is None else "still" for _, _, stack in looks)
        return found

    _ticks.drain, _ticks.watch = drained, watched
    profiler = ox_otel.install(
        engine="ticks", interval=0.001, max_overhead=1.0, recorders=[Names()]
    )
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=run, args=(number, until)) for number in range(4)]
    threads.append(threading.Thread(target=fork_all_the_time, args=(until,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = profiler.status()
    ox_otel.uninstall()
    print(
        json.dumps(
            {
                **ticks,
                "names": sum(right.values()),
                "wrong": wrong.most_common(20),
                "engine": status.engine,
                "reason": status.reason,
            }
        )
    )


if __name__ == "__main__":
    main()
