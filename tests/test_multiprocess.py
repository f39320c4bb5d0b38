"""Many processes, one truth: counters of prometheus_client that outlive their process and add up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

PREAMBLE = """
import faulthandler, gc, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
faulthandler.register(signal.SIGALRM, chain=True)
signal.alarm(150)
import ox_otel
from ox_otel import Batch, Function, Node, Usage
from ox_otel.prometheus import expose
from prometheus_client.parser import text_string_to_metric_families

def scrape():
    return [
        sample
        for family in text_string_to_metric_families(expose("")[1].decode())
        for sample in family.samples
    ]
def total(name, **labels):
    return sum(
        sample.value for sample in scrape()
        if sample.name == "ox_profile_" + name and labels.items() <= sample.labels.items()
    )
def until(condition):
    while not condition(): time.sleep(0.005)
"""


def run(code: str, folder: Path) -> tuple[str, str]:
    """Return what *code* prints to stdout and stderr, in processes that keep counts in *folder*."""
    return run_command("-c", PREAMBLE + code, folder=folder)


def run_command(*arguments: str, folder: Path) -> tuple[str, str]:
    """Return what Python prints to stdout and stderr with these *arguments*."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done.stdout, done.stderr


WORKERS = """
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
profiler = ox_otel.install(interval=0.005, max_overhead=1)
until(lambda: profiler.status().samples > 5)
reading, writing = os.pipe()
living_reading, living_writing = os.pipe()
workers = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        until(lambda: profiler.status().samples > 20)
        profiler.snapshot()
        running = int(total("running") >= 1)
        profiler.pause(); profiler.snapshot()
        counted = profiler.snapshot()
        stacks = sum(usage.self_hits for usage in counted.functions.values())
        os.write(writing, f"{counted.samples} {stacks} {running}\\n".encode())
        if number == 1: os.kill(os.getpid(), signal.SIGKILL)
        if number == 2: os.read(living_reading, 1)
        os._exit(0)
    workers.append(pid)
for pid in workers[:2]: os.waitpid(pid, 0)
lines = b""
while lines.count(b"\\n") < 3: lines += os.read(reading, 1000)
counts = [tuple(map(int, line.split())) for line in lines.split(b"\\n")[:3]]
profiler.pause(); profiler.snapshot()
mine = profiler.snapshot()
counts.append((mine.samples, sum(usage.self_hits for usage in mine.functions.values()), 0))
samples, stacks, running = map(sum, zip(*counts))
print(running, samples == total("samples_total"), stacks == total("stacks_total") == total("self_hits_total"))
print(abs(total("observed_seconds_total") - total("self_seconds_total")) < 1e-6)
print(total("running"), total("series_limit"))
for pid in workers[:2]: mark_process_dead(pid)
print(total("series_limit"))
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry) == expose("")[1])
os.write(living_writing, b"!")
os.waitpid(workers[2], 0)
"""


def test_all_workers_add_up(tmp_path: Path) -> None:
    """One scrape has the counts of all workers, of those that were killed too, and of no other."""
    expected = ["3 True True", "True", "0.0 8000.0", "4000.0", "True"]
    stdout, stderr = run(WORKERS, tmp_path)
    assert (expected, "") == (stdout.splitlines(), stderr)


STATES = """
profiler = ox_otel.install(interval=0.005)
until(lambda: total("running") == 1)
profiler.pause()
until(lambda: total("running") == 0)
profiler.snapshot(); profiler.snapshot()
print(total("series") == profiler.status().series)
profiler.unpause()
until(lambda: total("running") == 1)
ox_otel.uninstall()
print(total("running"))
print(ox_otel.install(port=0).status().state)
"""


def test_states_are_shown(tmp_path: Path) -> None:
    """Whether a process samples is true in the files, and a second life finds them in order."""
    assert ("True\n0.0\nrunning\n", "") == run(STATES, tmp_path)


BOUNDED = """
from ox_otel._multiprocess import MultiprocessRecorder
from ox_otel import Profiler, Settings
recorder = MultiprocessRecorder(Profiler(Settings(max_series=200)))
given = 0
for n in range(1, 1000):
    old, heir = Function("m", f"f{n - 1}"), Function("__other__", f"__retired_{n}__")
    given += n
    root, node = Node("total", 0, "total"), Node(f"total{n:05}", 1, f"m.f{n}")
    recorder.record(Batch(
        {Function("m", f"f{n}"): Usage(n, n, 1.0, 1.0, 1.0, 1.0)}, tree={root: 0, node: 10**9}, retired={old: heir}
    ))
print(len(scrape()) <= 200, total("self_hits_total") == total("stacks_total") == given)
print(total("tree_self_seconds_total") == total("tree_seconds_total", level="0") == 999)
print(total("hits_total", function="__other__") > total("hits_total", function="f1") == 1)
"""


def test_series_are_bounded(tmp_path: Path) -> None:
    """Functions and nodes that come and go make no more series than the limit, and lose no count."""
    assert ("True True\nTrue\nTrue\n", "") == run(BOUNDED, tmp_path)


ROUTES = """
from ox_otel import RouteUsage
from ox_otel._multiprocess import MultiprocessRecorder
recorder = MultiprocessRecorder(ox_otel.Profiler())
for _ in range(2):
    recorder.record(Batch(routes={"/a": RouteUsage(2, 1.0, 0.5), "/b": RouteUsage(1, 0.0, 0.0)}))
print(total("route_requests_total"), total("route_requests_total", route="/a"))
print(total("route_cpu_seconds_total", route="/a"), total("route_wait_seconds_total"))
"""


def test_routes_add_up(tmp_path: Path) -> None:
    """What requests cost is in the files, too, by route."""
    assert ("6.0 4.0\n2.0 1.0\n", "") == run(ROUTES, tmp_path)


