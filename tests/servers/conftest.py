"""One helper for all servers: run one under load, look into each of its workers, stop it."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

STOP_SECONDS = 20
"""How long a master and all of its workers may take to end; gunicorn kills after thirty."""

PATIENCE = 60
"""Seconds after which what has not come will not come, however busy the machine is."""

SLACK = 4
"""Descriptors and threads that a server may open later than others, for instance for a pool."""

FAULTS = re.compile(r"Fatal Python error|Traceback|Segmentation|dumped|NO MERCY|SIGKILL|SIGSEGV")
"""What no log may hold."""

HERE = Path(__file__).parent

Journal = dict[str, float]
"""What a worker has written down: the sums over its page of metrics, see `app.Journal`."""


class Service:
    """A running server: the process that was started, and all that descend from it."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, folder: Path) -> None:
        self.process = process
        self.url = url
        self._folder = folder

    def log(self) -> str:
        """Return what the server has logged."""
        return (self._folder / "log").read_text()

    def pids(self) -> set[int]:
        """Return the processes of the server that are there now."""
        parents = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has ended in the meantime
                state, parent = path.read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    parents[int(path.parent.name)] = int(parent)
        found, more = set(), {self.process.pid} & parents.keys()
        while more:
            found |= more
            more = {pid for pid, parent in parents.items() if parent in more}
        return found

    def journals(self) -> dict[int, Journal]:
        """Return what each process that was ever sampled has written last."""
        return {int(path.stem): json.loads(path.read_text()) for path in self._written()}

    def workers(self) -> list[int]:
        """Return the processes that ever showed the CPU which requests used in their metrics."""
        return [
            pid
            for pid, journal in self.journals().items()
            if journal.get("burn ox_profile_seconds_total", 0)
        ]

    def wait_for(self, look: Callable[[], object], what: str) -> None:
        """Return as soon as *look* returns something true; fail if it never does."""
        deadline = time.monotonic() + PATIENCE
        while not look():
            if time.monotonic() > deadline:
                pytest.fail(f"never: {what}\n{self.journals()}\n{self.log()}")
            time.sleep(0.1)

    def rest(self) -> dict[int, Journal]:
        """Return the journals of the live workers when all that they did stands in them."""
        began = time.time() + 2.2  # two batches: a series that is new shows at 0 in the first
        pids = {pid for pid in self.pids() if "ox_otel" in _threads(pid)}

        def fresh() -> bool:
            written = [path for path in self._written() if int(path.stem) in pids]
            return all(path.stat().st_mtime > began for path in written)

        self.wait_for(fresh, "every worker writes its journal")
        return {pid: journal for pid, journal in self.journals().items() if pid in pids}

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """End the server; return its exit status once the last of its processes is gone."""
        pids = self.pids()
        self.process.terminate()
        deadline = time.monotonic() + seconds
        status = self.process.wait(seconds)
        while left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
            assert time.monotonic() < deadline, f"{left} of {pids} still run\n{self.log()}"
            time.sleep(0.02)
        return status

    def _written(self) -> list[Path]:
        return list(self._folder.glob("[0-9]*.json"))


Serve = Callable[..., Service]
Load = Callable[..., AbstractContextManager[list[str]]]


@pytest.fixture
def serve(free_port: Callable[[], int], tmp_path: Path) -> Iterator[Serve]:
    """Start a server: its command, where `{port}` stands for a free port, and its environment."""
    with ExitStack() as running:

        def start(*command: str, **environ: str) -> Service:
            port = str(free_port())
            return running.enter_context(
                _running(
                    [word.replace("{port}", port) for word in command], environ, port, tmp_path
                )
            )

        yield start


