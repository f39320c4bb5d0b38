"""The client's side: what a profiled service tells over HTTP, and what came of it between two looks.

Only `/metrics` is needed to see where the time goes, so any service will do whose metrics have ours
among them, on an endpoint of its own or in those of an app.
"""

import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from select import select
from typing import NamedTuple
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from ox_otel.recorders import Function

TIMEOUT = 10.0
"""Seconds that a service may be silent."""


class NoAnswer(Exception):  # noqa: N818 - it is what the user is told
    """A service cannot be asked, or does not answer what was asked for; the message says why."""


class Seconds(NamedTuple):
    """Thread-seconds of a function: at the top of the stack (*self*), or anywhere on it."""

    self_cpu: float = 0.0
    cpu: float = 0.0
    self_wait: float = 0.0
    wait: float = 0.0


class Scrape(NamedTuple):
    """What a service said at one instant, *at* the monotonic clock.

    *functions* have what they used since the service began, *totals* are our series that have no
    labels, without the prefix `ox_profile_`; *about* are the labels of `ox_profile_info`. Names and
    labels have a question mark for what a terminal would obey.
    """

    at: float
    functions: Mapping[Function, Seconds]
    totals: Mapping[str, float]
    about: Mapping[str, str]


_FIELDS = {
    ("ox_profile_self_seconds_total", "cpu"): 0,
    ("ox_profile_seconds_total", "cpu"): 1,
    ("ox_profile_self_seconds_total", "wait"): 2,
    ("ox_profile_seconds_total", "wait"): 3,
}


def scrape(url: str) -> Scrape:
    """Ask the service at *url*, that of its metrics or of our endpoint, for its figures.

    Raises:
        NoAnswer: it cannot be asked, or has no profiler.
    """
    path = "" if urlsplit(url).path.endswith("/metrics") else "/metrics"
    text = fetch(url, path).decode("utf-8", "replace")
    at = time.monotonic()
    functions: dict[Function, list[float]] = {}
    totals: defaultdict[str, float] = defaultdict(float)
    about: Mapping[str, str] = {}
    try:
        for family in text_string_to_metric_families(text):
            if not family.name.startswith("ox_profile_"):
                continue
            for name, labels, value, *_ in family.samples:
                if (place := _FIELDS.get((name, labels.get("state", "")))) is not None:
                    if "function" in labels:
                        names = _printable(labels["module"]), _printable(labels["function"])
                        function = Function(*names)
                        functions.setdefault(function, [0.0] * 4)[place] += value
                elif name == "ox_profile_info":
                    about = {key: _printable(label) for key, label in labels.items()}
                elif set(labels) <= {"pid"}:  # one a process, in the multiprocess mode
                    totals[name.removeprefix("ox_profile_")] += value
    except ValueError as error:
        reason = _printable(str(error))
        raise NoAnswer(f"{url} serves something else than metrics: {reason}") from error
    if "samples_total" not in totals:
        raise NoAnswer(f"{url} has no metrics of ox_otel")
    return Scrape(at, {key: Seconds(*times) for key, times in functions.items()}, totals, about)


def used(before: Scrape, after: Scrape) -> dict[Function, Seconds]:
    """Return what each function used a second between two scrapes; 1.0 is one core, or thread.

    As with PromQL's `rate`, a counter that is lower than before has begun anew at zero.
    """
    elapsed = max(after.at - before.at, 1e-9)
    return {
        function: Seconds(
            *[
                (new - old if new >= old else new) / elapsed
                for new, old in zip(seconds, before.functions.get(function, Seconds()), strict=True)
            ]
        )
        for function, seconds in after.functions.items()
    }


def fetch(url: str, path: str, wait: Callable[[], None] | None = None) -> bytes:
    """Return what the service at *url* answers for *path*, both with a query or without.

    `OX_OTEL_TOKEN` is sent where it is set. *wait* is called a few times a second until the answer
    comes, which may take as long as it likes then; without it, `TIMEOUT` seconds.

    Raises:
        NoAnswer: there is none, or it is an error.
    """
    connection, prefix = _connection(url)
    token = os.environ.get("OX_OTEL_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with closing(connection):
            connection.request("GET", prefix + path, headers=headers)
            while wait is not None and not select([connection.sock], [], [], 0.1)[0]:
                wait()
            response = connection.getresponse()
            body = response.read()
    except (OSError, HTTPException) as error:
        reason = _printable(str(error)) or type(error).__name__
        raise NoAnswer(f"{url} does not answer: {reason}") from error
    except ValueError:  # its text would have a part of the token
        what = "its address or OX_OTEL_TOKEN has characters that HTTP does not take"
        raise NoAnswer(f"{url} cannot be asked: {what}") from None
    if response.status == 200:
        return body
    [reason, *_] = body.decode("utf-8", "replace").splitlines() or [response.reason]
    hint = "; OX_OTEL_TOKEN is sent if it is set" if response.status == 401 else ""
    raise NoAnswer(f"{url}{path} answers {response.status}: {_printable(reason)}{hint}")


def _printable(text: str) -> str:
    """Return *text* without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _connection(url: str) -> tuple[HTTPConnection, str]:
    """Return a connection to the service at *url*, not opened yet, and the path of *url*."""
    if url.startswith("unix:"):
        return _UnixConnection(url.removeprefix("unix:").removeprefix("//")), ""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    kinds = {"http": HTTPConnection, "https": HTTPSConnection}
    try:
        kind, host, port = kinds[parts.scheme], parts.hostname or "", parts.port
    except (KeyError, ValueError):
        host = ""
    if not host:
        raise NoAnswer(f"{url!r} is no address; http://host:port or unix:/path is accepted")
    return kind(host, port, timeout=TIMEOUT), parts.path.rstrip("/")


class _UnixConnection(HTTPConnection):
    """A connection to the socket at *path*."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)
