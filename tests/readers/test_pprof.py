"""Captures as `go tool pprof` reads them, of a service that is known to be busy in one function."""

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SECONDS = 10

SERVICE = """
import time
import ox_otel

def price():
    end = time.thread_time() + 0.06
    while time.thread_time() < end:
        for _ in range(10_000): pass

def search():
    end = time.thread_time() + 0.02
    while time.thread_time() < end:
        for _ in range(10_000): pass

print(ox_otel.install(port=0, max_overhead=1).url, flush=True)
while True:
    price()
    search()
    time.sleep(0.01)
"""


@pytest.fixture(scope="module", autouse=True)
def _go(installed: Callable[[str], str]) -> None:
    """Look for Go before anything is made for it to read."""
    installed("go")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the service shows its profiles."""
    script = tmp_path_factory.mktemp("service") / "shop.py"
    script.write_text(SERVICE)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        yield service.stdout.readline().strip()
        service.terminate()


@pytest.fixture(scope="module")
def captures(url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files with what happened in the same ten seconds."""
    folder = tmp_path_factory.mktemp("captured")

    def capture(route: str) -> Path:
        file = folder / f"{route}.pb.gz"
        asked = f"{url}/debug/pprof/{route}?seconds={SECONDS}"
        with urllib.request.urlopen(asked, timeout=60) as answer:
            file.write_bytes(answer.read())
        return file

    with ThreadPoolExecutor() as pool:
        return dict(zip(["cpu", "wall"], pool.map(capture, ["profile", "wall"]), strict=True))


@pytest.fixture(params=["cpu", "wall"])
def kind(request: pytest.FixtureRequest) -> str:
    """The time that a capture is of."""
    return str(request.param)


def pprof(*arguments: str | Path) -> str:
    """Return what `go tool pprof` prints; it warns of nothing."""
    run = subprocess.run(
        ["go", "tool", "pprof", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PPROF_TMPDIR": os.devnull},
    )
    assert ("", 0) == (run.stderr, run.returncode)
    return run.stdout


def table(printed: str) -> list[tuple[str, float, float]]:
    """Return the lines of a table: name, and its percentages flat and cumulative."""
    lines = re.findall(r"^ *\S+ +([\d.]+)% +[\d.]+% +\S+ +([\d.]+)% +(.+)$", printed, re.MULTILINE)
    return [(name, float(flat), float(cumulative)) for flat, cumulative, name in lines]


def test_the_hot_function_is_named_first(captures: dict[str, Path], kind: str) -> None:
    """It has three quarters of the CPU, and two thirds of all time: more than any other."""
    (name, flat, _), *_ = table(pprof("-top", captures[kind]))
    assert "__main__.price" == name
    assert {"cpu": 75, "wall": 67}[kind] == pytest.approx(flat, abs=15)


def test_what_it_says_of_the_profile(captures: dict[str, Path], kind: str) -> None:
    """Types of values, length and the calls are all there; nothing looks for symbols or files."""
    raw = pprof("-raw", captures[kind])
    assert f"PeriodType: {kind} nanoseconds\n" in raw
    assert f"samples/count {kind}/nanoseconds[dflt]\n" in raw
    [seconds] = re.findall(r"^Duration: ([\d.]+)", raw, re.MULTILINE)
    assert SECONDS == pytest.approx(float(seconds), abs=2)
    assert {"__main__.<module>", "__main__.price", "__main__.search"} <= {
        *re.findall(r"M=1 (\S+) __main__:0", raw)
    }
    called = pprof("-peek", "^__main__.price$", captures[kind])
    assert re.search(r" 100% \| +__main__\.<module>$", called, re.MULTILINE)


def test_modules_are_where_others_have_files(captures: dict[str, Path], kind: str) -> None:
    """So it sums up modules."""
    assert "__main__" == table(pprof("-top", "-files", captures[kind]))[0][0]
