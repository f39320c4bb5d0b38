"""An ASGI application that serves what our own endpoint serves, for another one to mount.

    app.mount("/ox_otel", ox_otel.asgi.app())

As with `ox_otel.wsgi`, nobody is trusted for an address. It needs a loop of asyncio, uvloop's
included, and never holds it up: answers are made on native threads of ours.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from ox_otel._ending import at_end
from ox_otel._fork import follow_forks
from ox_otel._install import get
from ox_otel._mounting import answer, let_in, with_length
from ox_otel._native import Worker
from ox_otel._signals import as_host
from ox_otel.http import MAX_BODY, TOO_LARGE, TOO_MANY, Request, Response, plain

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_ANSWERS = 8
"""Answers made at once in a process; whoever comes then is turned away."""

# those that make answers; steps of a set are whole, so loops on several threads take no lock
_workers: set[Worker] = set()


def app(*, allow: Callable[[Scope], bool] | None = None, metrics: bool = True) -> Application:
    """Return an application that serves the profiler which is installed when a request comes.

    Whom *allow* returns True for, given the scope of a request, needs no token; what it raises
    reaches the server. For `/metrics` it is not asked; without *metrics*, that is not served.
    """

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            response = await _answered(scope, receive, allow, metrics=metrics)
            if response is not None:
                await _send(response, send, scope["method"])
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        else:
            raise ValueError(f"nothing is served here by {scope['type']}")

    return application


async def _live(receive: Receive, send: Send) -> None:
    """Follow the life of a server that runs this application by itself."""
    event = ""
    while event != "lifespan.shutdown":
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})


async def _answered(
    scope: Scope, receive: Receive, allow: Callable[[Scope], bool] | None, *, metrics: bool
) -> Response | None:
    """Return the answer to a request, None if the client has gone."""
    prefix = scope.get("root_path", "").rstrip("/")
    path = scope["path"].removeprefix(prefix)
    trusted = let_in(allow, scope, path)
    body = await _body(receive)
    if body is None or len(body) > MAX_BODY:
        return None if body is None else TOO_LARGE
    query = scope["query_string"].decode("latin-1")
    request = Request(scope["method"], path, query, _headers(scope), body, trusted=trusted)

    def make(gone: Callable[[], bool]) -> Response:
        return answer(request._replace(gone=gone), prefix, metrics=metrics)

    return await _made(make, receive)


def _headers(scope: Scope) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def _body(receive: Receive) -> bytes | None:
    """Return the body of a request, or the beginning of one that is too long; None: it has gone."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part: bytes = message.get("body", b"")
        body += part
        if len(body) > MAX_BODY or not message.get("more_body", False):
            return body


async def _made(
    make: Callable[[Callable[[], bool]], Response], receive: Receive
) -> Response | None:
    """Return what *make* returns on a thread of ours; None if the client goes meanwhile.

    *make* is given what tells whether nobody waits any more.
    """
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Response] = loop.create_future()
    gone = False

    def settle(response: Response) -> None:
        if not made.done():  # the server may have cancelled the request
            made.set_result(response)

    def work() -> None:
        try:
            with as_host():  # collectors of the host may start something
                response = make(lambda: gone)
        except BaseException:  # they may raise what is no Exception
            response = plain(500, "internal error")
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(settle, response)
        profiler = get()
        if profiler is not None:
            profiler.charge(time.thread_time())

    if not _employ(work):
        return TOO_MANY
    # asked once only: a body that is told again and again would keep the loop to itself
    told = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((made, told), return_when=asyncio.FIRST_COMPLETED)
        if not made.done() and told.result()["type"] == "http.disconnect":
            return None
        return await made
    finally:
        gone = True
        told.cancel()


def _employ(work: Callable[[], None]) -> bool:
    """Have a thread of ours do *work*; return whether there is one to be had."""
    for worker in _workers.copy():
        if not worker.alive():
            _workers.discard(worker)
    if len(_workers) >= MAX_ANSWERS:
        return False
    try:
        _workers.add(Worker(work, "ox_otel_asgi"))
    except (RuntimeError, MemoryError):
        return False
    return True


def _end() -> None:
    """Wait a second, in all, for answers that are being made when the interpreter ends."""
    deadline = time.monotonic() + 1.0
    for worker in _workers.copy():
        worker.join(max(deadline - time.monotonic(), 0.0))


follow_forks(_workers.clear)  # in a child there are none, but they would seem to live for ever
at_end(_end)


async def _send(response: Response, send: Send, method: str) -> None:
    headers = with_length(response, method)
    lines = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
    ]
    with suppress(OSError):  # the client has gone
        await send({"type": "http.response.start", "status": response.status, "headers": lines})
        body = b"" if method == "HEAD" else response.body
        await send({"type": "http.response.body", "body": body})
