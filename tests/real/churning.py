"""A service that never rests: threads, forks, modules, exceptions and garbage, ten times a second.

    python churning.py (profiled | bare) FOLDER

Prints the port of its metrics, and runs until it is killed. FOLDER is for modules that it writes.
With `profiled` it has the profiler in it, at 200 samples a second, and pauses it now and then.
"""

import gc
import importlib
import os
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from types import ModuleType

from prometheus_client import start_http_server

import ox_otel

PAUSE = 0.1
"""Seconds between two rounds of each kind of unrest."""


class Unreliable:
    """A recorder that fails, is slow, and sometimes does what it should."""

    def record(self, batch: ox_otel.Batch) -> None:
        """Do one of the three."""
        if random.random() < 0.3:
            raise RuntimeError("not now")
        time.sleep(random.choice([0, 0.01, 3]))


def serve(folder: Path) -> int:
    """Serve metrics without a profiler; return the port."""
    server, _ = start_http_server(0, addr="127.0.0.1")
    return int(server.server_port)


def serve_profiled(folder: Path) -> int:
    """Install the profiler, and have it paused and its interval changed; return its port."""
    profiler = ox_otel.install(
        port=0,
        interval=0.005,
        max_overhead=1,
        recorders=["prometheus", Unreliable()],
        kill_file=folder / "kill",
    )

    def control() -> None:
        profiler.pause()
        time.sleep(PAUSE)
        profiler.set_interval(random.choice([0.004, 0.005, 0.006]))
        profiler.unpause()
        profiler.query("*.dive", limit=3)
        time.sleep(5)

    begin(control)
    return int(profiler.url.rpartition(":")[2])


def begin(act: Callable[[], object]) -> None:
    """Do it again and again, on a thread."""

    def again() -> None:
        while True:
            act()
            time.sleep(PAUSE)

    threading.Thread(target=again, daemon=True).start()


def threads() -> None:
    """Have some threads come, work and go."""
    some = [threading.Thread(target=dive, args=(depth,)) for depth in (5, 20, 50)]
    for thread in some:
        thread.start()
    for thread in some:
        thread.join()


def dive(depth: int) -> int:
    """Recurse, and let go of the GIL at the bottom."""
    if depth:
        return dive(depth - 1)
    time.sleep(0.002)
    return len(sorted(range(500), key=lambda n: -n))


def forks() -> None:
    """Have a child that works for a moment."""
    child = os.fork()
    if child == 0:
        try:
            dive(10)
            profiler = ox_otel.get()
            if profiler is not None:
                profiler.status()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    time.sleep(5 * PAUSE)


def reloading(folder: Path) -> Callable[[], object]:
    """Return what writes a module anew, loads it and uses it."""
    file = folder / "reloaded.py"
    module: ModuleType | None = None

    def reload() -> None:
        nonlocal module
        file.write_text(
            "import time\ndef work():\n    time.sleep(0.005)\n    return list(range(99))\n"
        )
        module = importlib.reload(module) if module else importlib.import_module("reloaded")
        module.work()

    return reload


numbers = cycle(range(3000))  # names have an end, for CPython keeps some of them for ever


def code() -> None:
    """Generate functions that are used once."""
    for _ in range(200):
        name = f"made_{next(numbers)}"
        space: dict[str, Callable[[], int]] = {}
        exec(f"import time\ndef {name}():\n    time.sleep(0.001)\n    return 1", space)  # noqa: S102
        space[name]()


def exceptions() -> None:
    """Raise through a deep stack, and keep the traceback for a while."""

    def fall(depth: int) -> None:
        if depth:
            fall(depth - 1)
        time.sleep(0.0005)
        raise ValueError(depth)

    for _ in range(5):
        try:
            fall(40)
        except ValueError as error:
            kept.append(error)
    del kept[:-10]


kept: list[ValueError] = []


def garbage() -> None:
    """Make cycles that only the collector frees, with destructors that let go of the GIL."""

    class Node:
        def __init__(self) -> None:
            self.me = self
            self.weight = bytes(5_000)

        def __del__(self) -> None:
            time.sleep(0)

    for _ in range(100):
        Node()
    if random.random() < 0.1:
        gc.collect()


def main() -> None:
    """Serve, and never rest."""
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
    folder = Path(sys.argv[2])
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    gc.set_threshold(200, 5, 5)
    print((serve_profiled if sys.argv[1] == "profiled" else serve)(folder), flush=True)
    for act in (threads, forks, reloading(folder), code, exceptions, garbage):
        begin(act)
    threading.Event().wait()


if __name__ == "__main__":
    main()
