"""What applications have in common that others mount, whatever the interface between them."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from ox_otel._install import mounted
from ox_otel.http import Request, Response, plain, respond


def let_in(allow: Callable[[Any], bool] | None, asked: Any, path: str) -> bool:
    """Return whether *allow* lets in who has *asked* for *path*, as the interface tells of it.

    For `/metrics`, which is open to all, it is not called: a scrape has no session, say, and what
    *allow* raises for want of one would take the metrics down.
    """
    # nothing else is as good as True: a coroutine, for one, would let in everybody
    return allow is not None and path != "/metrics" and allow(asked) is True


def answer(request: Request, prefix: str, *, metrics: bool) -> Response:
    """Return the answer to *request*, of an application mounted at *prefix*, `/metrics` or not."""
    if not request.path and prefix:
        # links of the page would lead beside us; a relative address is right behind any proxy
        last = quote(prefix.rpartition("/")[2], safe="")
        return plain(308, "the address of this page ends with a slash", {"Location": f"./{last}/"})
    exposure = mounted()
    if exposure is None:
        return plain(503, "ox_otel is not installed in this process")
    if not metrics:
        exposure = exposure._replace(metrics=None)
    return respond(request._replace(path=request.path or "/"), exposure)


def with_length(response: Response, method: str) -> Mapping[str, str]:
    """Return the headers of *response*, with the length of its body unless HEAD had none made."""
    if not response.body and method == "HEAD":
        return response.headers
    return {**response.headers, "Content-Length": str(len(response.body))}
