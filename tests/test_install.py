"""Installing: one profiler a process, all of it or nothing, and away again without a trace."""

import logging
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from prometheus_client import REGISTRY

import ox_otel
from ox_otel import Batch, ConfigError, CountingRecorder, _endpoint
from ox_otel._native import own_idents
from ox_otel.http import Exposure


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin without any setting in the environment, end without a profiler."""
    for name in [name for name in os.environ if name.startswith("OX_OTEL_")]:
        monkeypatch.delenv(name)
    yield
    ox_otel.uninstall()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path to put modules into."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def metrics() -> dict[str, float]:
    """Return the host's metrics that are ours and have no labels."""
    return {
        sample.name: sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name.startswith("ox_profile") and not sample.labels
    }


def unregister() -> None:
    """Take our collector out of the host's registry, as the host might."""
    REGISTRY.unregister(REGISTRY._names_to_collectors["ox_profile_hits"])


def get(url: str) -> int:
    """Return the status that a GET is answered with."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def until(condition: str, profiler: ox_otel.Profiler) -> None:
    """Wait until the profiler is in the state *condition*."""
    deadline = time.monotonic() + 60.0
    while profiler.status().state != condition:
        assert time.monotonic() < deadline, profiler.status()
        time.sleep(0.01)


def until_sampled(profiler: ox_otel.Profiler) -> None:
    """Wait until a sample has been taken."""
    deadline = time.monotonic() + 60.0
    while not profiler.status().samples:
        assert time.monotonic() < deadline, profiler.status()
        time.sleep(0.01)


def test_install_runs_and_publishes() -> None:
    """After `install` the process is sampled, and its registry has the metrics."""
    profiler = ox_otel.install(interval=0.005)
    until_sampled(profiler)
    assert "running" == profiler.status().state
    profiler.snapshot()
    assert 1 == metrics()["ox_profile_running"]
    assert metrics()["ox_profile_stacks_total"] >= metrics()["ox_profile_samples_total"] > 0


def test_install_again_changes_nothing() -> None:
    """A second call returns the same object, whatever its arguments."""
    profiler = ox_otel.install(interval=0.5)
    assert profiler is ox_otel.install(interval=5)
    assert profiler is ox_otel.get()
    assert 0.5 == profiler.status().interval


def test_install_from_many_threads(package: Path) -> None:
    """Threads that install at the same time get the same object, none before it runs."""
    (package / "slow.py").write_text(
        "import time, ox_otel\ntime.sleep(0.2)\nmake = ox_otel.CountingRecorder\n"
    )
    barrier = Barrier(8)

    def install() -> tuple[ox_otel.Profiler, str]:
        barrier.wait()
        profiler = ox_otel.install(recorders="slow:make")
        return profiler, profiler.status().state

    with ThreadPoolExecutor(8) as threads:
        installed = [threads.submit(install) for _ in range(8)]
    assert {(ox_otel.get(), "running")} == {future.result() for future in installed}


def test_a_wrong_setting_installs_nothing() -> None:
    """After a ConfigError there is no profiler, thread, collector or socket."""
    for wrong in ({"interval": "nan"}, {"intervals": 1}, {"port": "http"}):
        settings: dict[str, Any] = wrong
        with pytest.raises(ConfigError):
            ox_otel.install(**settings)
        assert ox_otel.get() is None
        assert {} == metrics()
        assert set() == own_idents


def test_a_variable_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong variable stops at the start, by name."""
    monkeypatch.setenv("OX_OTEL_MAX_SERIES", "many")
    with pytest.raises(ConfigError, match=r"OX_OTEL_MAX_SERIES .*'many' is not accepted"):
        ox_otel.install()


def test_a_later_recorder_that_is_wrong_undoes_the_earlier() -> None:
    """What was set up before the fault is taken away again, so that a second attempt works."""
    with pytest.raises(ConfigError):
        ox_otel.install(recorders="prometheus,nowhere:factory")
    assert {} == metrics()
    assert "running" == ox_otel.install(recorders="prometheus").status().state


def test_uninstall_takes_everything_away() -> None:
    """After `uninstall` nothing is left: no profiler, thread, collector or socket."""
    profiler = ox_otel.install(port=0)
    assert 200 == get(f"{profiler.url}/metrics")
    ox_otel.uninstall()
    assert ox_otel.get() is None
    assert "stopped" == profiler.status().state
    assert set() == own_idents
    assert {} == metrics()
    with pytest.raises(urllib.error.URLError):
        get(f"{profiler.url}/metrics")


