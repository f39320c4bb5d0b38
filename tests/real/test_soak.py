"""A service that never rests does not grow by the profiler in it.

`make soak` watches it for half an hour, `make test-all` for two minutes (`SOAK_SECONDS`), after a
warm-up; without that variable it is left out. Beside it runs its twin, which does the same without
the profiler: what both of them gain is not the profiler's.
"""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest

SECONDS = float(os.environ["SOAK_SECONDS"])
WARM_UP = max(120.0, SECONDS / 10)  # until what is bounded has come to its bound a few times
PARTS = 10
MIB = 1024 * 1024


class Reading(NamedTuple):
    """What a process has, as the kernel tells."""

    memory: int
    files: int
    threads: int


class Service:
    """A running `churning.py`."""

    def __init__(self, kind: str, folder: Path) -> None:
        folder.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("churning.py"), kind, folder],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "MALLOC_ARENA_MAX": "1"},  # or each new thread may take some memory
        )
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())
        self.readings: list[Reading] = []
        self.samples = 0.0

    def read(self) -> None:
        """Scrape it, and take down what it has."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        self.metrics = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        folder = Path(f"/proc/{self.process.pid}")
        pages = int((folder / "statm").read_text().split()[1])
        files, threads = (len(list((folder / entry).iterdir())) for entry in ("fd", "task"))
        self.readings.append(Reading(pages * os.sysconf("SC_PAGE_SIZE"), files, threads))

    def parts(self, figure: str) -> list[float]:
        """Return the medians of a figure in ten parts of the time after the warm-up."""
        values = [getattr(reading, figure) for reading in self.readings]
        length = len(values) // PARTS
        return [median(values[n * length : (n + 1) * length]) for n in range(PARTS)]


@pytest.fixture
def services(tmp_path: Path) -> Iterator[tuple[Service, Service]]:
    """The service with the profiler, and its twin without; both are killed in the end."""
    with ExitStack() as running:
        twins = []
        for kind in ("profiled", "bare"):
            service = Service(kind, tmp_path / kind)
            running.enter_context(service.process)  # which waits for its end
            running.callback(service.process.kill)
            twins.append(service)
        profiled, bare = twins
        yield profiled, bare


def test_memory_files_and_threads_are_flat(services: tuple[Service, Service]) -> None:
    """After the warm-up the service gains no more than its twin; and it has been sampled."""
    profiled, bare = services
    end = time.monotonic() + WARM_UP
    while time.monotonic() < end:
        for service in services:
            service.read()
        time.sleep(1)
    for service in services:
        service.readings.clear()
    began = time.monotonic()
    samples = float(profiled.metrics["ox_profile_samples_total"])
    while time.monotonic() < began + SECONDS:
        for service in services:
            service.read()
        time.sleep(1)

    elapsed = time.monotonic() - began
    rate = (float(profiled.metrics["ox_profile_samples_total"]) - samples) / elapsed
    errors = {name: n for name, n in profiled.metrics.items() if "ox_profile_errors_total" in name}
    series = float(profiled.metrics["ox_profile_series"])
    print(f"{elapsed:.0f} s, {rate:.0f} samples/s, {series:.0f} series, {errors}")
    for figure in Reading._fields:
        print(f"{figure}: {profiled.parts(figure)}, its twin {bare.parts(figure)}")

    memory, of_twin = profiled.parts("memory"), bare.parts("memory")
    gained = median(memory[-3:]) - median(memory[:3])
    assert gained - max(median(of_twin[-3:]) - median(of_twin[:3]), 0) < 2 * MIB
    for figure in ("files", "threads"):
        parts = profiled.parts(figure)
        assert parts[-1] <= parts[0] + 1
    assert [None, None] == [service.process.poll() for service in services]
    assert rate > 20  # a fifth of 200 where the engine is ticks
    wrong = {name.split('"')[1] for name, n in errors.items() if float(n)}
    assert {"recorder"} == wrong - {"torn"}
