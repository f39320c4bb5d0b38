"""Where the endpoint listens: many processes side by side, and no other's place taken."""

import os
import select
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from ox_otel._listening import leave, listen, readiness, socketpair, url_of
from ox_otel._values import each_has_its_own


@pytest.fixture
def free(free_ports: Callable[[int], int]) -> int:
    """A port that is free, as are some behind it."""
    return free_ports(3)


def test_the_first_free_port(free: int) -> None:
    """Of a range, each takes the first port that nobody has, until there is none."""
    ports = range(free, free + 2)
    with closing(listen("127.0.0.1", ports)) as one, closing(listen("127.0.0.1", ports)) as other:
        assert f"http://127.0.0.1:{free}" == url_of(one, "127.0.0.1")
        assert f"http://127.0.0.1:{free + 1}" == url_of(other, "127.0.0.1")
        with pytest.raises(OSError, match="in use"):
            listen("127.0.0.1", ports)


def test_a_host_that_is_not_ours(free: int) -> None:
    """What is wrong with the host is no reason to try further ports."""
    with pytest.raises(OSError, match=f"assign .* {free}\\)"):
        listen("192.0.2.1", range(free, free + 3))


def test_a_socket_of_the_process(tmp_path: Path) -> None:
    """At a path, only the user of the process may connect; the file goes with the listener."""
    with closing(listen("", f"unix:{tmp_path}/{{pid}}.sock")) as listener:
        path = tmp_path / f"{os.getpid()}.sock"
        assert f"unix:{path}" == url_of(listener, "")
        assert 0o600 == stat.S_IMODE(path.stat().st_mode)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        leave(listener)
        assert not path.exists()
        leave(listener)


def test_a_socket_that_was_left_behind(tmp_path: Path) -> None:
    """The file of a process that was killed is taken over, that of a living one is not."""
    port = f"unix:{tmp_path}/it.sock"
    listen("", port).close()
    with closing(listen("", port)), pytest.raises(OSError, match="in use"):
        listen("", port)


def test_a_file_that_is_none_of_ours(tmp_path: Path) -> None:
    """What is no socket stays where it is."""
    file = tmp_path / "it.sock"
    file.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        listen("", f"unix:{file}")
    assert "precious" == file.read_text()


@pytest.mark.parametrize(
    ("port", "expected"),
    [(9100, False), (0, False), (range(1, 3), True), ("unix:/a", False), ("unix:/{pid}", True)],
)
def test_who_has_its_own(port: int | range | str, expected: bool) -> None:  # noqa: FBT001
    """Workers can each listen in a range of ports, or where the path depends on the process."""
    assert expected == each_has_its_own(port)


@pytest.mark.parametrize("missing", ["", "poll"])
def test_waiting_for_what_can_be_read(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait tells which of several sockets can be read from, on Windows, without `poll`, too."""
    if missing:
        monkeypatch.delattr(select, missing)
    with ExitStack() as opened:
        silent, _ = map(opened.enter_context, socketpair())
        hearing, speaking = map(opened.enter_context, socketpair())
        wait = readiness(silent, hearing)
        threading.Timer(0.05, speaking.send, [b"!"]).start()
        assert [hearing.fileno()] == wait()