def test_uninstall_without_anything() -> None:
    """To take away what is not there is no error."""
    ox_otel.uninstall()
    ox_otel.uninstall()


def test_uninstall_after_the_host_has_cleaned_up() -> None:
    """A collector that the host has unregistered itself is no obstacle."""
    ox_otel.install(port=0)
    unregister()
    ox_otel.uninstall()
    assert ox_otel.get() is None
    assert set() == own_idents


def test_uninstall_with_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one thing cannot be taken away, the others are, and a new start is possible."""

    def refuse(_: object) -> None:
        raise RuntimeError("out of order")

    profiler = ox_otel.install(port=0)
    monkeypatch.setattr(REGISTRY, "unregister", refuse)
    with pytest.raises(RuntimeError, match="out of order"):
        ox_otel.uninstall()
    monkeypatch.undo()
    assert ox_otel.get() is None
    assert ("stopped", set()) == (profiler.status().state, own_idents)
    unregister()
    assert profiler is not ox_otel.install()


def test_install_uninstall_install(free_port: Callable[[], int]) -> None:
    """The second life is like the first."""
    first = ox_otel.install(port=free_port())
    ox_otel.uninstall()
    second = ox_otel.install(port=int(first.url.rpartition(":")[2]))
    assert first is not second
    assert first.url == second.url
    assert 200 == get(f"{second.url}/metrics")
    assert 1 == metrics()["ox_profile_running"]


def test_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switched off, nothing is started or registered, and control does not fail."""
    monkeypatch.setenv("OX_OTEL_ENABLED", "false")
    profiler = ox_otel.install(port=0)
    assert profiler is ox_otel.get()
    assert ("stopped", "") == (profiler.status().state, profiler.url)
    assert {} == metrics()
    assert set() == own_idents
    profiler.unpause()
    assert "stopped" == profiler.status().state


def test_start_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started paused, no sample is taken before `unpause`."""
    monkeypatch.setenv("OX_OTEL_START_PAUSED", "1")
    profiler = ox_otel.install(interval=0.001)
    time.sleep(0.1)
    assert ("paused", 0) == (profiler.status().state, profiler.status().samples)
    profiler.unpause()
    until_sampled(profiler)
    assert "running" == profiler.status().state


def test_a_recorder_object() -> None:
    """An object with `record` gets the batches, beside the others."""
    mine = CountingRecorder()
    profiler = ox_otel.install(recorders=["prometheus", mine], interval=0.005)
    until_sampled(profiler)
    assert profiler.snapshot().functions
    assert metrics()
    ox_otel.uninstall()
    assert mine.snapshot().samples > 0


def test_no_recorder_at_all() -> None:
    """Without recorders there are no metrics, but control and the page work."""
    profiler = ox_otel.install(recorders="", interval=0.005, port=0)
    assert {} == metrics()
    assert 404 == get(f"{profiler.url}/metrics")
    assert 200 == get(f"{profiler.url}/")


def test_a_recorder_by_name(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`package.module:factory` is imported and called."""
    (package / "mine").mkdir()
    (package / "mine" / "recorders.py").write_text(
        "from ox_otel import CountingRecorder\n"
        "made = []\n"
        "def make():\n"
        "    made.append(CountingRecorder())\n"
        "    return made[0]\n"
    )
    monkeypatch.setenv("OX_OTEL_RECORDERS", "mine.recorders:make")
    profiler = ox_otel.install(interval=0.005)
    until_sampled(profiler)
    profiler.cancel()
    from mine.recorders import made  # type: ignore[import-not-found]

    assert 1 == len(made)
    assert made[0].snapshot().samples > 0


BROKEN = {
    "missing:make": "No module named 'missing'",
    "broken:make": "no attribute 'make'",
    "broken:raises": "out of order",
    "broken:makes_none": "made None, which has no method `record`",
    "broken:makes_class": "which has no method `record`",
    "broken:number": "not callable",
    "broken.:x": "No module named 'broken.'",
    ".broken:x": "relative import",
}


