"""Forks: whatever our threads do, a child works, begins anew by itself, and harms nobody."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ox_otel import Batch, Profiler, _fork
from ox_otel._fork import WAIT_SECONDS, follow_forks, uncut

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

PREAMBLE = """
import faulthandler, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")  # of forking with threads: that is the point here
# not `dump_traceback_later`: a child, which lacks its thread, would wait for that at its end
faulthandler.register(signal.SIGALRM, chain=True)
signal.alarm(150)
import ox_otel
from prometheus_client import REGISTRY, generate_latest

def child(act):  # its exit status is 0 if it has done so, in time
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        status = 1
        try:
            act()
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    return pid
def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def until(condition):
    while not condition(): time.sleep(0.005)
"""


def until(condition: Callable[[], bool]) -> None:
    """Wait until *condition* holds."""
    while not condition():
        time.sleep(0.001)


def run(code: str) -> tuple[str, str]:
    """Return what *code* prints to stdout and stderr, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code], capture_output=True, text=True, timeout=200
    )
    return done.stdout, done.stderr


MANY = """
profiler = ox_otel.install(interval=0.005, max_overhead=1, port=0)
until(lambda: profiler.status().samples)
def live():
    profiler.status(); profiler.pause(); profiler.show(); generate_latest(REGISTRY)
    profiler.unpause(); profiler.set_interval(0.01); profiler.snapshot()
ends = []
for _ in range(20):
    ends += map(end, [child(live) for _ in range(10)])
print(len(ends), set(ends), profiler.status().state)
before = profiler.status().samples
until(lambda: profiler.status().samples > before)
"""


def test_two_hundred_forks() -> None:
    """No child of a process that is sampled two hundred times a second hangs, nor does that one."""
    assert ("200 {0} running\n", "") == run(MANY)


RESUMED = """
profiler = ox_otel.install(interval=0.005, max_overhead=1)
def of_parent(): until(lambda: profiler.query("__main__.of_parent").total)
of_parent()
until(lambda: profiler.status().samples >= 3)
generate_latest(REGISTRY)
profiler.set_interval(60)  # a child that has to wait for a core takes no samples meanwhile
def live():
    print(ox_otel.get() is profiler, profiler.status().samples < 3, profiler.status().pid == os.getpid())
    print(f"of_parent" in str(profiler.snapshot().functions), b"of_parent" in generate_latest(REGISTRY))
    profiler.set_interval(0.005)
    until(lambda: profiler.status().samples)
    def of_child(): until(lambda: profiler.query("__main__.*of_child").total)
    of_child()
    print(profiler.status().state, b"of_child" in generate_latest(REGISTRY))
print(end(child(live)), "of_parent" in str(profiler.snapshot().functions))
"""


def test_a_child_is_sampled_from_nothing() -> None:
    """A child goes on by itself, with the same object, and knows no figure of its parent's."""
    assert ("True True True\nFalse False\nrunning True\n0 True\n", "") == run(RESUMED)


WISHES = """
profiler = ox_otel.install(interval=0.5)
profiler.set_interval(0.25)
profiler.pause()
def live():
    print(profiler.status().state, profiler.status().interval, profiler.status().samples)
    profiler.set_interval(0.005)
    profiler.unpause()
    until(lambda: profiler.status().samples)
    end(child(lambda: print(profiler.status().state, profiler.status().interval)))
    profiler.cancel()
    end(child(lambda: print(profiler.status().state)))
print(end(child(live)), profiler.status().state)
"""


def test_a_child_has_the_wishes_of_its_parent() -> None:
    """Paused or not, at which interval, and stopped: as at the fork, and each is free to change."""
    assert ("paused 0.25 0\nrunning 0.005\nstopped\n0 paused\n", "") == run(WISHES)


