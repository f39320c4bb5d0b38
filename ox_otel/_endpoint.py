"""Our own endpoint: a small HTTP server on native threads of ours."""

import io
import os
import socket
import time
from contextlib import ExitStack, suppress
from functools import partial
from http import HTTPStatus
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler
from typing import Any

from ox_otel._fork import follow_forks
from ox_otel._listening import accept, leave, listen, readiness, socketpair, url_of
from ox_otel._native import Worker, original
from ox_otel._signals import as_host
from ox_otel._values import Port
from ox_otel.http import (
    TOO_LARGE,
    TOO_MANY,
    Exposure,
    Request,
    Response,
    body_length,
    plain,
    respond,
)

MAX_CONNECTIONS = 8
"""Connections answered at once; whoever comes then is turned away."""

MAX_SENT = 131_072
"""Bytes that a client may send: twice the longest line that the parser of requests takes."""

CLIENT_SECONDS = 5.0
"""How long a client may take to send its request, and then to take each part of the answer."""

CLOSE_SECONDS = 1.0
"""How long `close` waits for our threads."""


class Endpoint:
    """Answers requests at *host* and *port* (see `listen`) as *exposure* has it, until `close`.

    Raises:
        OSError: the address cannot be had.
        RuntimeError: there is no thread to be had.
        MemoryError: as above.
    """

    def __init__(self, host: str, port: Port, exposure: Exposure) -> None:
        if exposure.metrics is not None:  # collectors of the host may start something
            exposure = exposure._replace(metrics=as_host()(exposure.metrics))
        self._exposure = exposure
        self._pid = os.getpid()
        self._conversations: list[tuple[Worker, socket.socket]] = []
        with ExitStack() as opened:
            self._listener = opened.enter_context(listen(host, port))
            self._listener.setblocking(False)
            self._ear, self._bell = map(opened.enter_context, socketpair())
            self._worker = Worker(self._listen, "ox_otel_listen")
            self._opened = opened.pop_all()
        self.url = url_of(self._listener, host)
        follow_forks(self.close)  # a socket that only a child holds open would answer nobody

    def close(self) -> None:
        """Stop listening and end all conversations, within a second.

        In a forked child only its copies of the sockets are closed: the endpoint is the parent's,
        which would hear the bell.
        """
        if self._pid == os.getpid():
            self._end_threads()
        for _, connection in self._conversations:
            connection.close()
        self._opened.close()

    def _end_threads(self) -> None:
        deadline = time.monotonic() + CLOSE_SECONDS
        leave(self._listener)
        self._bell.send(b"!")
        self._worker.join(CLOSE_SECONDS)
        for _, connection in self._conversations:
            with suppress(OSError):  # it has ended
                connection.shutdown(socket.SHUT_RDWR)
        for worker, _ in self._conversations:
            worker.join(max(deadline - time.monotonic(), 0.0))

    def _listen(self) -> None:
        charged = 0.0
        wait, told = readiness(self._listener, self._ear), self._ear.fileno()
        while told not in wait():
            try:
                connection = accept(self._listener)
            except OSError:  # gone again, or no descriptor left: no reason to spin
                original(time, "sleep")(0.1)
                continue
            self._answer(connection)
            cpu_seconds = time.thread_time()
            self._exposure.profiler.charge(cpu_seconds - charged)
            charged = cpu_seconds

    def _answer(self, connection: socket.socket) -> None:
        """Answer *connection* on a thread of its own, or turn it away if there are too many."""
        self._conversations = [one for one in self._conversations if one[0].alive()]
        if len(self._conversations) >= MAX_CONNECTIONS:
            _turn_away(connection)
            return
        try:
            worker = Worker(partial(self._converse, connection), "ox_otel_http")
        except (RuntimeError, MemoryError):
            _turn_away(connection)
        else:
            self._conversations.append((worker, connection))

    def _converse(self, connection: socket.socket) -> None:
        try:
            with connection:
                _Conversation(connection, self._exposure)
        except (OSError, HTTPException):  # the client has gone, was too slow, or sent too much
            pass
        except Exception:
            self._exposure.profiler.count_error("request")
        finally:
            self._exposure.profiler.charge(time.thread_time())


def _turn_away(connection: socket.socket) -> None:
    """Say that there are too many, without a wait for anything, and close *connection*."""
    status = f"HTTP/1.0 {TOO_MANY.status} {HTTPStatus(TOO_MANY.status).phrase}"
    lines = [status, *(f"{name}: {value}" for name, value in TOO_MANY.headers.items()), "", ""]
    with connection, suppress(OSError):
        connection.setblocking(False)
        connection.send("\r\n".join(lines).encode() + TOO_MANY.body)


class _Patience(io.RawIOBase):
    """Reads what *connection* sends, however it drips, within `CLIENT_SECONDS` in all.

    More than `MAX_SENT` bytes are an error that the parser of headers answers with 431.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + CLIENT_SECONDS
        self._received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        received = self._connection.recv_into(buffer)
        self._received += received
        if self._received > MAX_SENT:
            raise HTTPException
        return received


class _Conversation(BaseHTTPRequestHandler):
    """Translates between the wire and `Request` and `Response`."""

    server_version = "ox_otel"
    sys_version = ""
    default_request_version = "HTTP/1.0"  # even what is no HTTP gets an answer with headers

    def __init__(self, connection: socket.socket, exposure: Exposure) -> None:
        self._exposure = exposure
        super().__init__(connection, None, None)  # type: ignore[arg-type]

    def setup(self) -> None:
        """Read with a deadline."""
        super().setup()
        self.rfile.close()
        # the default, 128 KiB from 3.14 on, would take all that a client may send in one reading
        self.rfile = io.BufferedReader(_Patience(self.connection), 8192)

    def do_GET(self) -> None:
        """Answer a request, whatever its method."""
        path, _, query = self.path.partition("?")
        names = {name.lower() for name in self.headers}
        headers = {name: ", ".join(self.headers.get_all(name, [])) for name in names}
        length = body_length(headers.get("content-length", "0"))
        if length is None:
            self._send(TOO_LARGE)
            return
        body = self.rfile.read(length)
        request = Request(self.command, path, query, headers, body, gone=self._gone)
        try:
            response = respond(request, self._exposure)
        except BaseException:  # collectors may raise what is no Exception
            self._exposure.profiler.count_error("request")
            response = plain(500, "internal error")
        self._send(response)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET

    def _gone(self) -> bool:
        """Return whether the client has hung up, or we have, since the endpoint closes.

        Who sends what nobody has asked for counts as gone: behind it no end could be seen.
        """
        try:
            self.connection.setblocking(False)
            self.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:  # it was reset
            pass
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request that we know, in the form of all other answers."""
        self._send(plain(code, HTTPStatus(code).phrase))

    def _send(self, response: Response) -> None:
        self.connection.settimeout(CLIENT_SECONDS)
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        if response.body or self.command != "HEAD":  # else it may not have been made
            self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Write nothing: the host's stderr is not ours."""