@pytest.mark.parametrize("choice", BROKEN)
def test_a_broken_recorder_by_name(package: Path, choice: str) -> None:
    """A factory that cannot be had is a ConfigError that names it and says why."""
    (package / "broken.py").write_text(
        "def raises(): raise RuntimeError('out of order')\n"
        "def makes_none(): return None\n"
        "class Recorder:\n"
        "    def record(self, batch): pass\n"
        "def makes_class(): return Recorder\n"
        "number = 5\n"
    )
    with pytest.raises(ConfigError) as caught:
        ox_otel.install(recorders=choice)
    assert str(caught.value).startswith(f"OX_OTEL_RECORDERS (argument recorders): '{choice}' ")
    assert BROKEN[choice] in str(caught.value)


def test_a_recorders_module_that_installs(package: Path) -> None:
    """A module that calls `install` itself may bring a recorder: it gets the same profiler."""
    (package / "installing.py").write_text(
        "import ox_otel\n"
        "profiler = ox_otel.install(interval=7)\n"
        "def make(): return ox_otel.CountingRecorder()\n"
    )
    with ThreadPoolExecutor(1) as thread:  # a deadlock would not end the test run
        profiler = thread.submit(ox_otel.install, recorders="installing:make").result(10)
    import installing  # type: ignore[import-not-found]

    assert profiler is installing.profiler
    assert "running" == profiler.status().state


def test_installed_in_the_middle_of_an_installation() -> None:
    """Where a signal handler installs while settings are read, both get the same profiler."""

    def recorders() -> Iterator[str]:
        found.append(ox_otel.install())
        yield "prometheus"

    found: list[ox_otel.Profiler] = []
    found.append(ox_otel.install(recorders=recorders()))
    assert {ox_otel.get()} == set(found)


def test_an_unknown_variable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A variable that looks like a setting is named once in the log, without its value."""
    monkeypatch.setenv("OX_OTEL_TOKN", "do-not-tell-anybody")
    ox_otel.install()
    ox_otel.install()
    assert ["ox_otel: no settings of this version: OX_OTEL_TOKN"] == caplog.messages


def test_a_good_start_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing is wrong, nothing is logged."""
    with caplog.at_level(logging.DEBUG, "ox_otel"):
        ox_otel.install(port=0)
        ox_otel.uninstall()
    assert [] == caplog.messages


def test_a_port_in_use(caplog: pytest.LogCaptureFixture) -> None:
    """Where the port is taken, sampling goes on without the endpoint, which is logged once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for _ in range(10):
            ox_otel.uninstall()
            profiler = ox_otel.install(port=port)
            ox_otel.install(port=port)
    assert ("running", "") == (profiler.status().state, profiler.url)
    [message] = caplog.messages
    assert message.startswith(f"ox_otel: no endpoint at 127.0.0.1:{port}: ")


@pytest.mark.parametrize("host", ["192.0.2.1", "[::1]", "a b"])
def test_a_host_that_cannot_be_had(host: str, caplog: pytest.LogCaptureFixture) -> None:
    """A host that is none of this machine's costs the endpoint, not the profile."""
    profiler = ox_otel.install(host=host, port=0)
    assert ("running", "") == (profiler.status().state, profiler.url)
    assert 1 == len(caplog.messages)


def test_no_thread_for_the_endpoint(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the system has no thread for the endpoint, sampling goes on, and no socket is left."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_endpoint, "Worker", refuse)
    profiler = ox_otel.install(port=0)
    assert ("running", "") == (profiler.status().state, profiler.url)
    assert 1 == len(caplog.messages)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "app.example"])  # noqa: S104
