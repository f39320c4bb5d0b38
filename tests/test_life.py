"""Life and death: started and ended at any time, from anywhere, beside whatever else there is."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ox_otel import Batch, Profiler, Settings, _life
from ox_otel._native import Worker, own_idents

PREAMBLE = """
import atexit, faulthandler, gc, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
faulthandler.register(signal.SIGALRM, chain=True)
signal.alarm(150)
import ox_otel
def until(condition):
    while not condition(): time.sleep(0.005)
"""


def run(code: str) -> tuple[int, str, str]:
    """Return exit status, stdout and stderr of *code*, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code], capture_output=True, text=True, timeout=200
    )
    return done.returncode, done.stdout, done.stderr


DESTRUCTOR = """
class Host:
    def __init__(self): self.me = self
    def __del__(self):
        profiler = ox_otel.install(interval=0.005, port=0)
        profiler.status(); profiler.pause(); profiler.unpause(); profiler.show()
        ox_otel.uninstall()
        print(profiler.status().state)
gc.set_threshold(5, 5, 5)
for _ in range(5): Host()
gc.collect()
host = Host()  # this one goes with the interpreter
"""


def test_installed_and_uninstalled_by_destructors() -> None:
    """Destructors may do all of it, in a collection and when the interpreter goes."""
    assert (0, "stopped\n" * 6, "") == run(DESTRUCTOR)


AT_EXIT = """
@atexit.register
def late():
    profiler = ox_otel.install()
    print(profiler.status().state in ("running", "failed"))
    ox_otel.uninstall()
    print(ox_otel.get(), profiler.status().state in ("stopped", "failed"))
"""


def test_installed_at_exit() -> None:
    """Installed when the interpreter ends, it says what became of it, and delays nothing."""
    assert (0, "True\nNone True\n", "") == run(AT_EXIT)


LAST = """
import tempfile
folder = tempfile.mkdtemp()
@atexit.register
def last():
    until(lambda: len(os.listdir("/proc/self/task")) == 1)  # the kernel is a little behind
    print(os.listdir(folder))
    os.rmdir(folder)
profiler = ox_otel.install(port=f"unix:{folder}/{{pid}}.sock", run_dir=folder)
print(len(os.listdir(folder)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows threads in /proc")
def test_nothing_remains_at_exit() -> None:
    """When the interpreter ends, so do all our threads, and the files of our sockets are gone."""
    assert (0, "2\n[]\n", "") == run(LAST)


HANDLER = """
calls = []
def handler(*_):
    profiler = ox_otel.install(interval=0.005)
    profiler.start(); profiler.status(); profiler.pause(); profiler.unpause()
    calls.append(profiler)
signal.signal(signal.SIGUSR1, handler)
def send():
    sent = 0
    while sent < 200 or len(calls) <= 10:  # of those that come at once, one is handled
        os.kill(os.getpid(), signal.SIGUSR1); time.sleep(0.001)
        sent += 1
thread = threading.Thread(target=send)
thread.start()
installed = set()
while thread.is_alive(): installed.add(ox_otel.install(interval=0.005))
thread.join()
print(len(calls) > 10, {*calls} == installed == {ox_otel.get()}, ox_otel.get().status().state)
"""


def test_installed_by_a_signal_handler() -> None:
    """A handler that installs, in the middle of an installation too, gets the same profiler."""
    assert (0, "True True running\n", "") == run(HANDLER)


ENDED_IN_HANDLER = """
profiler = ox_otel.install(interval=0.005)
def handler(*_): profiler.cancel(); profiler.start()
signal.signal(signal.SIGUSR1, handler)
main = threading.get_ident()
def send():
    for _ in range(3): signal.pthread_kill(main, signal.SIGUSR1); time.sleep(0.1)
thread = threading.Thread(target=send)
thread.start()
while thread.is_alive(): profiler.cancel(); profiler.start()
print(profiler.status().state)
"""


def test_ended_by_a_signal_handler() -> None:
    """A handler that ends and starts what is just being ended or started waits a moment for it."""
    status, stdout, stderr = run(ENDED_IN_HANDLER)
    assert (0, "") == (status, stderr)
    assert stdout in ("running\n", "stopped\n")


NO_THREADS = """
import resource, tempfile
folder = tempfile.mkdtemp()
def install(): return ox_otel.install(port=0, run_dir=folder)
install()  # so that all is imported: another user may not read it
ox_otel.uninstall()
os.rmdir(folder)
if os.getuid() == 0: os.setuid(65534)  # no limit holds for root
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
profiler = install()
print(profiler.status().state, profiler.status().reason, repr(profiler.url))
profiler.pause(); profiler.unpause(); profiler.show(); profiler.start()
ox_otel.uninstall()
print(len(os.listdir("/proc/self/task")), os.listdir(folder))
os.rmdir(folder)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit counts processes only elsewhere")
def test_no_threads_to_be_had() -> None:
    """Where the system has no thread left the host goes on, and the status says why."""
    status, stdout, _ = run(NO_THREADS)
    expected = "failed no thread could be started: can't start new thread ''\n1 []\n"
    assert (0, expected) == (status, stdout)