BYPASSED = """
import ctypes
profiler = ox_otel.install(interval=0.005, port=0)
url = profiler.url
until(lambda: profiler.status().samples > 5)
profiler.pause()  # the interpreter itself is not fit for it while a thread waits for the GIL
used = -1
def is_at_rest():
    global used
    time.sleep(0.2)
    before, used = used, time.process_time_ns() - time.thread_time_ns()
    return used - before < 100_000
until(is_at_rest)
pid = ctypes.PyDLL(None).fork()  # without Python's hooks
if pid == 0:
    print(profiler.status().samples, profiler.status().state, repr(profiler.url))
    profiler.unpause()
    until(lambda: profiler.status().samples > 5)
    os._exit(0)
print(end(pid), profiler.status().state, profiler.url == url)
"""


def test_a_fork_behind_pythons_back() -> None:
    """A child in which no hook was called begins anew as soon as anybody asks."""
    assert ("0 paused ''\n0 paused True\n", "") == run(BYPASSED)


def test_whoever_adds_a_recorder_is_the_first_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told everything once, though what it is added to begins anew just then."""

    class Recorder:
        def record(self, batch: Batch) -> None:
            batches.append(batch)

    batches: list[Batch] = []
    profiler = Profiler()
    monkeypatch.setattr(_fork, "_begun", {0: object()})  # as in such a child
    profiler.add_recorder(Recorder(), quick=True)
    with profiler:
        profiler.snapshot()
    assert batches
    assert len(batches) == len({id(batch) for batch in batches})


CUT = """
ox_otel._fork.WAIT_SECONDS = 10  # a starved machine takes its time
lock = threading.Lock()
class Recorder:
    def record(self, batch):
        with lock: time.sleep(0.01)
profiler = ox_otel.install(interval=0.001, max_overhead=1, recorders=[Recorder()])
def hurry():
    while True: profiler.snapshot()
threading.Thread(target=hurry, daemon=True).start()
until(lambda: lock.locked())
print({end(child(lambda: lock.acquire(timeout=5) or 1 / 0)) for _ in range(30)}, flush=True)
os._exit(0)
"""


def test_a_delivery_is_not_cut() -> None:
    """A recorder is not in the middle of its work in a child, with a lock that nobody opens."""
    assert ("{0}\n", "") == run(CUT)


SCRAPED = """
import urllib.request
ox_otel._fork.WAIT_SECONDS = 10  # a starved machine takes its time
lock = threading.Lock()
class Collector:
    def describe(self): return []
    def collect(self):
        with lock: time.sleep(0.01)
        return []
REGISTRY.register(Collector())
profiler = ox_otel.install(port=0)
def scrape():
    while True: urllib.request.urlopen(profiler.url + "/metrics").read()
url = profiler.url
threading.Thread(target=scrape, daemon=True).start()
until(lambda: lock.locked())
print({end(child(lambda: lock.acquire(timeout=5) or 1 / 0)) for _ in range(30)}, flush=True)
os._exit(0)
"""


def test_a_scrape_is_not_cut() -> None:
    """Collectors of the host that our endpoint asks are not left locked in a child."""
    assert ("{0}\n", "") == run(SCRAPED)


INSTALLING = """
import types
slow = sys.modules["slow"] = types.ModuleType("slow")
making, forked = threading.Event(), threading.Event()
def make():
    making.set()
    forked.wait(100)
    return ox_otel.CountingRecorder()
slow.make = make
threading.Thread(target=ox_otel.install, kwargs={"recorders": "slow:make"}).start()
making.wait()
def install():
    profiler = ox_otel.install(recorders="prometheus")
    until(lambda: profiler.status().samples)
    assert b"ox_profile_running 1.0" in generate_latest(REGISTRY)
    assert profiler is ox_otel.install()
ends = end(child(lambda: (ox_otel.uninstall(), ox_otel.install()))), end(child(install))
forked.set()
print(*ends)
"""


def test_an_installation_is_not_left_locked() -> None:
    """A child forked while another thread installs can install for itself, all of it."""
    assert ("0 0\n", "") == run(INSTALLING)


FORKING = """
class Recorder:
    def record(self, batch):
        if os.getpid() == parent and not ends: ends.append(end(child(profiler.status)))
