"""Requests to a mounted application as servers make them, by WSGI and by ASGI."""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

TOKEN = "0123456789abcdef"  # noqa: S105
BEARER = {"authorization": f"Bearer {TOKEN}"}


class Answer(NamedTuple):
    """What a server is told; names of *headers* are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def by_wsgi(
    app: Any,
    path: str = "/status",
    method: str = "GET",
    said: Mapping[str, object] | None = None,
    **headers: str,
) -> Answer:
    """Return the answer of *app* to a request, as a strict server gets it.

    What else is *said*, in place of what is said here, are variables of its `environ`.
    """
    sent = {"host": "localhost"} | headers
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "/ox_otel",
        "PATH_INFO": path,
        "REMOTE_ADDR": "127.0.0.1",
        "QUERY_STRING": "",
        **{f"HTTP_{name.upper()}": value for name, value in sent.items()},
        **(said or {}),
    }
    setup_testing_defaults(environ)
    told: list[Any] = []
    answer = validator(app)(environ, lambda *args: told.extend(args) or (lambda _: None))
    body = b"".join(answer)
    answer.close()
    status, of_answer = told
    return Answer(int(status[:3]), {name.lower(): value for name, value in of_answer}, body)


def by_asgi(
    app: Any,
    path: str = "/status",
    method: str = "GET",
    said: Mapping[str, object] | None = None,
    **headers: str,
) -> Answer:
    """Return the answer of *app* to a request, see `scope`, in which this is *said* besides."""
    return asyncio.run(answered(app, {**scope(path, method, **headers), **(said or {})}))


def scope(path: str = "/status", method: str = "GET", **headers: str) -> dict[str, Any]:
    """Return the scope of a request for *path*, mounted as servers and Starlette have it."""
    sent = {"host": "localhost"} | headers
    return {
        "type": "http",
        "method": method,
        "root_path": "/ox_otel",
        "path": f"/ox_otel{path}",
        "query_string": b"",
        "client": ("127.0.0.1", 4711),
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in sent.items()
        ],
    }


async def tell(app: Any, scope: dict[str, Any], *said: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what *app* tells a server that says what the client says, and then nothing more."""
    waiting, told = list(said), []

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else await asyncio.Future()

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    async with asyncio.timeout(30):
        await app(scope, receive, send)
    return told


async def answered(app: Any, scope: dict[str, Any], *bodies: bytes) -> Answer:
    """Return the answer of *app* to a request whose body comes in these parts."""
    parts = [
        {"type": "http.request", "body": body, "more_body": more > 0}
        for more, body in zip(range(len(bodies))[::-1], bodies, strict=True)
    ]
    start, body = await tell(app, scope, *(parts or [{"type": "http.request"}]))
    assert ("http.response.start", "http.response.body") == (start["type"], body["type"])
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], headers, body["body"])