@contextmanager
def _running(
    command: list[str], environ: dict[str, str], port: str, folder: Path
) -> Iterator[Service]:
    """Run a server while the block runs; whatever is left of it then is killed."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))  # so that a crash leaves a file
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={
                **os.environ,
                "HOME": str(folder),  # where gunicorn has its control socket
                "JOURNALS": str(folder),
                "OX_OTEL_MAX_OVERHEAD": "0.5",  # a busy machine is no reason to sample less here
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PYTHONFAULTHANDLER": "1",
                "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
                **environ,
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    service = Service(process, f"http://127.0.0.1:{port}/", folder)
    try:
        yield service
    finally:
        for pid in service.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        print(service.log())  # which pytest shows if a test failed


@pytest.fixture
def prove_recycled(load: Load) -> Callable[..., None]:
    """Prove of a running server that it may replace its workers, then stop it."""

    def prove(service: Service, stop_seconds: float = STOP_SECONDS) -> None:
        """Load the *service* until the third generation of its workers is sampled."""
        with load(service.url, starting=True) as answers:
            service.wait_for(
                lambda: len(service.workers()) >= 6, "workers are replaced and sampled"
            )

        assert {"burned"} == {*answers}
        for journal in service.journals().values():  # those of the dead too
            _assert_conserved(journal)
        assert 0 == service.stop(stop_seconds)
        assert [] == FAULTS.findall(service.log())

    return prove


@pytest.fixture
def prove(load: Load, tmp_path: Path) -> Callable[..., None]:
    """Prove of a running server what holds for every one, then stop it."""

    def prove(  # noqa: PLR0913 - what servers differ in
        service: Service,
        *,
        workers: int,
        idle: int = 0,
        status: int = 0,
        stop_seconds: float = STOP_SECONDS,
        told: float = 0.8,
    ) -> None:
        """Load the *service*, whose *workers* answer; *idle* others are sampled besides.

        At least so much of their CPU must be *told*.
        """
        with load(service.url, starting=True) as answers:
            service.wait_for(lambda: len(service.workers()) >= workers, "every worker is sampled")
        before, kept_before = service.rest(), _kept(service.pids())
        with load(service.url) as more:
            service.wait_for(lambda: len(more) > 100, "a hundred answers more")
        after, kept_after = service.rest(), _kept(service.pids())

        assert {"burned"} == {*answers, *more}
        assert workers + idle == len(after)
        assert dict.fromkeys(service.pids(), False) | dict.fromkeys(after, True) == {
            pid: "ox_otel" in _threads(pid) for pid in service.pids()
        }
        for journal in after.values():
            _assert_conserved(journal)
        assert told <= _told(before, after) <= 1.2
        assert [] == [
            (pid, kept_before[pid], kept)
            for pid, kept in kept_after.items()
            if any(new > old + SLACK for old, new in zip(kept_before[pid], kept, strict=True))
        ]

        assert status == service.stop(stop_seconds)
        assert [] == FAULTS.findall(service.log())
        assert [] == list(tmp_path.glob("core*"))

    return prove


def _threads(pid: int) -> list[str]:
    """Return the names of the threads of a process, as the kernel knows them."""
    return [path.read_text().strip() for path in Path(f"/proc/{pid}/task").glob("*/comm")]


def _kept(pids: set[int]) -> dict[int, tuple[int, int]]:
    """Return how many descriptors and threads each process has."""
    return {pid: (len(os.listdir(f"/proc/{pid}/fd")), len(_threads(pid))) for pid in pids}


def _assert_conserved(journal: Journal) -> None:
    """The sums over all series are the totals."""
    assert journal["ox_profile_self_hits_total"] == journal["ox_profile_stacks_total"]
    assert journal["ox_profile_self_seconds_total"] == pytest.approx(
        journal["ox_profile_observed_seconds_total"]
    )


def _told(before: dict[int, Journal], after: dict[int, Journal]) -> float:
    """Return how much of the CPU that the kernel counted for all workers together they have told."""

    def gained(name: str) -> float:
        return sum(journal[name] - before[pid][name] for pid, journal in after.items())

    counted = gained("process_time") - gained("ox_profile_overhead_seconds_total")
    return gained("cpu ox_profile_observed_seconds_total") / counted