parent, ends = os.getpid(), []
profiler = ox_otel.install(interval=0.001, recorders=[Recorder()])
until(lambda: ends or profiler.snapshot() and False)
print(ends[0])
"""


def test_a_recorder_may_fork() -> None:
    """A fork from within a delivery is none that it has to wait for."""
    assert ("0\n", "") == run(FORKING)


SHORT = """
profiler = ox_otel.install(interval=0.005, port=0)
until(lambda: profiler.status().samples)
def leave():
    began = time.monotonic()
    pid = os.fork()
    if pid == 0: signal.alarm(60); sys.exit(7)
    return end(pid), time.monotonic() - began
ends = [leave() for _ in range(40)]
print({status for status, _ in ends}, min(seconds for _, seconds in ends) < 0.5)
"""


def test_a_child_that_ends_at_once() -> None:
    """Interpreters of children end as soon as they please, with their own status."""
    assert ("{7} True\n", "") == run(SHORT)


THREADS = """
profiler = ox_otel.install(interval=0.005, max_overhead=1)
ends = []
def fork():
    for _ in range(10): ends.append(end(child(lambda: (profiler.snapshot(), profiler.pause()))))
threads = [threading.Thread(target=fork) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(ends), set(ends), profiler.status().state)
"""


def test_forks_from_many_threads_at_once() -> None:
    """Threads that fork at the same time do not lock each other or their children."""
    assert ("40 {0} running\n", "") == run(THREADS)


MASTER = """
profiler = ox_otel.install(interval=0.005)
until(lambda: profiler.status().samples)
arbiter = {{"__name__": "{module}", "os": os}}
exec("def fork(): return os.fork()", arbiter)
server = {{"__name__": "{server}", "arbiter": arbiter}}
exec("def spawn(): return arbiter['fork']()", server)
def threads(): return len(os.listdir("/proc/self/task")) if sys.platform == "linux" else {left}
pid = server["spawn"]()
if pid == 0:
    until(lambda: profiler.status().samples)
    pid = os.fork()  # of its own, as a worker may
    if pid == 0: os._exit(0)
    end(pid)
    print(profiler.status().state, flush=True)
    os._exit(0)
status = end(pid)
until(lambda: threads() == {left})  # the kernel is a little behind
print(status, profiler.status().state, "workers" in profiler.status().reason, threads())
"""


@pytest.mark.parametrize(
    ("module", "server", "left"),
    [
        ("gunicorn.arbiter", "gunicorn.arbiter", 1),
        ("billiard.popen_fork", "celery.concurrency.prefork", 1),
        ("billiard.popen_fork", "shop.pool", 2),
        ("anything.else", "celery.concurrency.prefork", 2),
    ],
)
def test_a_master_hands_over(module: str, server: str, left: int) -> None:
    """Who forks workers for a server keeps no thread, they are sampled; all others go on."""
    state = "stopped True 1" if left == 1 else "running False 2"
    master = MASTER.format(module=module, server=server, left=left)
    assert (f"running\n0 {state}\n", "") == run(master)


CANCELLED = """
profiler = ox_otel.install(interval=0.005)
profiler.hand_over()
profiler.cancel()
pid = os.fork()
if pid == 0:
    print(profiler.status().state, flush=True)
    os._exit(0)
print(end(pid))
"""


def test_a_master_that_was_cancelled_has_workers_that_are_not_sampled() -> None:
    """After `cancel` in a master that has handed over, no worker resumes."""
    assert ("stopped\n0\n", "") == run(CANCELLED)


def test_a_master_is_sampled_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the setting, a master goes on as any other process."""
    monkeypatch.setenv("OX_OTEL_MASTER", "true")
    master = MASTER.format(module="gunicorn.arbiter", server="gunicorn.arbiter", left=2)
    assert ("running\n0 running False 2\n", "") == run(master)


HELD = """
profiler = ox_otel.install(interval=0.005)
until(lambda: profiler.status().samples)
held = [profiler._life._changing, ox_otel._fork.uncut._door]
for lock in held: lock.acquire()  # by whoever starts, ends or forks right now
def live():
    profiler.cancel()
    print(profiler.status().state)
    profiler.start()
    profiler.count_error("scrape")
    print(profiler.status().state, profiler.snapshot().errors)
pid = child(live)
for lock in held: lock.release()
print(end(pid), profiler.status().state)
"""