RIGHTS = """
import tempfile, urllib.error, urllib.request
folder = tempfile.mkdtemp()  # of mode 0700
os.makedirs(f"{folder}/run", 0o700)
profiler = ox_otel.install(
    interval=0.005, max_overhead=1, port=0, run_dir=f"{folder}/run", kill_file=f"{folder}/off" if KILL_FILE else None
)
until(lambda: profiler.status().samples)
def post(path):
    try: return urllib.request.urlopen(profiler.url + path, b"").read()
    except urllib.error.HTTPError as error: return error.read()
print(post("/unpause")[:1])
os.setgroups([]); os.setgid(65534); os.setuid(65534)
before = profiler.status().samples
if KILL_FILE:
    until(lambda: profiler.status().state == "suspended")
    print(profiler.status().reason)
else:
    until(lambda: profiler.status().samples > before + 300)  # several batches
    profiler.snapshot()
metrics = urllib.request.urlopen(profiler.url + "/metrics").read()
print(post("/pause"), profiler.is_paused(), b"ox_profile" in metrics)
ox_otel.uninstall()
print(profiler.snapshot().errors)
"""


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root has rights to give up"
)
@pytest.mark.parametrize("kill_file", [False, True])
def test_rights_are_given_up(*, kill_file: bool) -> None:
    """A process that began as root goes on, and says what it cannot do any more."""
    reason = "the kill file cannot be looked for: PermissionError\n" if kill_file else ""
    alone = b"done, but by this process alone: its service cannot be told\n"
    expected = f"b'{{'\n{reason}{alone} True True\n{{'request': 1}}\n"
    assert (0, expected, "") == run(f"KILL_FILE = {kill_file}\n{RIGHTS}")


RELOADED = """
import importlib
first = ox_otel.install(interval=0.005)
importlib.reload(ox_otel)
print(ox_otel.install() is first is ox_otel.get(), first.status().state)
ox_otel.uninstall()
print(first.status().state)
"""


def test_a_reload_changes_nothing() -> None:
    """The package loaded again has the profiler that was installed before."""
    assert (0, "True running\nstopped\n", "") == run(RELOADED)


TRACED = """
import pathlib
seen = set()
def trace(frame, event, argument):
    seen.add((threading.get_ident(), frame.f_code.co_filename))
    return trace
threading.settrace(trace); threading.setprofile(trace); sys.settrace(trace); sys.setprofile(trace)
profiler = ox_otel.install(interval=0.005, port=0)
until(lambda: profiler.status().samples > 20)
profiler.snapshot()
print(sys.gettrace() is trace is sys.getprofile())
sys.settrace(None); sys.setprofile(None)
main = threading.get_ident()
print({ident for ident, file in seen} == {main}, profiler.status().state)
"""


def test_beside_a_debugger() -> None:
    """Hooks of debuggers and coverage stay where they are, and never run in our threads."""
    assert (0, "True\nTrue running\n", "") == run(TRACED)


SHORT = """
import random
import ox_otel._endpoint, ox_otel._life, ox_otel._service
# far from what a busy machine takes: whoever waits in vain is told from who waits for a core
ox_otel._life.STOP_SECONDS = ox_otel._endpoint.CLOSE_SECONDS = ox_otel._service._CLOSE_SECONDS = 15
def burn():
    while True: sum(range(100))
def end(number):
    if number % 8 == 0: threading.Thread(target=burn, daemon=True).start()
    profiler = ox_otel.install(
        interval=0.001,
        max_overhead=1,
        recorders="" if number % 20 else "prometheus",
        port=None if number % 10 else 0,
    )
    if number % 3 == 0: profiler.pause()
    if number % 5 == 0: profiler.snapshot()
    time.sleep(random.random() * 0.01)
    os.write(writing, b"%d %f\\n" % (os.getpid(), time.monotonic()))
reading, writing = os.pipe()
began, ended, statuses = {}, {}, []
for batch in range(25):
    pids = []
    for number in range(8):
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            end(8 * batch + number)
            sys.exit(0)  # with all that an interpreter does at its end
        pids.append(pid)
    for _ in pids:
        pid, status = os.wait()
        ended[pid] = time.monotonic()
        statuses.append(os.waitstatus_to_exitcode(status))
    for line in os.read(reading, 65536).splitlines():
        pid, when = line.split()
        began[int(pid)] = float(when)
seconds = sorted(ended[pid] - began[pid] for pid in ended)
print(len(seconds), set(statuses), seconds[180] < 8 or seconds)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_two_hundred_short_lives() -> None:
    """Processes that end just after the start, at rest or under load, end well and at once."""
    assert (0, "200 {0} True\n", "") == run(SHORT)


def test_started_while_it_is_ending() -> None:
    """Started when a thread that was told to end has not yet, it runs all the same."""

    class Slow:
        def record(self, batch: Batch) -> None:
            recording.set()
            go_on.wait(60)

    recording, go_on = threading.Event(), threading.Event()
    profiler = Profiler(Settings(interval=0.005))
    profiler.add_recorder(Slow(), quick=True)
    profiler.start()
    recording.wait(60)
    profiler.cancel()
    assert own_idents
    threading.Timer(0.2, go_on.set).start()
    profiler.start()
    assert "running" == profiler.status().state
    profiler.cancel()
    until(lambda: not own_idents)


def _fork() -> None:
    """Fork a child that ends by itself; wait for it."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        os._exit(len(own_idents) > 1)
    assert 0 == os.waitpid(pid, 0)[1]


