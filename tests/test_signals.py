"""Signals: threads of ours take none, and what code of the host starts there takes its own."""

import os
import signal
import subprocess
import sys

import pytest

from ox_otel._native import Worker
from ox_otel._signals import as_host
from ox_otel._tasks import blocked_by

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of other threads")


def masks() -> list[set[int]]:
    """Return what a thread of ours blocks before, while and after it runs code of the host."""
    blocked: list[set[int]] = []

    def look() -> None:
        blocked.append({*signal.pthread_sigmask(signal.SIG_BLOCK, [])})

    def work() -> None:
        look()
        with as_host():
            look()
        look()

    assert Worker(work, "ox_otel_test").join(20)
    return blocked


def test_code_of_the_host_takes_what_the_main_thread_takes() -> None:
    """Within, a thread of ours blocks what the main thread blocks just now; then all as before."""
    previous = signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGUSR1, signal.SIGTERM])
    try:
        before, within, after = masks()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    assert {signal.SIGUSR1, signal.SIGTERM} == within
    assert {signal.SIGUSR2, signal.SIGINT} < before == after


def test_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `/proc` all remains blocked: to steal a signal is worse."""
    monkeypatch.setattr(os, "open", refuse)
    before, within, after = masks()
    assert before == within == after


def refuse(*_: object) -> int:
    """Stand in for a system that does not show its threads."""
    raise FileNotFoundError


def test_a_thread_that_is_gone() -> None:
    """Nobody knows what it blocks."""
    assert blocked_by(2**30) is None


STARTED = """
import signal, subprocess, sys, threading, urllib.request
import ox_otel
from prometheus_client import REGISTRY
SHOW = "import signal; print(*signal.pthread_sigmask(signal.SIG_BLOCK, []))"
shown, enough = [], threading.Event()
def start(): shown.append(subprocess.check_output([sys.executable, "-c", SHOW], text=True))
class Recorder:
    def record(self, batch):
        if not shown: start()
        enough.set()
class Collector:
    def describe(self): return []
    def collect(self):
        start()
        return []
REGISTRY.register(Collector())
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
profiler = ox_otel.install(recorders=["prometheus", Recorder()], port=0)
profiler.snapshot()
enough.wait()
urllib.request.urlopen(profiler.url + "/metrics").read()
print(*map(str.strip, shown))
"""


def test_what_code_of_the_host_starts_can_be_ended() -> None:
    """Programs that a recorder, or a collector in our endpoint, starts block what the host blocks."""
    done = subprocess.run(
        [sys.executable, "-c", STARTED], capture_output=True, text=True, timeout=60, check=False
    )
    usr1 = f"{int(signal.SIGUSR1)}"
    assert (f"{usr1} {usr1}\n", "") == (done.stdout, done.stderr)
