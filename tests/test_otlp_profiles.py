"""The recorder of OTLP profiles: once a minute, nothing lost, and no trouble for anybody."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

import ox_otel
from ox_otel import Batch, ConfigError, Node, Profiler, Settings, otlp_profiles
from ox_otel.otlp_profiles import LAST_PAUSE, PERIOD, OtlpProfilesRecorder
from ox_otel.recorders import REST

ROOT = Node("total", 0, "total")
MAIN, LEAF = Node("totalmains", 1, "shop.main"), Node("totalmainsleafs", 2, "shop.leaf")
SPARE = 20.0
"""Seconds that a busy machine may take for what takes none."""

PATIENCE = 90
"""Seconds after which what has not come will not come."""


class Clock:
    """A clock that stands still until it is set on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return what it says."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Go on by so much."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the recorder, which a test sets on."""
    clock = Clock()
    monkeypatch.setattr(otlp_profiles, "monotonic", clock)
    return clock


class Host:
    """A recorder whose profiler samples nothing, and what it sends to a receiver."""

    def __init__(self, receiver: Any, clock: Clock) -> None:
        self.receiver = receiver
        self.clock = clock
        self.profiler = Profiler(Settings(start_paused=True))
        self.profiler.start()
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        self.recorder = OtlpProfilesRecorder(self.profiler, "cpu", environ)

    def record(self, tree: dict[Node, int], after: float = 0.0) -> int:
        """Record a batch so many seconds later; return how often anything has been sent so far."""
        self.clock.advance(after)
        self.recorder.record(Batch(tree=tree))
        return len(self.receiver.requests)

    def profiles(self) -> list[dict[tuple[str, ...], int]]:
        """Return the time of each stack, in each of the profiles sent."""
        return [stacks_of(decode(request.body)) for request in self.receiver.requests]

    def errors(self) -> int:
        """Return how many errors the recorder has counted."""
        return self.profiler.snapshot().errors.get("recorder", 0)


@pytest.fixture
def host(receiver: Any, clock: Clock) -> Any:
    """A host, whose profiler is cancelled at the end."""
    host = Host(receiver, clock)
    yield host
    host.profiler.cancel()


def decode(body: bytes) -> Any:
    """Return the request to export profiles that a receiver gets."""
    return profiles_service_pb2.ExportProfilesServiceRequest.FromString(body)


def stacks_of(request: Any) -> dict[tuple[str, ...], int]:
    """Return the time of each stack of the one profile in a request, outermost function first."""
    tables = request.dictionary
    found: dict[tuple[str, ...], int] = {}
    for sample in profile_of(request).samples:
        functions = [
            tables.function_table[tables.location_table[number].lines[0].function_index]
            for number in tables.stack_table[sample.stack_index].location_indices
        ]
        stack = tuple(tables.string_table[one.name_strindex] for one in reversed(functions))
        found[stack] = sample.values[0]
    return found


def profile_of(request: Any) -> Any:
    """Return the one profile in a request."""
    [resource] = request.resource_profiles
    [scope] = resource.scope_profiles
    [profile] = scope.profiles
    return profile


def test_once_a_minute(host: Host) -> None:
    """What batches have in common is one profile, and the next one begins where it ends."""
    assert 0 == host.record({ROOT: 1, MAIN: 10, LEAF: 100}, after=1)
    assert 0 == host.record({ROOT: 2, MAIN: 20}, after=PERIOD - 2)
    assert 1 == host.record({ROOT: 0, MAIN: 30}, after=2)
    assert 1 == host.record({ROOT: 5}, after=PERIOD - 1)
    assert 2 == host.record({ROOT: 0}, after=2)
    first, second = host.profiles()
    main, leaf = ("shop.main",), ("shop.main", "shop.leaf")
    assert {(str(REST),): 3, main: 60, leaf: 100} == first
    assert {(str(REST),): 5} == second
    one, other = (profile_of(decode(request.body)) for request in host.receiver.requests)
    assert [61, 61] == [round(profile.duration_nano / 1e9) for profile in (one, other)]
    assert 0 <= time.time() - (one.time_unix_nano + one.duration_nano) / 1e9 < 60
    assert 0 == host.errors()


def test_nothing_is_sent_of_nothing(host: Host) -> None:
    """A minute in which nobody used any time is no profile."""
    assert 0 == host.record({ROOT: 0, MAIN: 0}, after=PERIOD + 1)


@pytest.mark.parametrize("status", [404, 429, 503])
def test_who_refuses_is_asked_ever_more_rarely(host: Host, status: int) -> None:
    """Pauses double up to an hour; what was not taken is in the next profile that is."""
    host.receiver.status = status
    pauses, asked_at, asked = [], host.clock.now, 0
    while len(pauses) < 9:
        if host.record({ROOT: 0, LEAF: 1, MAIN: 0}, after=10) > asked:
            asked += 1
            pauses.append(host.clock.now - asked_at)
            asked_at = host.clock.now
    assert [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600] == pauses
    assert 9 == host.errors()
    host.receiver.status = 200
    host.record({ROOT: 0}, after=LAST_PAUSE)
    assert sum(pauses) / 10 == host.profiles()[-1]["shop.main", "shop.leaf"]
    assert len(pauses) + 2 == host.record({ROOT: 1}, after=PERIOD)  # all is forgiven
    assert {(str(REST),): 1} == host.profiles()[-1]


@pytest.mark.parametrize(("wanted", "pause"), [("1", 120), ("600", 600), ("99999", LAST_PAUSE)])
def test_who_wants_to_be_left_alone_is(host: Host, wanted: str, pause: float) -> None:
    """A pause is not shorter than the collector asks for, but an hour at the most."""
    host.receiver.status, host.receiver.headers = 429, {"Retry-After": wanted}
    assert 1 == host.record({ROOT: 1}, after=PERIOD)
    assert 1 == host.record({ROOT: 1}, after=pause - 1)
    assert 2 == host.record({ROOT: 1}, after=1)


def test_nobody_there(host: Host) -> None:
    """A collector that cannot be reached is one that refuses."""
    host.receiver.close()
    host.record({ROOT: 1}, after=PERIOD)
    host.record({ROOT: 1}, after=PERIOD)
    assert 1 == host.errors()
    host.record({ROOT: 1}, after=PERIOD)
    assert 2 == host.errors()


def test_what_is_kept_is_bounded(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a collector refuses, a profile has only so many nodes, and no time is lost."""
    monkeypatch.setattr(otlp_profiles, "MAX_NODES", 100)
    host.recorder._begin()
    host.receiver.status = 503
    for number in range(500):
        node = Node(f"{ROOT.path}{number:05}", 1, f"generated.f{number}")
        host.record({ROOT: 0, node: 1}, after=1)
    host.receiver.status = 200
    host.record({ROOT: 0}, after=LAST_PAUSE)
    profile = host.profiles()[-1]
    assert 100 == len(profile)
    assert 500 == sum(profile.values())