VERBS: dict[str, Callable[[Profiler], object]] = {
    "start": Profiler.start,
    "pause": Profiler.pause,
    "unpause": Profiler.unpause,
    "set_interval": lambda profiler: profiler.set_interval(0.005),
    "cancel": Profiler.cancel,
    "snapshot": Profiler.snapshot,
    "status": Profiler.status,
    **({"fork": lambda _: _fork()} if hasattr(os, "fork") else {}),
}


def sampling_threads() -> int:
    """Return how many threads of ours sample, as the system has it."""
    if sys.platform != "linux":
        return len(own_idents)
    comms = []
    for task in Path("/proc/self/task").iterdir():
        try:
            comms.append((task / "comm").read_text())
        except OSError:  # it has just ended
            continue
    return comms.count("ox_otel\n")


class Life(RuleBasedStateMachine):
    """One profiler, controlled by four threads, one after the other and all at once."""

    def __init__(self) -> None:
        super().__init__()
        self.threads = ThreadPoolExecutor(4)
        self.profiler = Profiler(Settings(interval=0.002, max_overhead=1))
        self.expected: str | None = "stopped"  # None: it depends on who was faster

    @rule(verb=st.sampled_from([*VERBS]))
    def one(self, verb: str) -> None:
        """One thread does something."""
        self.threads.submit(VERBS[verb], self.profiler).result(60)
        if verb == "start" and self.expected == "stopped":
            self.expected = "running"
        elif verb == "cancel":
            self.expected = "stopped"
        elif verb in ("pause", "unpause") and self.expected in ("running", "paused"):
            self.expected = {"pause": "paused", "unpause": "running"}[verb]

    @rule(verbs=st.lists(st.sampled_from([*VERBS]), min_size=4, max_size=4))
    def all_at_once(self, verbs: list[str]) -> None:
        """Four threads do something at the same time."""
        barrier = threading.Barrier(4)

        def act(verb: str) -> None:
            barrier.wait(60)
            VERBS[verb](self.profiler)

        for future in [self.threads.submit(act, verb) for verb in verbs]:
            future.result(60)
        if {"start", "cancel", "pause", "unpause"}.intersection(verbs):
            self.expected = None

    @invariant()
    def one_thread_samples_or_none(self) -> None:
        """There is one thread if it is not stopped, else none."""
        state = self.profiler.status().state
        assert state in ("running", "paused", "stopped")
        assert self.expected in (None, state)
        until(lambda: sampling_threads() == len(own_idents) == (state != "stopped"))
        self.expected = state

    def teardown(self) -> None:
        """In the end it can be ended."""
        self.profiler.cancel()
        self.threads.shutdown()
        assert "stopped" == self.profiler.status().state
        until(lambda: sampling_threads() == len(own_idents) == 0)


def until(condition: Callable[[], bool]) -> None:
    """Wait until *condition* holds: a thread that was told to end may need a moment."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Late(Worker):
    """A thread that the system takes its time to give."""

    def __init__(self, target: Callable[[], None], name: str) -> None:
        time.sleep(0.1)
        super().__init__(target, name)


def test_started_by_many_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes until there is a thread, those who start at the same time get one."""
    monkeypatch.setattr(_life, "Worker", Late)
    with Profiler(Settings()) as profiler:
        profiler.cancel()
        with ThreadPoolExecutor(4) as threads:
            for _ in range(4):
                threads.submit(profiler.start)
        deadline = time.monotonic() + 60
        while (
            not own_idents and time.monotonic() < deadline
        ):  # who is started may come to run later
            time.sleep(0.01)
        assert 1 == len(own_idents)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_life_controlled_by_four_threads() -> None:
    """Whatever they do, one thread samples or none, and in the end none is left."""
    run_state_machine_as_test(
        Life, settings=settings(max_examples=15, stateful_step_count=15, deadline=None)
    )
