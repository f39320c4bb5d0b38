"""Our own endpoint: a small HTTP server on native threads of ours."""

import select
import socket
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address

from ox_otel._native import Worker
from ox_otel.http import MAX_BODY, TOO_LARGE, Request, Response

MAX_CONNECTIONS = 8
"""Connections answered at once; whoever comes then is turned away."""

CLIENT_SECONDS = 5.0
"""How long a client may take over any one step."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches *host*."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Endpoint:
    """Answers requests at *host* and *port* (0: any free one) with *respond*, until `close`.

    *charge* is told what it cost, in CPU seconds.

    Raises:
        OSError: the address cannot be had.
        RuntimeError: there is no thread to be had.
    """

    def __init__(
        self,
        host: str,
        port: int,
        respond: Callable[[Request], Response],
        charge: Callable[[float], None],
    ) -> None:
        self._respond = respond
        self._charge = charge
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family)
        self._listener.setblocking(False)
        self._bell, self._ear = socket.socketpair()
        self._connections: list[Worker] = []
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self._listener.getsockname()[1]}"
        try:
            self._worker = Worker(self._listen, "ox_otel_listen")
        except BaseException:
            self._close_sockets()
            raise

    def close(self) -> None:
        """Stop listening, within a second."""
        self._bell.send(b"!")
        self._worker.join(1.0)
        self._close_sockets()

    def _close_sockets(self) -> None:
        for one in (self._listener, self._bell, self._ear):
            one.close()

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._ear, select.POLLIN)
        ear = self._ear.fileno()
        while all(descriptor != ear for descriptor, _ in poll.poll()):
            try:
                connection, _ = self._listener.accept()
            except OSError:  # gone again, or no descriptor left: no reason to spin
                time.sleep(0.01)
                continue
            self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        """Answer *connection* on a thread of its own, or close it if there are too many."""
        self._connections = [worker for worker in self._connections if worker.alive()]
        if len(self._connections) < MAX_CONNECTIONS:
            try:
                work = partial(self._converse, connection)
                self._connections.append(Worker(work, "ox_otel_http"))
            except (RuntimeError, MemoryError):
                connection.close()
        else:
            connection.close()

    def _converse(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(CLIENT_SECONDS)
            try:
                _Conversation(connection, self._respond)
            except OSError:  # the client has gone
                pass
            finally:
                self._charge(time.thread_time())


class _Conversation(BaseHTTPRequestHandler):
    """Translates between the wire and `Request` and `Response`."""

    server_version = "ox_otel"
    sys_version = ""

    def __init__(self, connection: socket.socket, respond: Callable[[Request], Response]) -> None:
        self._respond = respond
        super().__init__(connection, None, None)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer a request, whatever its method."""
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self._send(TOO_LARGE)
            return
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(length))
        self._send(self._respond(Request(self.command, path, query, headers, body)))

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Write nothing: the host's stderr is not ours."""
