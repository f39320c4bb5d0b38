"""The files of the page. They hold nothing of the host: what they show, they ask for."""

from collections.abc import Mapping
from functools import cache
from pkgutil import get_data

FILES: Mapping[str, tuple[str, str]] = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.svg": ("page.svg", "image/svg+xml"),
}
"""Where each file is served, and its content type."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may do: ask whoever has served it, and nothing else."""


@cache
def content(name: str) -> bytes:
    """Return a file of the page."""
    found = get_data("ox_otel", f"page/{name}")
    if found is None:
        raise FileNotFoundError(name)
    return found
