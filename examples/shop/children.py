"""The processes of the demo."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn, Self

import answers

READY_WITHIN = 30.0  # seconds


def free_port() -> int:
    """Return a port on loopback that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Children:
    """Processes whose output is kept in `folder`, and which are stopped on leaving the context."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str | Path, **environ: str) -> None:
        """Start a process; Ctrl-C in the terminal reaches only the demo, which stops it."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command,
                env=os.environ | environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    def check(self) -> None:
        """Exit with the last words of a process that has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                self.give_up(name, f"ended with status {process.returncode}")

    def wait_for(self, name: str, url: str) -> None:
        """Return when the process answers at `url`."""
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            self.check()
            try:
                answers.get(url)
            except OSError:
                time.sleep(0.1)
            else:
                return
        self.give_up(name, f"has not answered at {url} within {READY_WITHIN:.0f} s")

    def give_up(self, name: str, why: str) -> NoReturn:
        """Exit, and say why."""
        words = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-15:]
        sys.exit("\n    ".join([f"demo: {name} {why}; its last lines:", *words]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave any behind
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
