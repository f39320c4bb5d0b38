"""What is served over HTTP, as one pure function from request to response.

Servers and frameworks only translate: our own endpoint, and whatever mounts it under a prefix.
No answer holds a path, an argument, a local or an environment value of the host.
"""

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from ox_otel._capture import LONGEST, CaptureError, TooManyCapturesError
from ox_otel._page import FILES, POLICY, content
from ox_otel._profiler import Profiler
from ox_otel._settings import ConfigError
from ox_otel._status import Wish
from ox_otel._views import live, view

MAX_BODY = 4096
"""Bytes of a request's body that any route needs; a server should refuse longer ones."""

_SECURITY = {
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Request(NamedTuple):
    """A request; *path* begins at our own root, names of *headers* are in lower case.

    The values of a header that came more than once stand in one, with commas between them, so that
    nobody is let in by one of them. A *trusted* request is let in as if it had the token: an
    application that mounts us knows who sent it. *gone* says whether nobody waits for the answer any
    more; where that cannot be known, captures are to be refused that last more than *longest* seconds.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""
    trusted: bool = False
    gone: Callable[[], bool] = lambda: False
    longest: float = LONGEST


class Response(NamedTuple):
    """A response; its *headers* include the content type."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Exposure(NamedTuple):
    """What is served, and to whom.

    *metrics* returns content type and text of the metrics for an Accept header. *token* is asked
    for on every route but `/metrics`; without one, those routes answer only where *loopback*.
    """

    profiler: Profiler
    metrics: Callable[[str], tuple[str, bytes]] | None
    token: str | None
    loopback: bool


def respond(request: Request, exposure: Exposure) -> Response:
    """Return the answer to *request*; errors are answers too."""
    routes = _ROUTES.get(request.path)
    if routes is None:
        return plain(404, "not found; there are " + " ".join(_ROUTES))
    method = "GET" if request.method == "HEAD" else request.method
    answer = routes.get(method)
    if answer is None:
        allowed = ", ".join(routes)
        return plain(405, f"{request.path} takes {allowed}", {"Allow": allowed})
    try:
        return _refusal(request, exposure) or answer(request, exposure)
    except ConfigError as error:
        return plain(400, str(error))
    except TooManyCapturesError as error:
        return plain(429, str(error), {"Retry-After": "5"})
    except CaptureError as error:
        return plain(409, str(error))
    except Exception:
        exposure.profiler.count_error("request")
        return plain(500, "internal error")


def _refusal(request: Request, exposure: Exposure) -> Response | None:
    """Return why *request* may not see or change anything, None if it may."""
    is_scrape = request.path == "/metrics"
    # a page elsewhere may give its own name our address (DNS rebinding)
    is_local = exposure.loopback and is_loopback(_host(request.headers.get("host", "")))
    if request.trusted:
        pass
    elif exposure.token is not None and not is_scrape:
        # a browser has no token to send before there is a page that asks for it
        is_entrance = is_local and request.path in FILES
        if not is_entrance and not _has_token(request.headers, exposure.token):
            return plain(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})
    elif exposure.loopback:
        if not is_local:
            return plain(421, "this host name is not served here")
    elif not is_scrape:
        return plain(403, "only /metrics is served here without OX_OTEL_TOKEN")
    if not is_scrape and _crosses_sites(request):
        return plain(403, "another site's page may ask for nothing here")
    return None


def _has_token(headers: Mapping[str, str], token: str) -> bool:
    given = headers.get("authorization", "").encode("utf-8", "backslashreplace")
    # on bytes: comparing text raises for what is not ASCII
    return hmac.compare_digest(given, f"Bearer {token}".encode())


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches *host*, a name or an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host(netloc: str) -> str:
    """Return the host name of a Host header without its port, nothing if it is malformed."""
    try:
        parts = urlsplit(f"//{netloc}")
        _ = parts.port  # raises if it is none: the name of a second Host may stand there
    except ValueError:
        return ""
    return parts.hostname or ""


def _crosses_sites(request: Request) -> bool:
    """Return whether a page of another site has sent it, by more than a link to our own page.

    It could not read the answer, but captures that it asks for would leave none to others.
    """
    headers = request.headers
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return request.path not in FILES or headers.get("sec-fetch-mode") != "navigate"
    origin = headers.get("origin") if request.method == "POST" else None
    return origin is not None and origin.split("://")[1:] != [headers.get("host")]


