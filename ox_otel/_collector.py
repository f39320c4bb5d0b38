"""A collector of OpenTelemetry that takes profiles over OTLP/HTTP, as the SDK's variables name it.

Each request has a connection of its own: one a minute is not worth keeping open, a forked child finds
none, and nobody follows a redirection with the credentials of the headers.
"""

import gzip
from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlsplit

from opentelemetry.util.re import parse_env_headers

from ox_otel._clock import since_epoch

PATH = "/v1development/profiles"
"""Where collectors take profiles, below the endpoint of all signals."""

MAX_ANSWER = 65536
"""Bytes of an answer that are read."""


class Refused(Exception):  # noqa: N818 - the answer is no error of ours
    """The collector does not take it; *retry_after* is for how many seconds it wants to be left."""

    def __init__(self, status: int, retry_after: float) -> None:
        super().__init__(f"HTTP status {status}")
        self.retry_after = retry_after


class Collector:
    """The collector that `OTEL_EXPORTER_OTLP_*` in *environ* name, those with `PROFILES_` first.

    Attributes:
        address: the host and the port, without what may be secret in a URL.

    Raises:
        ValueError: a variable is wrong; its value, which may be secret, is not told.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        def read(name: str) -> str:
            prefix = "OTEL_EXPORTER_OTLP_"
            return environ.get(f"{prefix}PROFILES_{name}") or environ.get(prefix + name) or ""

        whole = environ.get("OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT")
        base = read("ENDPOINT") or "http://localhost:4318"
        url = urlsplit(whole or base.rstrip("/") + PATH)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("OTEL_EXPORTER_OTLP_ENDPOINT is no address of HTTP")
        url.hostname.encode("idna")  # here, as our threads import nothing
        self._is_secure = url.scheme == "https"
        self._host, self._port = url.hostname, url.port or (443 if self._is_secure else 80)
        self._path = url.path + (f"?{url.query}" if url.query else "")
        self._timeout = float(read("TIMEOUT") or 10.0)
        self._is_compressed = read("COMPRESSION").strip().lower() == "gzip"
        self._headers = {
            **parse_env_headers(read("HEADERS"), liberal=True),
            "content-type": "application/x-protobuf",
            **({"content-encoding": "gzip"} if self._is_compressed else {}),
        }
        self._certificate = read("CERTIFICATE") or None
        self.address = f"{self._host}:{self._port}"

    def post(self, body: bytes) -> bytes:
        """Send *body* and return the answer.

        Raises:
            Refused: the collector does not take it.
            OSError or http.client.HTTPException: it cannot be reached, or understood.
        """
        connection = self._connection()
        try:
            content = gzip.compress(body) if self._is_compressed else body
            connection.request("POST", self._path, content, self._headers)
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER)
        finally:
            connection.close()
        if response.status // 100 != 2:
            raise Refused(response.status, _seconds(response.headers.get("Retry-After", "")))
        return answer

    def _connection(self) -> HTTPConnection:
        if not self._is_secure:
            return HTTPConnection(self._host, self._port, timeout=self._timeout)
        import ssl  # which http.client has loaded, wherever there is one

        context = ssl.create_default_context(cafile=self._certificate)
        return HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)


def _seconds(retry_after: str) -> float:
    """Return the seconds that the header Retry-After asks for, which may be a date; else 0."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    date = parsedate_tz(retry_after)
    return max(mktime_tz(date) - since_epoch(), 0.0) if date else 0.0
