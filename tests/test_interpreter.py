"""Interpreters that must not be sampled are not, and none is harmed."""

import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest

import ox_otel
from ox_otel import _install, _interpreter

SUBINTERPRETERS = """
import faulthandler, sys, time
faulthandler.dump_traceback_later(50, exit=True)
import ox_otel
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
def create():  # one that may have threads
    if sys.version_info < (3, 12): return interpreters.create(isolated=False)
    return interpreters.create()
def run(code):
    interpreters.run_string(interpreter, code)
def join():  # 3.11 runs nothing in an interpreter with threads, and aborts if it is destroyed
    while True:
        try: return run("thread.join()")
        except RuntimeError: time.sleep(0.01)
def wait_for(state):
    while profiler.status().state != state: time.sleep(0.01)
    print(state, profiler.status().reason, profiler.status().errors, flush=True)
"""


def run(code: str) -> tuple[int, str]:
    """Run *code* after the preamble; return its exit status and all that it wrote."""
    done = subprocess.run(
        [sys.executable, "-c", SUBINTERPRETERS + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_sampling_rests_while_there_are_subinterpreters() -> None:
    """While others live, with threads in them, it says why it rests; then it goes on.

    Below 3.12 all have one GIL, and are sampled together without harm.
    """
    reason = "there are subinterpreters, whose threads cannot be told apart safely"
    state = "running" if sys.version_info < (3, 12) else "suspended"
    reason = "" if state == "running" else reason
    code = f"""
profiler = ox_otel.install(interval=0.001, max_overhead=1)
wait_for("running")
interpreter = create()
run("import threading, time; thread = threading.Thread(target=time.sleep, args=(1,))\\nthread.start()")
end = time.monotonic() + 0.5
while time.monotonic() < end: sum(range(100))
wait_for("{state}")
join()
interpreters.destroy(interpreter)
wait_for("running")
"""
    assert (0, f"running  0\n{state} {reason} 0\nrunning  0\n") == run(code)


def test_a_subinterpreter_is_not_sampled() -> None:
    """Installed in one, as mod_wsgi would, it starts nothing and says why; nothing crashes."""
    code = """
interpreter = create()
run("import ox_otel; p = ox_otel.install(recorders=[]); s = p.status(); print(s.state, s.reason)")
run("ox_otel.uninstall()")
interpreters.destroy(interpreter)
"""
    reason = "only the main interpreter of a process can be sampled, and this is another"
    assert (0, f"unsupported {reason}\n") == run(code)


@pytest.mark.parametrize(
    ("version", "options", "state"),
    [
        (b"2.0.26", {}, "unsupported"),
        (b"2.0.26", {"enable-threads": True}, "stopped"),
        (b"2.0.26", {"threads": b"2"}, "stopped"),
        (b"2.0.31", {}, "stopped"),
    ],
)
def test_where_uwsgi_lets_no_threads_run_none_is_started(
    monkeypatch, version, options, state
) -> None:
    """Before 2.0.27 it keeps the GIL while it waits, unless told otherwise; the status says so."""
    uwsgi = SimpleNamespace(version=version, opt={"master": True, **options})
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    with ox_otel.Profiler() as profiler:
        assert (state == "unsupported") == ("enable-threads" in profiler.status().reason)
    assert state == profiler.status().state


def test_a_release_with_known_faults_is_warned_of_once(monkeypatch) -> None:
    """Installing says once what the interpreter does wrong; one that is sound says nothing."""
    for version, times in (((3, 11, 4, "final"), 1), ((3, 11, 5, "final"), 0)):
        monkeypatch.setattr(_interpreter.sys, "version_info", version)
        monkeypatch.setattr(_interpreter.sys.implementation, "name", "cpython")
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            ox_otel.install(start_paused=True)
            ox_otel.install()
        ox_otel.uninstall()
        monkeypatch.undo()

        assert times == len([one for one in found if "may crash" in str(one.message)])


def test_where_warnings_are_errors_a_release_with_known_faults_is_none(monkeypatch) -> None:
    """With `-W error` the program starts all the same."""
    monkeypatch.setattr(_install, "risk", lambda: "may crash")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "paused" == ox_otel.install(start_paused=True).status().state
    ox_otel.uninstall()