FULL = """
class Disk:
    f_bavail, f_frsize = 1000, 4096
room = os.statvfs
from ox_otel._multiprocess import MultiprocessRecorder
recorder = MultiprocessRecorder(ox_otel.Profiler())
batch = Batch({Function("m", "f"): Usage(1, 1, 1.0, 1.0, 1.0, 1.0)}, samples=1)
os.statvfs = lambda folder: Disk  # to fill a real disk would harm whoever tests
try: recorder.record(batch)
except OSError as error: print(error)
print(total("samples_total"), total("hits_total"))
os.statvfs = room
recorder.record(batch)
print(total("samples_total"), total("hits_total"))
"""


def test_a_full_disk_is_left_alone(tmp_path: Path) -> None:
    """Where there is hardly room left nothing is written, which could end the process."""
    lines = ["less than 16 MiB are free for PROMETHEUS_MULTIPROC_DIR", "0.0 0", "1.0 1.0"]
    assert ("\n".join(lines) + "\n", "") == run(FULL, tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Where the files cannot be made, nothing is installed, and the error says why."""
    code = "try: ox_otel.install()\nexcept ox_otel.ConfigError as error: print(error)"
    stdout, stderr = run(code, tmp_path / "missing")
    assert "'prometheus' cannot be had: [Errno 2]" in stdout
    assert "" == stderr


DESTRUCTORS = """
from prometheus_client import Counter
from ox_otel._multiprocess import MultiprocessRecorder
destroyed = Counter("destroyed", "Garbage collected.")
class Garbage:
    def __init__(self): self.me = self
    def __del__(self): destroyed.inc()
recorder = MultiprocessRecorder(ox_otel.Profiler(ox_otel.Settings(max_series=100_000)))
gc.set_threshold(1, 1, 1)
for n in range(300):
    for _ in range(10): Garbage()
    recorder.record(Batch({Function("m", f"f{n}"): Usage(1, 1, 1.0, 1.0, 1.0, 1.0)}))
print(total("hits_total"), gc.isenabled())
gc.disable()
recorder.record(Batch())
print(gc.isenabled())
"""


def test_destructors_may_count(tmp_path: Path) -> None:
    """Garbage of the host that increments a counter is not collected while we hold its lock."""
    assert ("300.0 True\nFalse\n", "") == run(DESTRUCTORS, tmp_path)


CORRUPT = """
import urllib.error, urllib.request
profiler = ox_otel.install(interval=0.005, port=0)
def answer():
    try: return urllib.request.urlopen(profiler.url + "/metrics").status
    except urllib.error.HTTPError as error: return error.code
folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
with open(f"{folder}/counter_1.db", "wb") as file: file.write(b"\\x3f" + b"\\x00" * 7 + b"\\x3f" * 92)
print(answer(), profiler.status().state)
os.remove(f"{folder}/counter_1.db")
print(answer())
"""


def test_a_file_that_is_broken(tmp_path: Path) -> None:
    """Without it the sums would be wrong, so that scrape fails; sampling goes on."""
    assert ("500 running\n200\n", "") == run(CORRUPT, tmp_path)


MOVED = """
import os
os.chdir("..")
os.environ["PROMETHEUS_MULTIPROC_DIR"] = os.path.basename(os.environ["PROMETHEUS_MULTIPROC_DIR"])
profiler = ox_otel.install(interval=0.005, max_overhead=1)
until(lambda: profiler.status().samples > 5)
os.chdir("/")
profiler.snapshot()
print(profiler.status().errors)
os.environ["PROMETHEUS_MULTIPROC_DIR"] = FOLDER
print(total("samples_total") > 5)
"""


def test_a_host_that_changes_its_folder(tmp_path: Path) -> None:
    """A folder that was named relative to the one at the start is still looked at there."""
    code = f"FOLDER = {str(tmp_path)!r}\nos.chdir(FOLDER)\n" + MOVED
    assert ("0\nTrue\n", "") == run(code, tmp_path)


RIGHTS = """
os.chmod(os.path.dirname(os.environ["PROMETHEUS_MULTIPROC_DIR"]), 0o700)
profiler = ox_otel.install(interval=0.005, max_overhead=1)
until(lambda: profiler.status().samples > 5)
profiler.snapshot()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
until(lambda: profiler.status().errors)
before = profiler.status().samples
until(lambda: profiler.status().samples > before)
print(profiler.status().state)
"""


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root has rights to give up"
)
def test_rights_are_given_up(tmp_path: Path) -> None:
    """A process that cannot reach its files any more goes on, counts that as errors, and says so."""
    (tmp_path / "counts").mkdir()
    said = "ox_otel: recorder MultiprocessRecorder failed: PermissionError\n"
    assert ("running\n", said) == run(RIGHTS, tmp_path / "counts")


ENDING = """
{early}
profiler = ox_otel.install(interval=0.005, max_overhead=1)
import multiprocessing
def work():
    profiler = ox_otel.get()
    while profiler.status().samples < 20: sum(range(1000))  # less than a second, by far
if __name__ == "__main__":
    process = multiprocessing.get_context("{method}").Process(target=work)
    process.start()
    process.join()
    print(process.exitcode, total("hits_total", function="work") > 5)
    ox_otel.uninstall()
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("early", ["", "import multiprocessing.util"])
def test_processes_of_multiprocessing_lose_nothing_at_their_end(
    method: str, early: str, tmp_path: Path
) -> None:
    """What such a process, which ends past `atexit`, found since its last batch is counted."""
    program = tmp_path / "program.py"
    program.write_text(PREAMBLE + ENDING.format(method=method, early=early))
    counts = tmp_path / "counts"
    counts.mkdir()
    assert ("0 True\n", "") == run_command(str(program), folder=counts)
