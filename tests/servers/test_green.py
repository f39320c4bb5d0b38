"""Green threads: a native thread samples them, however they are patched in."""

import os
import subprocess
import sys

import pytest

PREAMBLE = """
import faulthandler, signal, time
faulthandler.enable()
signal.alarm(150)
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
    client.settimeout(60)
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
        timeout=200,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("engine", ["threads", "ticks"])
@pytest.mark.parametrize("patch", GEVENT.values(), ids=GEVENT)
def test_a_greenlet_that_keeps_the_loop_busy_is_seen(patch, engine) -> None:
    """However gevent patches, a native thread samples on, and finds who uses the CPU."""
    code = f"""{patch}
import gevent
profiler = ox_otel.install()
gevent.joinall([gevent.spawn(burn, 2), gevent.spawn(time.sleep, 2)])
report(profiler)
print(profiler.status().engine)
ox_otel.uninstall()
"""
    assert (0, f"running 0 True\n{engine}\n") == run(code, OX_OTEL_ENGINE=engine)


def test_threads_of_ours_have_no_loop() -> None:
    """Who waits for figures, or for a capture, makes no hub of gevent's in a thread of ours."""
    code = """
from gevent import monkey; monkey.patch_all()
import gevent.hub, ox_otel
hubs, make = [], gevent.hub.Hub.__init__
def count(self, *arguments, **more):
    hubs.append(self)
    make(self, *arguments, **more)
gevent.hub.Hub.__init__ = count
from gevent import socket
profiler = ox_otel.install(port=0)
for path in ("/profile", "/profile?seconds=0.2"):
    client = socket.create_connection(("127.0.0.1", int(profiler.url.rpartition(":")[2])))
    client.sendall(f"GET {path} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n".encode())
    print(client.recv(12)[9:].decode(), len(hubs))
"""
    assert (0, "200 1\n200 1\n") == run(code)


def test_a_helper_of_a_green_program_has_no_thread_of_ours() -> None:
    """What gevent forks in order to run another program is not sampled, what it forks else is."""
    code = """
from gevent import monkey; monkey.patch_all()
import os, subprocess, ox_otel
profiler = ox_otel.install()
def show(): os.write(1, f"{len(os.listdir('/proc/self/task'))}\\n".encode())
subprocess.run(["true"], preexec_fn=show, check=True)
if os.fork() == 0: show(); os._exit(0)
os.wait()
"""
    assert (0, "1\n2\n") == run(code)


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


@pytest.mark.parametrize("patch", [GEVENT["before"], EVENTLET], ids=["gevent", "eventlet"])
def test_who_waits_for_figures_lets_others_run(patch) -> None:
    """While a green thread waits for a batch the loop goes on."""
    code = f"""{patch}
import threading
profiler = ox_otel.install()
done, turns = [], []
def ask():
    for _ in range(20): profiler.snapshot()
    done.append(1)
def turn():
    while not done: turns.append(1); time.sleep(0)
threads = [threading.Thread(target=target) for target in (turn, ask)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(turns) > 20)
ox_otel.uninstall()
"""
    assert (0, "True\n") == run(code)