def test_who_the_endpoint_is_open_to(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only an address that no other machine reaches is taken for one."""
    exposures = []

    def refuse(_: str, __: int, exposure: Exposure) -> None:
        exposures.append(exposure)
        raise OSError("enough seen")

    monkeypatch.setattr(_endpoint, "Endpoint", refuse)
    ox_otel.install(host=host, port=0, token="0123456789abcdef")  # noqa: S106
    [exposure] = exposures
    assert (host in ("127.0.0.1", "::1", "localhost")) == exposure.loopback
    assert "0123456789abcdef" == exposure.token


def test_the_kill_file(tmp_path: Path) -> None:
    """While the kill file exists no sample is taken; when it is gone, sampling goes on."""
    kill_file = tmp_path / "off"
    kill_file.touch()
    profiler = ox_otel.install(kill_file=kill_file, interval=0.005)
    until("suspended", profiler)
    time.sleep(0.1)
    assert 0 == profiler.status().samples
    assert "kill file" in profiler.status().reason
    kill_file.unlink()
    until_sampled(profiler)


def test_a_recorder_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A recorder that raises is counted and logged once; the metrics go on."""

    class Broken:
        def record(self, batch: Batch) -> None:
            raise RuntimeError("out of order")

    profiler = ox_otel.install(recorders=[Broken(), "prometheus"], interval=0.005)
    deadline = time.monotonic() + 60.0
    # the errors of a batch are known with the next one
    while not (profiler.snapshot().errors and profiler.status().samples):
        assert time.monotonic() < deadline
    assert {"recorder"} == profiler.snapshot().errors.keys()
    profiler.snapshot()
    assert metrics()["ox_profile_samples_total"] > 0
    assert 1 == len(caplog.messages)


FORKED = """
import errno, os, signal, socket, time, urllib.error, urllib.request, warnings
warnings.simplefilter("ignore")
import ox_otel
from prometheus_client import REGISTRY, generate_latest

def answers(url):
    try:
        return urllib.request.urlopen(url + "/status", timeout=60).status
    except OSError:
        return None

parent = ox_otel.install(port=0)
url = parent.url
time.sleep(0.2)
child = os.fork()
if child == 0:
    assert ox_otel.get() is parent and parent.url == ""
    ox_otel.uninstall()
    assert b"ox_profile" not in generate_latest(REGISTRY)
    mine = ox_otel.install(port=0)
    while not mine.status().samples: time.sleep(0.01)
    assert b"ox_profile_running 1.0" in generate_latest(REGISTRY)
    assert answers(mine.url) == 200 and mine.url != url
    ox_otel.uninstall()
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), answers(url), parent.status().state)
child = os.fork()
if child == 0:  # who does nothing keeps no socket open either
    time.sleep(200)
    os._exit(0)
ox_otel.uninstall()
address = "127.0.0.1", int(url.rpartition(":")[2])
while socket.socket().connect_ex(address) != errno.ECONNREFUSED: time.sleep(0.1)
print(True)
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_can_install_its_own() -> None:
    """A child can take its parent's profiler away and install its own, and harms neither."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=200, check=False
    )

    assert ("0 200 running\nTrue\n", "") == (done.stdout, done.stderr)


WORKERS = """
import os, signal, socket, sys, warnings
warnings.simplefilter("ignore")
signal.alarm(150)
import ox_otel

def answers(url):
    client = socket.socket(socket.AF_UNIX if url[:5] == "unix:" else socket.AF_INET)
    try:
        client.connect(url[5:] if url[:5] == "unix:" else ("127.0.0.1", int(url.rpartition(":")[2])))
        client.sendall(b"GET /status HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n")
        answer = b""
        while more := client.recv(1000): answer += more
        return f'"pid": {os.getpid()}'.encode() in answer
    except (OSError, ValueError):
        return False

profiler = ox_otel.install(port=sys.argv[1])
first = profiler.url
urls, workers = {first}, []
reading, writing = os.pipe()
arbiter = {"__name__": sys.argv[2], "os": os}
exec("def spawn(): return os.fork()", arbiter)
for _ in range(2):
    pid = arbiter["spawn"]()
    if pid == 0:
        signal.alarm(150)
        os.write(writing, (profiler.url if answers(profiler.url) else "silent").encode())
        signal.pause()
    urls.add(os.read(reading, 1000).decode())
    workers.append(pid)
print(len(urls), profiler.url == first, answers(first), flush=True)
for pid in workers: os.kill(pid, signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("master", [True, False])
def test_each_worker_has_an_endpoint(tmp_path: Path, *, master: bool) -> None:
    """Workers find a place of their own; only the master of a server leaves its to them."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = min(taken.getsockname()[1], 65_000)
        for places in (f"{port}-{port + 500}", f"unix:{tmp_path}/{{pid}}.sock"):
            done = subprocess.run(
                [sys.executable, "-c", WORKERS, places, "gunicorn.arbiter" if master else "other"],
                capture_output=True,
                text=True,
                timeout=200,
                check=False,
            )
            # the first worker of a master may get the port that this has given up
            expected = ["2 False False", "3 False False"] if master else ["3 True True"]
            assert (True, "") == (done.stdout.strip() in expected, done.stderr), done.stdout
