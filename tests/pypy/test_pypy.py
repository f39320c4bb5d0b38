"""PyPy, the real one: sampled only if asked for by name, and never harmed."""

import sys
import time

import pytest

import ox_otel


def burn(seconds: float) -> None:
    """Use so many seconds of CPU."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))


def test_this_is_pypy() -> None:
    """What is tested here is no CPython."""
    assert "pypy" == sys.implementation.name


def test_it_is_not_sampled_by_itself() -> None:
    """Nothing starts, nothing raises, and the status says how to have it sampled."""
    profiler = ox_otel.install()

    assert "unsupported" == profiler.status().state
    assert "OX_OTEL_ENGINE=threads" in profiler.status().reason
    ox_otel.uninstall()


def test_the_engine_asked_for_by_name_finds_what_burns() -> None:
    """With `engine="threads"`, compiled loops are seen, with no error, and their CPU is counted."""
    profiler = ox_otel.install(engine="threads", max_overhead=1)
    began = time.thread_time()
    for _ in range(20):
        burn(0.1)
        time.sleep(0.01)
    used = time.thread_time() - began
    status = profiler.status()
    records, _ = profiler.query(f"{__name__}.*", 50)
    counted = sum(record.usage.self_cpu_seconds for record in records)
    ox_otel.uninstall()

    assert ("running", 0) == (status.state, status.errors)
    assert used == pytest.approx(counted, rel=0.3)