LOOPS = {
    "gevent": f"{GEVENT['before']}\nimport gevent\nsoon = gevent.get_hub().loop.run_callback",
    "eventlet": f"{EVENTLET}\nfrom eventlet import hubs\n"
    "soon = lambda act: hubs.get_hub().schedule_call_global(0, act)",
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_loop_that_asks_for_figures_waits_for_them(loop) -> None:
    """What the loop calls itself, as signal handlers, cannot be switched; it gets its figures."""
    code = f"""{loop}
profiler = ox_otel.install()
while not profiler.status().samples: time.sleep(0.01)
found = []
soon(lambda: found.append(profiler.snapshot().samples))
end = time.monotonic() + 20
while not found and time.monotonic() < end: time.sleep(0.01)
print(found[0] > 0)
ox_otel.uninstall()
"""
    assert (0, "True\n") == run(code)


def test_a_capture_lets_others_run() -> None:
    """While a greenlet waits for one the loop goes on, and is captured."""
    code = """
from gevent import monkey; monkey.patch_all()
import gevent, ox_otel
profiler = ox_otel.install()
profiles, turns = [], []
def turn():
    while not profiles: burn(0.01); turns.append(1); time.sleep(0)
gevent.spawn(lambda: profiles.append(profiler.capture(1)))
gevent.spawn(turn).join()
names = {str(function) for stack in profiles[0].stacks for function in stack}
print(len(turns) > 10, "__main__.burn" in names)
ox_otel.uninstall()
"""
    assert (0, "True True\n") == run(code)


ROUTES = """
import gevent, greenlet, ox_otel
profiler = ox_otel.install()
while not profiler.status().samples: gevent.sleep(0.01)
def burn_cpu(seconds):
    end = thread_time() + seconds
    while thread_time() < end: sum(range(200))
def request(n):
    for _ in range(5):
        with ox_otel.tag(route=str(n)):
            for _ in range(4):
                burn_cpu(n / 1000)
                gevent.sleep(0.001)
gevent.joinall([gevent.spawn(request, n) for n in (2, 4, 6, 8)])
for _ in range(20): burn_cpu(0.001)  # for nobody
routes = profiler.snapshot().routes
print(all(abs(routes[str(n)].cpu_seconds - n / 50) < 0.01 for n in (2, 4, 6, 8)) or routes)
with ox_otel.tag(route="last"): print(traced is not greenlet.gettrace())
gevent.sleep(0.01)  # nobody is measured
print(traced is greenlet.gettrace())
ox_otel.uninstall()
"""


def test_each_greenlet_works_for_its_own_request() -> None:
    """Requests that take turns as greenlets have each its CPU; who traces switches goes on so."""
    code = f"""
thread_time = time.thread_time
from gevent import monkey; monkey.patch_all()
import greenlet
switches = []
def traced(event, which): switches.append(event)
greenlet.settrace(traced)
{ROUTES}
print(len(switches) > 50)
"""
    assert (0, "True\nTrue\nTrue\nTrue\n") == run(code)


SWITCHES = """
import gevent, greenlet, time
from ox_otel import tag
from ox_otel._books import Books, keep
own = Books(10, 1)
keep(own)
def burn_cpu(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end: sum(range(200))
def request():
    with tag(route="request"): gevent.sleep(0.2)
def other():
    burn_cpu(0.1)
def chained(event, which): ours(event, which)
"""


def test_a_host_that_sets_a_trace_function_of_its_own() -> None:
    """Ours is set again with the next request if it was dropped, and not if it is still called."""
    code = f"""{SWITCHES}
with tag(route="first"):
    gevent.sleep(0)
    greenlet.settrace(None)
gevent.joinall([gevent.spawn(request), gevent.spawn(other)])
print(own.settle(1.0)[0]["request"].cpu_seconds < 0.05)
with tag(route="first"):
    greenlet.settrace(lambda event, which: None)
    gevent.joinall([gevent.spawn(request), gevent.spawn(other)])
    print(own.settle(1.0)[0]["request"].cpu_seconds < 0.05)
    ours = greenlet.gettrace()
    greenlet.settrace(chained)
    gevent.sleep(0)
    with tag(route="second"): print(greenlet.gettrace() is chained)
    gevent.joinall([gevent.spawn(request), gevent.spawn(other)])
    print(own.settle(1.0)[0]["request"].cpu_seconds < 0.05, greenlet.gettrace() is chained)
"""
    assert (0, "True\nTrue\nTrue\nTrue True\n") == run(code)


def test_what_switches_of_greenlets_cost_is_told() -> None:
    """Each switch counts as a step; while no request is measured there is nothing to pay."""
    code = f"""{SWITCHES}
with tag(route="first"):
    for _ in range(100): gevent.sleep(0)
print(200 <= own.steps < 220, greenlet.gettrace() is not None)
gevent.sleep(0)
print(greenlet.gettrace())
with tag(route="again"):
    old = greenlet.gettrace()
    greenlet.settrace(None)
    with tag(route="anew"): new = greenlet.gettrace()
    greenlet.settrace(lambda *switch: (old(*switch), new(*switch)))
    before = own.steps
    for _ in range(100): gevent.sleep(0)
print(200 <= own.steps - before < 220)
"""
    assert (0, "True True\nNone\nTrue\n") == run(code)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_switches_in_a_child_are_its_own() -> None:
    """A child that is forked within a request follows switches anew, and its parent's do no more."""
    code = f"""{SWITCHES}
import os
with tag(route="first"):
    gevent.sleep(0)
    pid = os.fork()
    if pid == 0:
        own = Books(10, 1)
        keep(own)
        gevent.joinall([gevent.spawn(request), gevent.spawn(other)])
        print(own.settle(1.0)[0]["request"].cpu_seconds < 0.05)
        with tag(route="last"): print(greenlet.gettrace().previous, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
"""
    assert (0, "True\nNone\n") == run(code)


def test_greenlets_have_their_own_spans() -> None:
    """Of greenlets that take turns on one thread, each is seen in its own span, as in its own code."""
    code = """
from gevent import monkey; monkey.patch_all()
import gevent, ox_otel
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
tracer = TracerProvider(shutdown_on_exit=False).get_tracer("tests")
found, spans = {}, {}
class Keeper:
    def record(self, batch):
        for function, exemplar in batch.exemplars.items():
            found.setdefault(function.name, set()).add(exemplar.span_id)
profiler = ox_otel.install(recorders=[Keeper()], interval=0.002)
def left():
    for _ in range(300_000): pass
def right():
    for _ in range(300_000): pass
def turn(name, act):
    with tracer.start_as_current_span(name) as span:
        spans[name] = {trace.format_span_id(span.get_span_context().span_id)}
        while not (found.get("left") and found.get("right")):
            act()
            gevent.sleep(0)
gevent.joinall([gevent.spawn(turn, "left", left), gevent.spawn(turn, "right", right)])
print({name: found[name] for name in spans} == spans)
ox_otel.uninstall()
"""
    assert (0, "True\n") == run(code)
