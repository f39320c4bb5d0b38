"""Green threads: a native thread samples them, however they are patched in."""

import os
import subprocess
import sys

import pytest

PREAMBLE = """
import faulthandler, signal, time
faulthandler.enable()
signal.alarm(50)
burned = 0.0
def burn(seconds):
    global burned
    end, before = time.monotonic() + seconds, time.thread_time()
    while time.monotonic() < end: sum(range(200))
    burned += time.thread_time() - before
def report(profiler):
    records, _ = profiler.query("__main__.*")  # where in it, is not the question here
    cpu = sum(record.usage.self_cpu_seconds for record in records)
    print(profiler.status().state, profiler.status().errors, cpu > 0.5 * burned)
CLIENT = r'''
import socket, sys
url = sys.argv[1]
answers = []
for request in ("GET /metrics", "POST /pause"):
    client = socket.socket(socket.AF_UNIX if url[:5] == "unix:" else socket.AF_INET)
    client.settimeout(10)
    client.connect(url[5:] if url[:5] == "unix:" else ("127.0.0.1", int(url.rpartition(":")[2])))
    client.sendall(f"{request} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n".encode())
    answers.append(client.recv(12)[9:].decode())
print(*answers, flush=True)
'''
"""

GEVENT = {
    "before": "from gevent import monkey; monkey.patch_all(); import ox_otel",
    "after": "import ox_otel; from gevent import monkey; monkey.patch_all()",
    "without threads": "from gevent import monkey; monkey.patch_all(thread=False); import ox_otel",
    "while installed": (
        "import ox_otel; ox_otel.install(); from gevent import monkey; monkey.patch_all()"
    ),
}

EVENTLET = """
import warnings; warnings.simplefilter("ignore")  # eventlet deprecates itself
import eventlet, ox_otel
eventlet.monkey_patch()
"""


def run(code: str, **environ: str) -> tuple[int, str]:
    """Run *code* after the preamble; return its exit status and all that it wrote."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OX_OTEL_MAX_OVERHEAD": "1", **environ},
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("patch", GEVENT.values(), ids=GEVENT)
def test_a_greenlet_that_keeps_the_loop_busy_is_seen(patch) -> None:
    """However gevent patches, a native thread samples on, and finds who uses the CPU."""
    code = f"""{patch}
import gevent
profiler = ox_otel.install()
gevent.joinall([gevent.spawn(burn, 2), gevent.spawn(time.sleep, 2)])
report(profiler)
ox_otel.uninstall()
"""
    assert (0, "running 0 True\n") == run(code)


@pytest.mark.parametrize("patch", [*GEVENT.values(), EVENTLET], ids=[*GEVENT, "eventlet"])
@pytest.mark.parametrize("place", ["0", "unix:{folder}/endpoint"])
def test_a_green_program_is_controlled_from_outside(patch, place, tmp_path) -> None:
    """Whatever is patched, the endpoint answers, and the service is told, while the loop is busy."""
    code = f"""{patch}
import os, sys
ox_otel.uninstall()
folder = {str(tmp_path)!r}
os.chmod(folder, 0o700)
other = os.fork()
profiler = ox_otel.install(port=f"{place}" if other else None, run_dir=folder)
def until(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline: sum(range(1000))
if other == 0:
    until(profiler.is_paused)
    paused = profiler.is_paused()
    ox_otel.uninstall()
    os._exit(not paused)
until(lambda: 2 == len([name for name in os.listdir(folder) if name.endswith(".sock")]))
asking = os.posix_spawn(sys.executable, [sys.executable, "-c", CLIENT, profiler.url], os.environ)
until(profiler.is_paused)
print(profiler.is_paused(), os.waitpid(asking, 0)[1], os.waitpid(other, 0)[1], flush=True)
ox_otel.uninstall()
print(os.listdir(folder))
"""
    assert (0, "200 200\nTrue 0 0\n['paused']\n") == run(code)


@pytest.mark.parametrize("order", ["import eventlet, ox_otel", "import ox_otel, eventlet"])
def test_eventlet_is_not_harmed(order) -> None:
    """Eventlet patched in: its green threads run on, sampling goes on, and all of it ends."""
    code = f"""import warnings; warnings.simplefilter("ignore")  # eventlet deprecates itself
{order}
eventlet.monkey_patch()
profiler = ox_otel.install()
turns = []
def turn():
    for _ in range(100): time.sleep(0.01); turns.append(1)
threads = [eventlet.spawn(burn, 2), eventlet.spawn(turn)]
for thread in threads: thread.wait()
assert 100 == len(turns)
report(profiler)
ox_otel.uninstall()
"""
    assert (0, "running 0 True\n") == run(code)


def test_a_forked_child_of_a_green_program_is_sampled_once() -> None:
    """A patched program that forks: the child has one thread of ours and counts its own CPU only."""
    code = """
from gevent import monkey; monkey.patch_all()
import gevent, os, ox_otel
ox_otel.install()
burn(1)
pid = os.fork()
profiler = ox_otel.get() if pid == 0 else None
if pid == 0:
    burn(1)
    names = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
    cpu = sum(record.usage.self_cpu_seconds for record in profiler.query("*", 100).records)
    print(names.count("ox_otel\\n"), cpu < 1.5 * time.process_time(), flush=True)
else:
    assert 0 == os.waitpid(pid, 0)[1]
"""
    assert (0, "1 True\n") == run(code)