def test_locks_that_others_hold_are_made_anew() -> None:
    """A child can be controlled, and counts, whoever held a lock of ours at the fork."""
    assert ("stopped\nrunning {'scrape': 1}\n0 running\n", "") == run(HELD)


LEFT = """
import ox_otel._life, tempfile
ox_otel._life.STOP_SECONDS = 15  # far from what a busy machine takes
class Hanging:
    def record(self, batch):
        hanging.set()
        time.sleep(100)
hanging = threading.Event()
folder = tempfile.mkdtemp()
profiler = ox_otel.install(interval=0.005, run_dir=folder, recorders=[Hanging()])
hanging.wait()
def names(): return [name for name in os.listdir(folder) if name.endswith(".sock")]
alone = names()
arbiter = {"__name__": "gunicorn.arbiter", "os": os}
exec("def spawn(): return os.fork()", arbiter)
began = time.monotonic()
pid = arbiter["spawn"]()
if pid == 0:
    until(lambda: names() and names() != alone)
    ox_otel._life.STOP_SECONDS = 0.1  # its recorder hangs, too
    ox_otel.uninstall()
    os._exit(0)
print(time.monotonic() - began < 10, end(pid), names())
os._exit(sys.stdout.flush() or 0)
"""


def test_a_master_leaves_the_service_at_once() -> None:
    """A worker is in the service, its master no more; no recorder holds up the fork for long."""
    assert ("True 0 []\n", "") == run(LEFT)


IMPORTS = """
import urllib.request
imported = []
def hook(event, arguments):
    if event == "import" and threading.get_ident() != main: imported.append(arguments[0])
main = threading.get_ident()
profiler = ox_otel.install(interval=0.005, port=0)
sys.addaudithook(hook)
for path in ("/", "/status", "/metrics", "/nowhere"):
    try: urllib.request.urlopen(profiler.url + path).read()
    except urllib.error.HTTPError: pass
urllib.request.urlopen(profiler.url + "/interval", b"seconds=0.01").read()
until(lambda: profiler.status().samples > 10)
profiler.snapshot()
ox_otel.uninstall()
print(imported)
"""


def test_our_threads_import_nothing() -> None:
    """A child forked in the middle of an import could never import that module."""
    assert ("[]\n", "") == run(IMPORTS)


def test_work_that_does_not_end_is_waited_for_once() -> None:
    """A recorder that hangs delays one fork, by a tenth of a second, and no other."""
    inside, leave = threading.Event(), threading.Event()

    def hang() -> None:
        with uncut:
            inside.set()
            leave.wait()

    worker = threading.Thread(target=hang)
    worker.start()
    inside.wait()
    seconds = []
    for _ in range(5):
        began = time.monotonic()
        uncut.close()
        seconds.append(time.monotonic() - began)
        uncut.open()
    leave.set()
    worker.join()

    assert seconds[0] >= WAIT_SECONDS
    assert min(seconds[1:]) < WAIT_SECONDS / 2


def test_work_that_forks_does_not_wait_for_itself() -> None:
    """A recorder may fork without delay."""
    seconds = []
    for _ in range(5):
        with uncut:
            began = time.monotonic()
            uncut.close()
            seconds.append(time.monotonic() - began)
            uncut.open()

    assert min(seconds) < WAIT_SECONDS / 2


def test_work_within_work_is_not_cut() -> None:
    """A fork waits for the whole of what a thread does, though a part of it is over."""
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with uncut:
            with uncut:
                pass
            inside.set()
            leave.wait()

    worker = threading.Thread(target=work)
    worker.start()
    inside.wait()
    began = time.monotonic()
    uncut.close()
    seconds = time.monotonic() - began
    uncut.open()
    leave.set()
    worker.join()

    assert seconds >= WAIT_SECONDS