def body_length(announced: str) -> int | None:
    """Return the bytes that a Content-Length announces, None if they are more than are taken."""
    # the number of digits first: `int` refuses thousands of them
    if not announced.isdecimal() or len(announced) > 9 or int(announced) > MAX_BODY:
        return None
    return int(announced)


def _metrics(request: Request, exposure: Exposure) -> Response:
    if exposure.metrics is None:
        return plain(404, "no metrics are served here")
    content_type, body = exposure.metrics(request.headers.get("accept", ""))
    return Response(200, {**_SECURITY, "Content-Type": content_type}, body)


def _page(request: Request, _: Exposure) -> Response:
    name, content_type = FILES[request.path]
    headers = {**_SECURITY, "Content-Security-Policy": POLICY, "Content-Type": content_type}
    return Response(200, headers, content(name))


def _live(request: Request, exposure: Exposure) -> Response:
    shown = live(request.query, exposure.profiler)
    return _response(200, "application/json", json.dumps(shown, separators=(",", ":")))


def _status(_: Request, exposure: Exposure) -> Response:
    return _response(200, "application/json", json.dumps(asdict(exposure.profiler.status())))


def _pause(request: Request, exposure: Exposure) -> Response:
    exposure.profiler.pause()
    return _shared("paused", request, exposure)


def _unpause(request: Request, exposure: Exposure) -> Response:
    exposure.profiler.unpause()
    return _shared("paused", request, exposure)


def _interval(request: Request, exposure: Exposure) -> Response:
    sent = parse_qs(request.query) | parse_qs(request.body.decode("utf-8", "replace"))
    exposure.profiler.set_interval(sent.get("seconds", [""])[0])
    return _shared("interval", request, exposure)


def _shared(wish: Wish, request: Request, exposure: Exposure) -> Response:
    """Have the service do as this process does; answer with its status."""
    try:
        exposure.profiler.share(wish)
    except OSError:  # this process may not write there, for it has given up its rights
        exposure.profiler.count_error("request")
        return plain(500, "done, but by this process alone: its service cannot be told")
    return _status(request, exposure)


def _profile(
    request: Request,
    exposure: Exposure,
    *,
    form: str | None = None,
    time: str | None = None,
    seconds: float | None = None,
) -> Response:
    """Return the profile that is asked for, where it is not given; headers alone need no capture."""
    wanted = view(request.query, form, time, seconds, request.longest)
    is_head = request.method == "HEAD"
    body = b"" if is_head else wanted.make(exposure.profiler, request.gone)
    return Response(200, {**_SECURITY, **wanted.headers}, body)


_ROUTES: Mapping[str, Mapping[str, Callable[[Request, Exposure], Response]]] = {
    **{path: {"GET": _page} for path in FILES},
    "/live.json": {"GET": _live},
    "/metrics": {"GET": _metrics},
    "/status": {"GET": _status},
    "/profile": {"GET": _profile},
    "/flamegraph.json": {"GET": partial(_profile, form="frame")},
    "/debug/pprof/profile": {"GET": partial(_profile, form="pprof", time="cpu", seconds=30.0)},
    "/debug/pprof/wall": {"GET": partial(_profile, form="pprof", time="wall", seconds=30.0)},
    "/pause": {"POST": _pause},
    "/unpause": {"POST": _unpause},
    "/interval": {"POST": _interval},
}


def _response(
    status: int, content_type: str, text: str, more: Mapping[str, str] | None = None
) -> Response:
    headers = {**_SECURITY, "Content-Type": content_type, **(more or {})}
    return Response(status, headers, text.encode())


def plain(status: int, text: str, more: Mapping[str, str] | None = None) -> Response:
    """Return a line of text as a response, with *more* headers."""
    return _response(status, "text/plain; charset=utf-8", text + "\n", more)


TOO_LARGE = plain(413, f"no body here is longer than {MAX_BODY} bytes")
"""The answer of a server to a request whose body it will not read."""

TOO_MANY = plain(429, "too many requests at once", {"Retry-After": "1"})
"""The answer of a server to a request that it has no thread for."""
