"""The profilers that are compared, each started as its manual says.

A profiler is a function that starts sampling at a rate and returns another, which ends that and
returns what was found. Where a profiler has a switch between threads that run and all threads, its
default holds. None uploads anything: the addresses given to them lead nowhere.
"""

import os
import random
import signal
import subprocess
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ox_otel._native import Worker, allocate_lock

TICKS_AN_INTERVAL = 2

NOWHERE = "http://127.0.0.1:9"


class Seen(NamedTuple):
    """One stack in what a profiler found.

    Attributes:
        stack: names of functions, outermost first.
        cpu: its weight where shares of CPU are asked for, in any unit.
        wall: its weight where shares of elapsed time are asked for.
    """

    stack: tuple[str, ...]
    cpu: float
    wall: float


Findings = dict[str, list[Seen]]
"""What was seen, by what it was seen as; a profiler that only counts hits has one entry."""

Stop = Callable[[], Findings]


def bare(rate: int) -> Stop:
    """Start a thread that does nothing but wake up, with jitter, as a sampler must."""
    alarm, ended = allocate_lock(), False
    alarm.acquire()

    def wake_up() -> None:
        while not ended:
            alarm.acquire(timeout=random.uniform(0.5, 1.5) / rate)

    Worker(wake_up, "bare")

    def stop() -> Findings:
        nonlocal ended
        ended = True
        return {}

    return stop


def ox_otel(rate: int) -> Stop:
    """Start ox_otel's portable engine without a budget."""
    return _ox_otel(rate, "threads", max_overhead=1.0)


def ox_otel_ticks(rate: int) -> Stop:
    """Start ox_otel's native engine, with *rate* ticks a second of CPU, without a budget."""
    return _ox_otel(rate / TICKS_AN_INTERVAL, "ticks", max_overhead=1.0)


def ox_otel_budget(rate: int) -> Stop:
    """Start ox_otel with the budget that it has by default."""
    return _ox_otel(rate, "threads", max_overhead=0.01)


def _ox_otel(rate: float, engine: str, max_overhead: float) -> Stop:
    import ox_otel

    batches: list[ox_otel.Batch] = []

    class Keep:
        def record(self, batch: ox_otel.Batch) -> None:
            batches.append(batch)

    profiler = ox_otel.install(
        engine=engine,
        interval=1 / rate,
        max_overhead=max_overhead,
    )
    profiler.add_recorder(Keep(), quick=True)  # without a thread of its own, which would cost
    if profiler.status().engine != engine:
        raise RuntimeError(profiler.status().reason)
    name = "ox_otel" if engine == "threads" else f"ox_otel {engine}"

    def stop() -> Findings:
        ox_otel.uninstall()
        found: Findings = {f"{name} seconds": [], f"{name} hits": []}
        for batch in batches:
            for functions, usage in batch.stacks.items():
                stack = tuple(function.name for function in functions)
                wall = usage.cpu_seconds + usage.wait_seconds
                found[f"{name} seconds"].append(Seen(stack, usage.cpu_seconds, wall))
                found[f"{name} hits"].append(Seen(stack, usage.hits, usage.hits))
        return found

    return stop


def ox_profile(rate: int) -> Stop:
    """Start ox_profile, the ancestor."""
    from ox_profile.core.launchers import SimpleLauncher

    launcher = SimpleLauncher.launch()
    launcher.set_interval(1 / rate)

    def stop() -> Findings:
        launcher.cancel()
        launcher.join()
        hits = launcher.sampler.my_db.my_db
        return {"ox-profile": _counted({name: hits[name] for name in hits})}

    return stop


def sentry(rate: int) -> Stop:
    """Start the continuous profiler of Sentry's SDK; its rate has no setting, so it is patched."""
    import sentry_sdk
    from sentry_sdk.envelope import Envelope
    from sentry_sdk.profiler import continuous_profiler
    from sentry_sdk.transport import Transport

    profiles: list[dict[str, Any]] = []

    class Keep(Transport):
        def capture_envelope(self, envelope: Envelope) -> None:
            profiles.extend(
                item.payload.json["profile"]
                for item in envelope.items
                if item.type == "profile_chunk"
            )

    continuous_profiler.DEFAULT_SAMPLING_FREQUENCY = rate
    sentry_sdk.init(
        dsn=NOWHERE.replace("//", "//key@") + "/1",
        transport=Keep,
        default_integrations=False,
        profile_session_sample_rate=1.0,
        profile_lifecycle="manual",
    )
    continuous_profiler.start_profiler()

    def stop() -> Findings:
        continuous_profiler.stop_profiler()
        hits: Counter[tuple[str, ...]] = Counter()
        for profile in profiles:
            names = [frame["function"] for frame in profile["frames"]]
            stacks = [tuple(names[i] for i in reversed(stack)) for stack in profile["stacks"]]
            hits.update(stacks[sample["stack_id"]] for sample in profile["samples"])
        return {"Sentry": [Seen(stack, count, count) for stack, count in hits.items()]}

    return stop


