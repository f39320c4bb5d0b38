"""Views in the terminal: what `ox-otel top` and `ox-otel flame` show of a service that runs."""

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICE = """
import sys, threading, time, ox_otel

def burn():
    number = 0
    while True:
        number += 1

def rest():
    time.sleep(1e6)

profiler = ox_otel.install(interval=0.01, max_overhead=1)
for work in burn, rest, rest:
    threading.Thread(target=work, daemon=True).start()
print(profiler.url, flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["http", "unix"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a service that burns in one thread and rests in another."""
    port = "0" if request.param == "http" else f"unix:{tmp_path}/service.sock"
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE],
        env=os.environ | {"OX_OTEL_PORT": port},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as service:
        assert service.stdout is not None
        yield service.stdout.readline().strip()
        service.kill()


def look(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a view to its end, away from any terminal."""
    return subprocess.run(
        [sys.executable, "-m", "ox_otel", *arguments],
        env=os.environ | {"COLUMNS": "200"} | environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_top_shows_who_burns_and_who_waits(url: str) -> None:
    """Sorted by CPU or by waiting, the function that does most of it leads the table."""
    for order, name, place in (("self-cpu", "burn", 0), ("self-wait", "rest", 2)):
        # a series that is new stands at 0 in one scrape, so the first table may have nothing yet
        shown = look("top", url, "--interval", "1", "--count", "3", "--limit", "1", "--sort", order)
        assert (0, "") == (shown.returncode, shown.stderr)
        service, profiler, _, first = shown.stdout.splitlines()[-4:]
        assert re.match(rf"{re.escape(url)}  sampling, engine (threads|ticks), python 3\.", service)
        assert re.search(r"[\d.]+ samples/s, profiler [\d.]+ % of a core, \d+ series", profiler)
        assert f"__main__.{name}" == first.split()[-1]
        assert 0 < float(first.split()[place])


def hear_ctrl_c() -> None:
    """Take Ctrl-C as usual, even where the tests run in the background, which is deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_top_lives_on_a_terminal(url: str) -> None:
    """On a terminal the table stands on a screen of its own, and Ctrl-C ends it without a word."""
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "ox_otel", "top", url, "--interval", "0.5"]
    environ = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "20"}
    shown, deadline = "", time.monotonic() + 60
    with subprocess.Popen(
        command,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environ,
        preexec_fn=hear_ctrl_c,  # noqa: PLW1509 - this process has no other threads
    ) as view:
        os.close(terminal)
        while shown.count("__main__.burn") < 2 and time.monotonic() < deadline:
            shown += os.read(controller, 10_000).decode()
        view.send_signal(signal.SIGINT)
        while True:
            try:
                shown += os.read(controller, 10_000).decode()
            except OSError:  # the other end is closed
                break
    os.close(controller)
    assert 0 == view.returncode
    assert 2 <= shown.count("__main__.burn")
    assert shown.index("\x1b[?1049h") < shown.index("\x1b[?1049l")
    assert "Traceback" not in shown


SHORT = ["--interval", "0.1", "--count", "1"]

WRONG = {
    "nobody there": (["top", "127.0.0.1:9", *SHORT], "127.0.0.1:9 does not answer: "),
    "no socket": (["top", "unix:/nowhere", *SHORT], "unix:/nowhere does not answer: "),
    "no address": (["top", "http://", *SHORT], "'http://' is no address; http://host:port or unix"),
    "another scheme": (["top", "ftp://here", *SHORT], "'ftp://here' is no address"),
    "a wrong port": (["top", "here:many", *SHORT], "'here:many' is no address"),
    "no time": (["top", "here", "--interval", "nan"], "nan is no number of seconds above 0"),
    "no number": (["top", "here", "--count", "-1"], "-1 is no whole number"),
    "no URL": (["top"], "the following arguments are required: URL"),
    "no folder": (["flame", "here:9", "-o", "/no/where.html"], "'/no/where.html'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_wish(what: str) -> None:
    """What cannot be shown is said in one line, without a traceback."""
    arguments, message = WRONG[what]
    shown = look(*arguments)
    assert shown.returncode in (1, 2)
    assert message in shown.stderr.splitlines()[-1]
    assert "Traceback" not in shown.stderr


def test_a_flame_graph_in_a_file(url: str, tmp_path: Path) -> None:
    """It is of the seconds that come, and stands in the file that is named."""
    path = tmp_path / "graph.html"
    shown = look("flame", url, "--output", str(path), "--seconds", "1")
    assert (0, f"{path}\n") == (shown.returncode, shown.stdout)
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "__main__.burn" in page


def test_no_flame_graph_leaves_no_file(tmp_path: Path) -> None:
    """Where nobody answers, no empty file is left; what was there before stays, a link too."""
    old, new, link = (tmp_path / name for name in ("old.html", "new.html", "link.html"))
    old.write_text("before")
    link.symlink_to("elsewhere.html")
    for path in (old, new, link):
        assert 1 == look("flame", "127.0.0.1:9", "-o", str(path)).returncode
    assert ("before", False, True) == (old.read_text(), new.exists(), link.is_symlink())


def test_another_service(tmp_path: Path) -> None:
    """A service without our metrics is told from one that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with subprocess.Popen(
            [sys.executable, "-m", "ox_otel", "top", url, *SHORT],
            stderr=subprocess.PIPE,
            text=True,
        ) as view:
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhis_total 1\n")
            _, said = view.communicate(timeout=60)
    assert f"ox-otel top: {url} has no metrics of ox_otel\n" == said


def test_the_library_for_terminals_is_an_extra(tmp_path: Path) -> None:
    """Where it is not there, one line says what brings it."""
    (tmp_path / "rich.py").write_text("raise ModuleNotFoundError('No module named rich')")
    shown = look("top", "127.0.0.1:9", PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    expected = "ox-otel top: No module named rich; pip install 'ox-otel[terminal]' brings it\n"
    assert (1, expected) == (shown.returncode, shown.stderr)
