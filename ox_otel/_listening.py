"""Where our own endpoint listens: at a port, at the first free one of several, or at a path."""

import errno
import os
import select
import socket
import stat
from collections.abc import Callable
from contextlib import suppress

from ox_otel._native import original
from ox_otel._values import Port


def listen(host: str, port: Port) -> socket.socket:
    """Return a socket that listens at the first place of *host* and *port* that is free.

    Raises:
        OSError: none can be had.
    """
    if isinstance(port, str):
        return _listen_at(port.removeprefix("unix:").replace("{pid}", str(os.getpid())))
    listener = _listen_on(host, port)
    return _native(listener.family, listener.detach())


def accept(listener: socket.socket) -> socket.socket:
    """Return the next connection to *listener*.

    Raises:
        OSError: there is none.
    """
    # its method `accept` would return what has been patched over the class
    descriptor, _ = listener._accept()  # type: ignore[attr-defined]
    return _native(listener.family, descriptor)


def socketpair() -> tuple[socket.socket, socket.socket]:
    """Return two sockets that are connected with each other.

    Raises:
        OSError: they cannot be had.
    """
    one, other = socket.socketpair()
    return _native(one.family, one.detach()), _native(other.family, other.detach())


def readiness(*sockets: socket.socket) -> Callable[[], list[int]]:
    """Return a function that waits, and then returns the descriptors of *sockets* to read from."""
    descriptors = [each.fileno() for each in sockets]
    try:
        poll = original(select, "poll")()
    except AttributeError:  # Windows has none; elsewhere `select` fails beyond 1023 descriptors
        wait = original(select, "select")
        return lambda: wait(descriptors, (), ())[0]
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return lambda: [descriptor for descriptor, _ in poll.poll()]


def _native(family: int, descriptor: int) -> socket.socket:
    """Return a socket of the interpreter's own class, which blocks."""
    made: socket.socket = original(socket, "socket")(family, socket.SOCK_STREAM, 0, descriptor)
    made.setblocking(True)
    return made


def _listen_on(host: str, port: int | range) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    *others, last = [port] if isinstance(port, int) else port
    for each in others:
        try:
            return socket.create_server((host, each), family=family)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return socket.create_server((host, last), family=family)


def url_of(listener: socket.socket, host: str) -> str:
    """Return the address of *listener* for people and clients."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


def leave(listener: socket.socket) -> None:
    """Remove the file of a *listener* of this process, if it has one."""
    if listener.family == socket.AF_UNIX:
        with suppress(OSError):  # the host has done so already
            os.unlink(listener.getsockname())


def _listen_at(path: str) -> socket.socket:
    """Return a socket that listens at *path*, for this user only."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode) and _is_left(path):
            os.unlink(path)
    listener: socket.socket = original(socket, "socket")(socket.AF_UNIX)
    try:
        os.fchmod(listener.fileno(), 0o600)  # it is what the file will have
        listener.bind(path)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def _is_left(path: str) -> bool:
    """Return whether nobody listens at *path* any more: its process was killed."""
    with original(socket, "socket")(socket.AF_UNIX) as client:
        client.settimeout(1)
        return bool(client.connect_ex(path) == errno.ECONNREFUSED)
