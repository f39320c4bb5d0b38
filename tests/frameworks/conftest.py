"""Real servers of the frameworks that people use, on loopback and a free port."""

import http.client
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"

PATIENCE = 60
"""Seconds after which what has not come will not come, however busy the machine is."""


class Answer(NamedTuple):
    """What a server answered; names of *headers* are in lower case."""

    status: int
    headers: dict[str, str]
    text: str


class Site:
    """A running server, as a client sees it; cookies are kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cookie = ""

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection to the server."""
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Return the answer to a request."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self._cookie:
            sent["Cookie"] = self._cookie
        connection = self.connect()
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            self._cookie = found.get("set-cookie", self._cookie).partition(";")[0]
            return Answer(answer.status, found, answer.read().decode())
        finally:
            connection.close()

    def ask_with_two_tokens(self, path: str, token: str) -> int:
        """Return the status of the answer to a request that has the token twice."""
        connection = self.connect()
        connection.putrequest("GET", path)
        for _ in range(2):
            connection.putheader("Authorization", f"Bearer {token}")
        connection.endheaders()
        status = connection.getresponse().status
        connection.close()
        return status

    def get(self, path: str, **headers: str) -> Answer:
        """Return the answer to a GET."""
        return self.ask("GET", path, **headers)


Serve = Callable[..., Site]


@pytest.fixture
def serve(free_port: Callable[[], int], tmp_path: Path) -> Iterator[Serve]:
    """Start a server: its command, where `{port}` stands for a free port, and its environment."""
    with ExitStack() as running:
        yield lambda *command, **environ: running.enter_context(
            _running(command, environ, free_port(), tmp_path / "log")
        )


@contextmanager
def _running(
    command: tuple[str, ...], environ: dict[str, str], port: int, log: Path
) -> Iterator[Site]:
    """Run a server while the block runs; it must end by itself, and have complained of nothing."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *(word.replace("{port}", str(port)) for word in command)],
            cwd=log.parent,
            env={
                **os.environ,
                "HOME": str(log.parent),  # where gunicorn has its control socket
                "PYTHONPATH": os.pathsep.join(
                    [str(HERE), str(EXAMPLES), os.environ.get("PYTHONPATH", "")]
                ),
                "OX_OTEL_MAX_OVERHEAD": "1",  # a busy machine is no reason to sample less here
                **environ,
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_it_listens(port, process)
        yield Site(port)
        process.terminate()
        process.wait(PATIENCE)
        assert [] == re.findall(r"Traceback|Fatal Python error|ERROR", log.read_text())
    finally:
        process.kill()
        process.wait()
        print(log.read_text())  # which pytest shows if a test failed


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=10).close()
        except OSError:
            assert process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.1)
        else:
            return
