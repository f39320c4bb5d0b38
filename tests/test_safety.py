"""The host is never harmed: hostile programs, each in an interpreter of its own."""

import ast
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ox_otel

PREAMBLE = """
import faulthandler, gc, os, signal, sys, threading, time
faulthandler.enable()
signal.alarm(150)
from ox_otel import Profiler, Settings
profiler = Profiler(Settings(interval=0.002, max_overhead=1, engine=sys.argv[1] if sys.argv[1:] else "auto"))
"""


def run(code: str, engine: str = "auto") -> subprocess.CompletedProcess[str]:
    """Run *code* after the preamble; a hang ends with SIGALRM, a crash shows its traceback."""
    return subprocess.run(
        [sys.executable, "-c", PREAMBLE + code, engine],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


DESTRUCTORS = """
class Yielding:
    def __init__(self): self.me = self  # only the collector frees it
    def __del__(self): time.sleep(0)    # lets go of the GIL in the middle of a collection

for _ in range(80): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
gc.set_threshold(50, 2, 2)
profiler.start()
def churn():
    while True:
        for _ in range(2): Yielding()
        thread = threading.Thread(target=time.sleep, args=(0,)); thread.start(); thread.join()
for _ in range(4): threading.Thread(target=churn, daemon=True).start()
time.sleep(3)
print(profiler.status().state, flush=True)  # if anything still runs, this does
os._exit(0)
"""


@pytest.mark.parametrize("engine", ["threads", "ticks"])
def test_destructors_do_not_deadlock_the_process(engine: str) -> None:
    """Garbage whose destructor lets go of the GIL, and threads that come and go: no hang."""
    done = run(DESTRUCTORS, engine)

    assert (0, "running\n", "") == (done.returncode, done.stdout, done.stderr)


STRESS = """
gc.set_threshold(100, 5, 5)
sys.setrecursionlimit(5000)
profiler.start()
over = threading.Event()
def generator(depth):
    if depth: yield from generator(depth - 1)
    yield depth
def dive(depth):
    return dive(depth - 1) if depth else [][1]
def exceptions():
    while not over.is_set():
        try: dive(800)
        except IndexError: pass
def generators():
    while not over.is_set(): sum(generator(100))
def code():
    while not over.is_set():
        space = {}
        exec("def f(n):\\n  return f(n - 1) if n else sorted(range(50), key=lambda x: -x)", space)
        space["f"](20)
def churn():
    while not over.is_set():
        thread = threading.Thread(target=sum, args=(generator(50),)); thread.start(); thread.join()
threads = [threading.Thread(target=t) for t in (exceptions, generators, code, churn) for _ in "ab"]
for thread in threads: thread.start()
worst, last = 0.0, time.monotonic()
began = last  # on a busy machine samples are few
while last < began + 4 or (profiler.status().samples <= 20 and last < began + 20):
    time.sleep(0.001)
    now = time.monotonic(); worst, last = max(worst, now - last), now
over.set()
for thread in threads: thread.join()
status = profiler.status()
wrong = {kind for kind, number in profiler.snapshot().errors.items() if number}
print(status.samples > 20, status.state, wrong - {"torn"}, worst < 2)
"""


@pytest.mark.parametrize("engine", ["threads", "ticks"])
def test_a_wild_program_is_sampled_without_a_crash(engine: str) -> None:
    """Exceptions, generators, deep recursion, exec, thread churn and collections all at once."""
    done = run(STRESS, engine)

    assert (0, "True running set() True\n", "") == (done.returncode, done.stdout, done.stderr)


AUDIT = """
def refuse(event, arguments):
    if event == "sys._current_frames": raise PermissionError(event)
sys.addaudithook(refuse)
profiler.start()
end = time.monotonic() + 60
while profiler.status().state != "suspended" and time.monotonic() < end: time.sleep(0.01)
time.sleep(0.5)
status = profiler.status()
print(status.state, status.reason, 10 <= status.errors < 50, status.samples)
"""


def test_an_audit_hook_may_forbid_sampling() -> None:
    """A hook that refuses the list of frames suspends sampling, with a reason and no storm."""
    done = run(AUDIT)

    expected = "suspended 10 errors in a row, the last PermissionError True 0\n"
    assert (0, expected, "") == (done.returncode, done.stdout, done.stderr)


SIGNALS = """
def handler(*_):
    profiler.pause(); profiler.unpause(); profiler.status(); profiler.set_interval(0.002)
signal.signal(signal.SIGPROF, handler)
signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
profiler.start()
end = time.monotonic() + 3
while time.monotonic() < end:
    profiler.start(); sum(range(1000))
signal.setitimer(signal.ITIMER_PROF, 0)
profiler.unpause()
before, end = profiler.status().samples, time.monotonic() + 60
while profiler.status().samples == before and time.monotonic() < end: time.sleep(0.01)
print(profiler.status().state, profiler.status().samples > before)
"""


@pytest.mark.skipif(not hasattr(__import__("signal"), "setitimer"), reason="no interval timers")
def test_a_signal_handler_may_call_us() -> None:
    """The verbs may be called at a thousand times a second from a signal handler."""
    done = run(SIGNALS)

    assert (0, "running True\n", "") == (done.returncode, done.stdout, done.stderr)


SHUTDOWN = """
import atexit
atexit.register(profiler.start)
def late():
    time.sleep(0.2)
    profiler.start()
    print(profiler.status().state in ("running", "failed"))
threading.Thread(target=late).start()
"""


def test_starting_at_the_interpreters_end_is_harmless() -> None:
    """Started when no thread can be had any more, it raises nothing and delays nothing."""
    done = run(SHUTDOWN)

    assert (0, "True\n", "") == (done.returncode, done.stdout, done.stderr)


NOTHING_WRITTEN = """
import resource, tempfile, urllib.request
import ox_otel
os.chdir("/proc")  # where nobody can make a file
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # from here on, a byte written to a file kills
profiler = ox_otel.install(port=0, interval=0.005)
while profiler.status().samples < 20: time.sleep(0.01)
print(urllib.request.urlopen(profiler.url + "/metrics", timeout=60).status, profiler.show() != "")
ox_otel.uninstall()
print(profiler.status().errors, flush=True)
with open(os.memfd_create("full"), "wb", 0) as file: file.write(b"a byte")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files in a Linux way")
def test_a_full_disk_is_no_concern_of_ours() -> None:
    """Sampling, serving and ending write no byte to any file (the last line shows that it kills)."""
    done = run(NOTHING_WRITTEN)

    assert (-signal.SIGXFSZ, "200 True\n0\n", "") == (done.returncode, done.stdout, done.stderr)


STOPPED = """
profiler = Profiler(Settings(interval=0.005, max_overhead=1))
began = time.monotonic()
profiler.start()
time.sleep(0.3)
print(profiler.snapshot().missed, flush=True)
sys.stdin.readline()
samples, again = profiler.snapshot().samples, time.monotonic()
time.sleep(0.3)
after = profiler.snapshot()
elapsed = time.monotonic() - began
usages = after.functions.values()
seconds = sum(usage.self_wait_seconds + usage.self_cpu_seconds for usage in usages)
often = (after.samples - samples) * 0.0025 > time.monotonic() - again  # than the schedule allows
print(profiler.status().state, after.missed > 50, often, 0.8 < seconds / elapsed < 1.01)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")
def test_a_process_that_is_stopped_for_a_while() -> None:
    """A stop leaves samples missed and its time as waiting, but no burst and no fault."""
    process = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + STOPPED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate("\n", timeout=60)

    assert "running True False True\n" == said


FORBIDDEN = {
    "f_locals": "reading them changes what runs, and they are nobody's business",
    "setswitchinterval": "it is the host's, and starves whoever waits while it is changed",
    "settrace": "there is one a thread, and it is a debugger's",
    "setprofile": "as above",
    "time.time": "the clock of the wall jumps",  # stamps are given in one place, `_clock`
    "time.time_ns": "as above",
    "CLOCK_REALTIME": "as above",
    "datetime": "as above",
}


def words_of(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a module uses, with and without what they belong to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
            if isinstance(node.value, ast.Name):
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value  # as for getattr
        elif isinstance(node, ast.Assert):
            yield "assert"


def test_what_the_package_never_does() -> None:
    """No module uses what harms hosts, nor an `assert`, which `python -O` leaves out."""
    modules = sorted(Path(ox_otel.__path__[0]).rglob("*.py"))
    assert len(modules) > 20
    used = {
        (module.name, word)
        for module in modules
        for word in words_of(ast.parse(module.read_text(encoding="utf-8")))
    }
    allowed = {
        ("_clock.py", "time.time"),
        ("_greenlets.py", "settrace"),  # greenlet's own, whose tracers are chained
    }
    assert [] == [use for use in used - allowed if use[1] in {*FORBIDDEN, "assert"}]
    assert ("_threads.py", "f_back") in used  # the search finds what there is
    assert ("_clock.py", "Random") in used
