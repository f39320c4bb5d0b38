"""The processes of a service: what is wished of one of them, all do."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ox_otel import Profiler, Settings, install, uninstall
from ox_otel._service import Service

WORKER = """
import os, signal, sys, time, warnings
warnings.simplefilter("ignore")
import ox_otel
profiler = ox_otel.install(run_dir=sys.argv[1], port=0, interval=0.005)
print(profiler.url, flush=True)
os.fork()
signal.alarm(200)
state = None
while True:
    if state != (state := profiler.status().state):
        with open(f"{sys.argv[2]}/{os.getpid()}", "w") as file: file.write(state)
    time.sleep(0.02)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a service, not made yet."""
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    uninstall()


def post(url: str) -> None:
    """Ask for a change."""
    urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=60).close()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until *condition* holds; two seconds are promised, and a busy machine gets more."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


def test_two_processes_do_the_same(folder: Path) -> None:
    """A request to one is heard by the other, whether it samples or rests."""
    mine, others = install(run_dir=folder, port=0), Profiler(Settings())
    service = Service(str(folder), others)
    for path, expected in (
        ("/pause", (True, 0.02)),
        ("/interval?seconds=0.5", (True, 0.5)),
        ("/unpause", (False, 0.5)),
    ):
        post(mine.url + path)
        assert expected == mine.wishes()
        until(lambda expected=expected: expected == others.wishes())
    service.close()


def test_only_what_was_asked_is_shared(folder: Path) -> None:
    """A request changes one thing everywhere, and nothing that a process was told for itself."""
    mine, others = install(run_dir=folder, port=0), Profiler(Settings(interval=0.05))
    service = Service(str(folder), others)
    mine.pause()
    post(mine.url + "/interval?seconds=0.5")
    until(lambda: others.wishes().interval == 0.5)
    assert not others.wishes().paused
    others.set_interval(0.1)
    post(mine.url + "/pause")
    until(lambda: others.wishes().paused)
    others.unpause()
    post(mine.url + "/interval?seconds=0.3")
    until(lambda: others.wishes().interval == 0.3)
    assert not others.wishes().paused
    mine.unpause()
    others.set_interval(0.2)
    post(mine.url + "/pause")  # once more
    until(lambda: others.wishes().paused)
    assert (True, 0.2) == others.wishes()
    service.close()


def test_who_comes_later_does_the_same(folder: Path) -> None:
    """A process that starts when something has been wished does so from the start."""
    first = install(run_dir=folder, interval=0.5)
    first.pause()
    first.share("paused")
    first.share("interval")
    uninstall()
    later = install(run_dir=folder)
    assert ("paused", 0.5) == (later.status().state, later.status().interval)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking beside what is just ending
def test_a_child_does_not_come_back(folder: Path) -> None:
    """Who is forked when its parent has left the service is not in it, whatever the host keeps."""
    kept = install(run_dir=folder)
    uninstall()
    pid = os.fork()
    if pid == 0:
        os._exit(len(list(folder.iterdir())))
    assert (0, False) == (os.waitpid(pid, 0)[1], kept.is_paused())


def test_a_process_that_was_killed_is_forgotten(folder: Path) -> None:
    """What it leaves in the folder is removed by whoever comes next, or asks for something."""
    code = "import os, sys, ox_otel; ox_otel.install(run_dir=sys.argv[1]); os._exit(0)"
    killed = [sys.executable, "-c", code, str(folder)]
    subprocess.run(killed, check=True)
    profiler = install(run_dir=folder)
    assert 1 == len(list(folder.glob("*.sock")))
    subprocess.run(killed, check=True)
    profiler.share("paused")
    assert 1 == len(list(folder.glob("*.sock")))
    uninstall()
    assert ["paused"] == [path.name for path in folder.iterdir()]


def test_sockets_of_others_stay(folder: Path) -> None:
    """What somebody else keeps in the folder is neither removed nor written to, though it is dead."""
    folder.mkdir(0o700)
    others = [folder / name for name in ("shop.sock", "4711.sock", "4711-01234567.sock.old")]
    for path in others:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
            dead.bind(str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as living:
        living.bind(str(folder / "its.sock"))
        living.setblocking(False)
        install(run_dir=folder).share("paused")
        with pytest.raises(BlockingIOError):
            living.recv(1)
    assert all(path.is_socket() for path in others)


def test_a_folder_of_this_user_only(folder: Path) -> None:
    """It is made so that nobody else can write there."""
    install(run_dir=folder)
    assert 0o700 == folder.stat().st_mode & 0o777


@pytest.mark.parametrize("fault", ["mode", "link", "file"])
def test_a_folder_that_is_not_safe(
    folder: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where others might tell us what to do, we listen to nobody, and say so once."""
    if fault == "mode":
        folder.mkdir()
        folder.chmod(0o750)
    elif fault == "link":
        (folder.parent / "elsewhere").mkdir(0o700)
        folder.symlink_to(folder.parent / "elsewhere")
    else:
        folder.touch()
    profiler = install(run_dir=folder)
    profiler.share("paused")
    assert "running" == profiler.status().state
    assert 1 == len(caplog.messages)
    assert not folder.is_dir() or [] == list(folder.iterdir())


@pytest.mark.parametrize("wish", ["paused", "interval"])
@pytest.mark.parametrize(
    "content", ["", "True", "0.5", "nan 1", "1e9 1", "a b", "0.5 b c", "\0\xff 1"]
)
def test_a_file_that_says_nothing_valid(folder: Path, wish: str, content: str) -> None:
    """A file that is cut off or tampered with changes nothing."""
    folder.mkdir(0o700)
    (folder / wish).write_text(content, encoding="latin-1")
    assert (False, 0.02) == install(run_dir=folder).wishes()


def switches(pids: list[str]) -> int:
    """Return how often threads of ours in these processes have given up their core by themselves."""
    return sum(
        int(line.split()[1])
        for pid in pids
        for task in Path(f"/proc/{pid}/task").iterdir()
        if (task / "comm").read_text().startswith("ox_otel")
        for line in (task / "status").read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


def is_still(pids: list[str]) -> bool:
    """Return whether no thread of ours in these processes has done anything for a moment."""
    before = switches(pids)
    time.sleep(0.2)
    return before == switches(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows threads in /proc")
def test_a_service_of_many(folder: Path, tmp_path: Path) -> None:
    """Processes and their forked children all do so; at rest nothing of ours wakes up."""
    states = tmp_path / "states"
    states.mkdir()
    command = [sys.executable, "-c", WORKER, str(folder), str(states)]

    def all_are(state: str) -> bool:
        files = list(states.iterdir())
        return len(files) == 6 and {state} == {file.read_text() for file in files}

    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        urls = [worker.stdout.readline().strip() for worker in workers if worker.stdout]
        until(lambda: all_are("running"))
        post(urls[0] + "/pause")
        until(lambda: all_are("paused"))
        pids = [file.name for file in states.iterdir()]
        until(lambda: is_still(pids))  # what the request has set going is over
        before = switches(pids)
        time.sleep(1)
        assert 0 == switches(pids) - before
        post(urls[1] + "/unpause")
        until(lambda: all_are("running"))
    finally:
        for pid in [file.name for file in states.iterdir()]:
            os.kill(int(pid), signal.SIGKILL)
        for worker in workers:
            worker.communicate()