def pyinstrument(rate: int) -> Stop:
    """Start pyinstrument in every thread that starts from now on: each has its own profiler."""
    import threading

    from pyinstrument import Profiler

    run = threading.Thread.run
    hits: Counter[str] = Counter()

    def run_profiled(thread: threading.Thread) -> None:
        profiler = Profiler(interval=1 / rate, async_mode="disabled")
        profiler.start()
        run(thread)
        for identifiers, seconds in profiler.stop().frame_records:
            names = [identifier.split("\0")[0] for identifier in identifiers]
            hits[";".join(names)] += seconds

    threading.Thread.run = run_profiled

    def stop() -> Findings:
        threading.Thread.run = run
        return {"pyinstrument": _counted(hits)}

    return stop


def pyroscope(rate: int) -> Stop:
    """Start Pyroscope's agent, whose sampler is part of py-spy, on a thread of its own."""
    import pyroscope

    pyroscope.configure(application_name="bench", server_address=NOWHERE, sample_rate=rate)
    return dict


def ddtrace(rate: int) -> Stop:
    """Start Datadog's stack sampler with its default budget; it chooses its rate itself."""
    os.environ |= {
        "DD_TRACE_AGENT_URL": NOWHERE,
        "DD_TRACE_STARTUP_LOGS": "false",
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
        "DD_PROFILING_MEMORY_ENABLED": "false",
        "DD_PROFILING_LOCK_ENABLED": "false",
    }
    from ddtrace.profiling import Profiler

    Profiler().start()
    return dict


def py_spy(rate: int) -> Stop:
    """Start py-spy on this process, from a process of its own."""
    return _py_spy(rate, {"cpu": []})


def py_spy_twice(rate: int) -> Stop:
    """Start py-spy on this process twice: for the threads that run, and for all of them."""
    return _py_spy(rate, {"cpu": [], "wall": ["--idle"]})


def _py_spy(rate: int, options: Mapping[str, list[str]]) -> Stop:
    folder = tempfile.mkdtemp()
    program = os.path.join(sysconfig.get_path("scripts"), "py-spy")
    spies = {}
    for name, option in options.items():
        spies[name] = spy = subprocess.Popen(
            [
                *(program, "record", "--nonblocking", "--nolineno", "--format=raw"),
                *(f"--rate={rate}", f"--pid={os.getpid()}", f"--output={folder}/{name}"),
                *option,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        first_line = spy.stdout.readline()
        if "Sampling process" not in first_line:
            raise RuntimeError(first_line + spy.stdout.read())

    def stop() -> Findings:
        found: list[Seen] = []
        for name, spy in spies.items():
            spy.send_signal(signal.SIGINT)
            spy.communicate()
            with open(f"{folder}/{name}", encoding="utf-8") as file:
                parts = [line.rpartition(" ") for line in file]
            hits = {stack: int(count) for stack, _, count in parts}
            found += [
                seen._replace(**{other: 0 for other in ("cpu", "wall") if other != name})
                for seen in _counted(hits)
            ]
        return {"py-spy": found}

    return stop


def _counted(hits: Mapping[str, float]) -> list[Seen]:
    """Return hits of stacks as they are written in collapsed form, places in files left out."""
    return [
        Seen(tuple(name.partition(" (")[0].partition("(")[0] for name in stack.split(";")), n, n)
        for stack, n in hits.items()
    ]


class Profiler(NamedTuple):
    """One of those compared: how to start it, and the distribution it comes in."""

    start: Callable[[int], Stop]
    distribution: str


PROFILERS = {
    "bare thread": Profiler(bare, "ox-otel"),
    "ox_otel": Profiler(ox_otel, "ox-otel"),
    "ox_otel ticks": Profiler(ox_otel_ticks, "ox-otel"),
    "ox_otel, budget": Profiler(ox_otel_budget, "ox-otel"),
    "ox-profile": Profiler(ox_profile, "ox-profile"),
    "Sentry": Profiler(sentry, "sentry-sdk"),
    "pyinstrument": Profiler(pyinstrument, "pyinstrument"),
    "Pyroscope": Profiler(pyroscope, "pyroscope-io"),
    "ddtrace": Profiler(ddtrace, "ddtrace"),
    "py-spy": Profiler(py_spy, "py-spy"),
    "py-spy, twice": Profiler(py_spy_twice, "py-spy"),
}
