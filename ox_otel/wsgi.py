"""A WSGI application that serves what our own endpoint serves, for another one to mount.

    application = DispatcherMiddleware(application, {"/ox_otel": ox_otel.wsgi.app()})

Where a server listens does not tell who reaches it, so nobody is trusted for an address: all but
`/metrics` needs `OX_OTEL_TOKEN`, or somebody whom the application that mounts us lets in. Answers are
made on the threads of the server, so captures are short; what they cost there shows in the profile.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from ox_otel._mounting import answer, let_in, with_length
from ox_otel.http import TOO_LARGE, Request, Response, body_length

if TYPE_CHECKING:  # they exist for the type checker only
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LONGEST_HERE = 10.0
"""Seconds that a capture may last: servers kill a thread, or a worker, that is silent for long.

That of gunicorn is by default after 30 s; and a client that hangs up goes unnoticed.
"""


def app(
    *, allow: "Callable[[WSGIEnvironment], bool] | None" = None, metrics: bool = True
) -> "WSGIApplication":
    """Return an application that serves the profiler which is installed when a request comes.

    Whom *allow* returns True for, given the environment of a request, needs no token; what it
    raises reaches the server. For `/metrics` it is not asked; without *metrics*, that is not served.
    """

    def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
        trusted = let_in(allow, environ, environ.get("PATH_INFO", ""))
        response = _answer(environ, trusted=trusted, metrics=metrics)
        status = f"{response.status} {HTTPStatus(response.status).phrase}"
        headers = with_length(response, environ["REQUEST_METHOD"])
        start_response(status, list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    return application


def _answer(environ: "WSGIEnvironment", *, trusted: bool, metrics: bool) -> Response:
    length = body_length(environ.get("CONTENT_LENGTH") or "0")
    if length is None:
        return TOO_LARGE
    request = Request(
        environ["REQUEST_METHOD"],
        environ.get("PATH_INFO", ""),
        environ.get("QUERY_STRING", ""),
        {
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        },
        environ["wsgi.input"].read(length) if length else b"",
        trusted=trusted,
        longest=LONGEST_HERE,
    )
    return answer(request, environ.get("SCRIPT_NAME", ""), metrics=metrics)
