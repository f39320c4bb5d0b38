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
"""

GEVENT = {
    "before": "from gevent import monkey; monkey.patch_all(); import ox_otel",
    "after": "import ox_otel; from gevent import monkey; monkey.patch_all()",
    "without threads": "from gevent import monkey; monkey.patch_all(thread=False); import ox_otel",
    "while installed": (
        "import ox_otel; ox_otel.install(); from gevent import monkey; monkey.patch_all()"
    ),
}


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