def test_an_answer_that_says_nothing(host: Host) -> None:
    """What was taken is not sent again, however odd the answer."""
    host.receiver.answer = b"<html>taken</html>"
    assert 1 == host.record({ROOT: 1}, after=PERIOD)
    assert 1 == host.record({ROOT: 0}, after=2 * PERIOD)
    assert 0 == host.errors()


def test_a_profile_that_is_rejected(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """What a collector says it has thrown away is an error, and not sent again."""
    answer = profiles_service_pb2.ExportProfilesServiceResponse()
    answer.partial_success.rejected_profiles = 1
    host.receiver.answer = answer.SerializeToString()
    assert 1 == host.record({ROOT: 1}, after=PERIOD)
    assert 1 == host.record({ROOT: 0}, after=2 * PERIOD)
    assert 1 == host.errors()
    assert "rejected" in caplog.text


def test_the_last_profile_goes_at_the_end(host: Host) -> None:
    """When the profiler ends, what there is goes, unless the collector has just refused."""
    host.profiler.cancel()
    assert 1 == host.record({ROOT: 1})
    host.receiver.status = 503
    assert 2 == host.record({ROOT: 1})
    assert 2 == host.record({ROOT: 1})


def test_the_resource_is_that_of_the_variables(
    receiver: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody traces, the variables of the SDK say what the service is."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    host = Host(receiver, clock)
    host.profiler.cancel()
    host.record({ROOT: 1})
    assert "shop" == attributes(receiver)["service.name"]


def test_the_resource_is_that_of_the_traces(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the host traces, its profiles are of the same resource, also when that is set later."""
    mine = Resource.create({"service.name": "till", "service.instance.id": "7"})
    provider = TracerProvider(resource=mine, shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    host.record({ROOT: 1}, after=PERIOD)
    found = attributes(host.receiver)
    assert ("till", "7") == (found["service.name"], found["service.instance.id"])


def attributes(receiver: Any) -> dict[str, str]:
    """Return the texts among the attributes of the resource that a receiver was told of first."""
    [resource] = decode(receiver.requests[0].body).resource_profiles
    return {pair.key: pair.value.string_value for pair in resource.resource.attributes}


def test_without_a_tree() -> None:
    """There is nothing to send without a tree: that is a wrong setting."""
    with pytest.raises(ConfigError, match="OX_OTEL_TREE"):
        ox_otel.install(recorders="otlp_profiles", tree="off")


def test_a_wrong_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the SDK that is wrong is a wrong setting, and its value stays secret."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "secret")
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_ENDPOINT") as refused:
        ox_otel.install(recorders="otlp_profiles")
    assert "secret" not in str(refused.value)


def test_messages_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the messages installed are others, nothing is installed, and it is said why."""

    def encode(*_: object) -> bytes:
        raise ValueError('Protocol message Profile has no "samples" field.')

    monkeypatch.setattr(otlp_profiles, "encode", encode)
    with pytest.raises(ConfigError, match="opentelemetry-proto has other profiles"):
        ox_otel.install(recorders="otlp_profiles")


PROGRAM = """
import sys, time
import ox_otel

profiler = ox_otel.install(recorders="otlp_profiles", interval=0.001, max_overhead=1)
before = set(sys.modules)

def burn():
    began = time.process_time()
    while time.process_time() < began + {seconds}:
        sum(range(1000))

burn()
print(profiler.status().state, round(sum(profiler.snapshot().tree.values()) / 1e9, 3))
{end}
print(sorted(set(sys.modules) - before))
"""


def run(
    program: str, url: str, timeout: str = "10", until: Callable[[], object] = lambda: True
) -> str:
    """Run a program; return what it says. Its standard input ends as soon as *until* is true."""
    environ = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_EXPORTER_OTLP_TIMEOUT": timeout,
    }
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + PATIENCE
        while not until() and time.monotonic() < deadline:
            time.sleep(0.05)
        said, _ = process.communicate("", timeout=PATIENCE)
    return said


def test_a_program_that_ends(receiver: Any) -> None:
    """What a short program used arrives when it ends: all that its profiler says."""
    deadline = time.monotonic() + PATIENCE
    said = arrived = 0.0
    while not 0 < said <= arrived + 0.002:  # on a busy machine our second at the end may not do
        assert time.monotonic() < deadline
        receiver.requests.clear()
        state, seconds = run(PROGRAM.format(seconds=0.5, end=""), receiver.url).split()[:2]
        assert "running" == state
        said = float(seconds)
        profiles = [stacks_of(decode(request.body)) for request in receiver.requests]
        arrived = sum(sum(profile.values()) for profile in profiles) / 1e9


def test_our_thread_imports_nothing(receiver: Any) -> None:
    """A child that is forked in the middle of an import could never import that module."""
    program = PROGRAM.format(seconds=0.3, end="ox_otel.uninstall(); sys.stdin.read()")
    deadline = time.monotonic() + PATIENCE
    while not receiver.requests:  # on a busy machine our second at the end may not do
        assert time.monotonic() < deadline
        said = run(program, receiver.url)
    assert "[]" == said.split("\n")[1]


def test_a_collector_that_hangs_does_not_hold_up_the_end() -> None:
    """A process ends within a second or so of its own end, whatever the collector does."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        program = PROGRAM.format(
            seconds=0.3,
            end="began = time.monotonic(); ox_otel.uninstall(); print(time.monotonic() - began)",
        )
        began = time.monotonic()
        said = run(program, url, timeout="60")
    assert float(said.split("\n")[1]) < 1 + SPARE
    assert time.monotonic() - began < 60


FORKING = """
import os, sys
import ox_otel

profiler = ox_otel.install(recorders="otlp_profiles", interval=0.001, max_overhead=1)

def is_shown(name):
    tree = profiler.snapshot().tree.items()
    return any(node.label == f"__main__.{name}" and time for node, time in tree)

def parent_burns():
    while not is_shown("parent_burns"): sum(range(1_000_000))

def child_burns():
    while not is_shown("child_burns"): sum(range(1_000_000))

parent_burns()
pid = os.fork()
if not pid:
    child_burns()
ox_otel.uninstall()
sys.stdin.read()
if not pid:
    os._exit(0)
os.waitpid(pid, 0)
"""


def test_a_forked_child_sends_what_is_its_own(receiver: Any) -> None:
    """Parent and child send each what it has used itself, and the child nothing of its parent's."""

    def burners() -> list[set[str]]:
        profiles = [stacks_of(decode(request.body)) for request in receiver.requests]
        return [{name for stack in one for name in stack if "_burns" in name} for one in profiles]

    parent, child = {"__main__.parent_burns"}, {"__main__.child_burns"}
    run(FORKING, receiver.url, until=lambda: set().union(*burners()) == parent | child)
    found = burners()
    assert parent in found
    assert child in found
    assert parent | child not in found
