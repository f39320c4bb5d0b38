"""Threads of our own: native, deaf to signals, and told apart from the host's."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ox_otel._native import Alarm, Worker, own_idents


def test_a_ring_ends_the_wait_at_once() -> None:
    """Whoever waits for long is woken by a ring."""
    alarm = Alarm()
    threading.Timer(0.05, alarm.ring).start()
    began = time.monotonic()

    assert alarm.wait(10.0)
    assert time.monotonic() - began < 5.0


def test_a_ring_is_not_lost_and_not_saved_up() -> None:
    """A ring before the wait ends it; two rings are one."""
    alarm = Alarm()
    alarm.ring()
    alarm.ring()

    assert alarm.wait(0.0)
    assert not alarm.wait(0.0)


def test_a_ring_ends_the_other_wait_too() -> None:
    """Each time, even where it rings already: that wait may have begun since."""
    woken: list[None] = []
    alarm = Alarm(lambda: woken.append(None))
    alarm.ring()
    alarm.ring()

    assert [None, None] == woken


def test_a_wait_that_nobody_ends_is_over_in_time() -> None:
    """Without a ring the wait lasts as long as it was asked to."""
    assert not Alarm().wait(0.01)


def test_a_worker_is_one_of_ours_while_it_lives() -> None:
    """Samples can tell our threads from the host's."""
    release, seen = threading.Event(), threading.Event()

    def work() -> None:
        seen.set()
        release.wait()

    worker = Worker(work, "ox_otel_test")
    assert seen.wait(5)
    assert worker.ident in own_idents
    assert worker.alive()
    assert not worker.join(0.0)
    release.set()

    assert worker.join(5)
    assert not worker.alive()
    assert worker.ident not in own_idents


def test_an_exception_ends_a_worker_cleanly() -> None:
    """A worker that dies of an exception is not taken for alive."""
    hooked: list[object] = []
    previous, sys.unraisablehook = sys.unraisablehook, hooked.append
    try:
        worker = Worker(lambda: 1 // 0, "ox_otel_test")
        assert worker.join(5)
    finally:
        sys.unraisablehook = previous

    assert worker.ident not in own_idents
    assert 1 == len(hooked)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows names of threads in /proc")
def test_a_worker_bears_its_name() -> None:
    """Whoever lists the threads of the process sees whose they are."""
    names: list[str] = []
    task = Path(f"/proc/{os.getpid()}/task")
    worker = Worker(
        lambda: names.append((task / str(threading.get_native_id()) / "comm").read_text()),
        "ox_otel",
    )
    worker.join(5)

    assert ["ox_otel\n"] == names


SIGWAIT = """
import os, signal, threading, time
from ox_otel._native import Worker

worker = Worker(lambda: time.sleep(200), "ox_otel_test")  # started before the host blocks anything
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
time.sleep(0.6)
print(signal.sigwait([signal.SIGTERM]) == signal.SIGTERM)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks here")
def test_signals_are_not_stolen() -> None:
    """A host that blocks a signal in order to wait for it gets it, though a worker runs."""
    done = subprocess.run(
        [sys.executable, "-c", SIGWAIT], capture_output=True, text=True, timeout=60, check=False
    )

    assert (0, "True\n") == (done.returncode, done.stdout)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks here")
def test_faults_of_a_worker_can_be_shown() -> None:
    """A crash in a thread of ours reaches faulthandler, while all other signals are blocked."""
    blocked: list[set[object]] = []
    worker = Worker(lambda: blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "ox_otel")
    worker.join(5)

    assert signal.SIGTERM in blocked[0]
    assert not blocked[0] & {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