def test_work_within_work_does_not_wait_for_the_fork_that_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who is inside already comes in once more while a fork holds the door."""
    monkeypatch.setattr(_fork, "WAIT_SECONDS", 20)
    inside, closing = threading.Event(), threading.Event()

    def work() -> None:
        with uncut:
            inside.set()
            closing.wait()
            until(uncut._door.locked)
            with uncut:
                pass

    worker = threading.Thread(target=work)
    worker.start()
    inside.wait()
    closing.set()
    began = time.monotonic()
    uncut.close()
    seconds = time.monotonic() - began
    uncut.open()
    worker.join()

    assert seconds < 10


FAULTY = """
import logging
logging.basicConfig(format="%(message)s", stream=sys.stdout)
from ox_otel._fork import follow_forks
def fail(): raise OSError
follow_forks(fail, fail)
follow_forks(lambda: print("renewed"), lambda: print("resumed"))
print(end(child(lambda: None)))
"""


def test_a_fault_after_a_fork_is_of_one_follower_only() -> None:
    """Who raises while a child begins anew keeps nobody else from it; it is said once."""
    said = "ox_otel: not in order after a fork: OSError\n"
    assert (f"{said}renewed\nresumed\n0\n", "") == run(FAULTY)


STARTED = """
import subprocess
profiler = ox_otel.install(port="0", run_dir={folder!r})
def threads(): print(len(os.listdir("/proc/self/task")), profiler.status().pid == os.getpid(), flush=True)
subprocess.run(["true"], preexec_fn=threads, check=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows threads in /proc")
def test_nothing_is_started_before_another_program_is(tmp_path: Path) -> None:
    """The child that `subprocess` forks for a `preexec_fn` begins anew, but without threads of ours."""
    assert ("1 True\n", "") == run(STARTED.format(folder=str(tmp_path / "run")))


def test_who_is_gone_is_not_told() -> None:
    """To follow forks keeps nobody alive, and leaves nothing behind."""

    class Follower:
        def renew(self) -> None: ...

    before = len(_fork._followers)
    for _ in range(10):
        follow_forks(Follower().renew)

    assert len(_fork._followers) <= before + 1


IDENTS = """
from ox_otel._native import Worker, own_idents
Worker(lambda: time.sleep(200), "ox_otel_test")
until(lambda: own_idents)
def live(): own_idents and 1 / 0
print(end(child(live)), len(own_idents), flush=True)
os._exit(0)
"""


def test_a_child_has_no_threads_of_ours() -> None:
    """A thread of the child that gets the ident of one of ours is not left out of samples."""
    assert ("0 1\n", "") == run(IDENTS)


HELPERS = """
import multiprocessing
os.environ["OX_OTEL_INTERVAL"] = "0.005"
profiler = ox_otel.install()
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["ox_otel"])
process = context.Process(target=time.sleep, args=(200,))
process.start()
def children(pid):
    found = open(f"/proc/{pid}/task/{pid}/children").read().split()
    return found + [one for child in found for one in children(child)]
until(lambda: len(children(os.getpid())) == 3)  # it, the server that forked it, the tracker
comms = [
    open(f"/proc/{pid}/task/{task}/comm").read()
    for pid in children(os.getpid()) for task in os.listdir(f"/proc/{pid}/task")
]
print(len(comms), "ox_otel\\n" in comms)
process.kill()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows processes in /proc")
def test_helpers_are_not_profiled() -> None:
    """Neither variables nor an import start anything where nobody has installed a profiler."""
    assert ("3 False\n", "") == run(HELPERS)


OTEL = """
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.metrics import set_meter_provider
reader = InMemoryMetricReader()
set_meter_provider(MeterProvider([reader]))
profiler = ox_otel.install(interval=0.005, recorders="otel")
def of_parent(): until(lambda: profiler.query("__main__.of_parent").total)
of_parent()
def collected(): return reader.get_metrics_data().to_json()
def live():
    if "of_parent" in collected(): raise SystemExit("the figures of the parent")
    def of_child(): until(lambda: profiler.query("__main__.*of_child").total)
    of_child()
    if "of_child" not in collected(): raise SystemExit("no figures of its own")
print({end(child(live)) for _ in range(5)}, "of_parent" in collected())
"""


def test_opentelemetry_counts_nothing_twice() -> None:
    """What a child hands to the SDK of its own begins at nothing."""
    assert ("{0} True\n", "") == run(OTEL)
