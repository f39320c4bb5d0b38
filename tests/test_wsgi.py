"""The WSGI application: what a server says and what it is told, and who is let in."""

import io
import json
from collections.abc import Iterator
from typing import NamedTuple
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

import ox_otel
import ox_otel.wsgi
from ox_otel.http import MAX_BODY

TOKEN = "0123456789abcdef"  # noqa: S105
BEARER = {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}


class Answer(NamedTuple):
    """What a server is told; names of *headers* are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture
def profiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[ox_otel.Profiler]:
    """The installed profiler, with a token."""
    monkeypatch.setenv("OX_OTEL_TOKEN", TOKEN)
    yield ox_otel.install(max_overhead=1)
    ox_otel.uninstall()


def ask(app, method: str = "GET", path: str = "/status", **environ: object) -> Answer:
    """Return the answer of *app* to a request, as a strict server gets it."""
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "/ox_otel",
        "PATH_INFO": path,
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "QUERY_STRING": "",
        **environ,
    }
    setup_testing_defaults(environ)
    told: list[object] = []
    answer = validator(app)(environ, lambda *args: told.extend(args) or (lambda _: None))
    body = b"".join(answer)
    answer.close()
    status, headers = told
    return Answer(int(status[:3]), {name.lower(): value for name, value in headers}, body)


def test_without_a_token_nobody_sees_anything_but_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a request that comes from this machine, by its name: so do all behind a proxy."""
    monkeypatch.delenv("OX_OTEL_TOKEN", raising=False)
    ox_otel.install()
    app = ox_otel.wsgi.app()

    assert 200 == ask(app, path="/metrics").status
    for path in ("/", "/status"):
        assert 403 == ask(app, path=path).status
        assert 403 == ask(app, path=path, HTTP_X_FORWARDED_FOR="127.0.0.1", **BEARER).status
    assert 403 == ask(app, "POST", "/pause").status
    assert not ox_otel.get().is_paused()
    ox_otel.uninstall()


def test_with_the_token_everything_is_served(profiler: ox_otel.Profiler) -> None:
    """By whatever name the server is called, what is seen and changed is the installed profiler."""
    app = ox_otel.wsgi.app()

    for path in ("/", "/status", "/metrics"):
        assert 200 == ask(app, path=path, HTTP_HOST="shop.example", **BEARER).status
    assert 401 == ask(app).status
    assert 401 == ask(app, HTTP_AUTHORIZATION=f"Bearer {TOKEN[:-1]}").status
    # as a server joins what comes twice
    assert 401 == ask(app, HTTP_AUTHORIZATION=f"Bearer {TOKEN},Bearer {TOKEN}").status
    assert "paused" == json.loads(ask(app, "POST", "/pause", **BEARER).body)["state"]
    assert profiler.is_paused()


def test_whom_the_host_lets_in(profiler: ox_otel.Profiler) -> None:
    """They need no token, but their browser may still not be sent by another site."""
    app = ox_otel.wsgi.app(allow=lambda environ: environ.get("REMOTE_USER") == "ada")

    assert 401 == ask(app, REMOTE_USER="eve").status
    assert 200 == ask(app, REMOTE_USER="ada").status
    assert 200 == ask(app, REMOTE_USER="eve", **BEARER).status
    evil = {"HTTP_ORIGIN": "http://evil.example", "HTTP_SEC_FETCH_SITE": "cross-site"}
    assert 403 == ask(app, "POST", "/pause", REMOTE_USER="ada", **evil).status
    assert not profiler.is_paused()


@pytest.mark.parametrize("said", ["yes", 1, object(), None])
def test_only_true_lets_in(profiler: ox_otel.Profiler, said: object) -> None:
    """What is merely something, as a coroutine is, lets in nobody."""
    assert 401 == ask(ox_otel.wsgi.app(allow=lambda _: said)).status


def test_what_the_host_raises_lets_nobody_in(profiler: ox_otel.Profiler) -> None:
    """It reaches the server, which tells its own log; scrapers, who need no leave, never meet it."""

    def broken(_: object) -> bool:
        raise LookupError

    app = ox_otel.wsgi.app(allow=broken)
    with pytest.raises(LookupError):
        ask(app)
    assert 200 == ask(app, path="/metrics").status


def test_captures_are_short(profiler: ox_otel.Profiler) -> None:
    """A thread of the server waits for them, which it may be killed for, and hears no hanging up."""
    app = ox_otel.wsgi.app()

    for path in ("/profile", "/flamegraph.json", "/debug/pprof/profile", "/debug/pprof/wall"):
        assert 400 == ask(app, "HEAD", path=path, QUERY_STRING="seconds=10.5", **BEARER).status
        refused = ask(app, path=path, QUERY_STRING="seconds=10.5", **BEARER)
        assert b"accepted: up to 10, and more by ASGI or by OX_OTEL_PORT" in refused.body
        assert 200 == ask(app, "HEAD", path=path, QUERY_STRING="seconds=10", **BEARER).status
    assert 200 == ask(app, path="/profile", QUERY_STRING="seconds=0.1", **BEARER).status


def test_without_metrics(profiler: ox_otel.Profiler) -> None:
    """Where they are not wanted, they are not there, whoever asks."""
    app = ox_otel.wsgi.app(metrics=False)

    assert 404 == ask(app, path="/metrics", **BEARER).status
    assert 200 == ask(app, **BEARER).status


def test_nothing_is_installed() -> None:
    """What is not there yet is a reason to come again, and none to fail; it may come later."""
    app = ox_otel.wsgi.app()

    assert 503 == ask(app, path="/metrics").status
    ox_otel.install()
    assert 200 == ask(app, path="/metrics").status
    ox_otel.uninstall()


@pytest.mark.parametrize("prefix", ["/ox_otel", "/shop/ox_otel", "/a: b"])
def test_the_root_ends_with_a_slash(profiler: ox_otel.Profiler, prefix: str) -> None:
    """Without it the links of the page would lead beside us, so the browser is sent there."""
    answer = ask(ox_otel.wsgi.app(), path="", SCRIPT_NAME=prefix)

    assert 308 == answer.status
    assert {"/a: b": "./a%3A%20b/"}.get(prefix, "./ox_otel/") == answer.headers["location"]


def test_not_under_a_prefix(profiler: ox_otel.Profiler) -> None:
    """A server may run it by itself: then no path is the root."""
    assert 200 == ask(ox_otel.wsgi.app(), path="", SCRIPT_NAME="", **BEARER).status


def test_a_path_that_has_the_prefix_twice(profiler: ox_otel.Profiler) -> None:
    """The prefix is the server's business: what comes after it is the path."""
    assert 404 == ask(ox_otel.wsgi.app(), path="/ox_otel/status", **BEARER).status


def test_a_form(profiler: ox_otel.Profiler) -> None:
    """The body of a request is read as far as it was announced, and no further."""
    form = {"CONTENT_LENGTH": "11", "wsgi.input": io.BytesIO(b"seconds=0.5&seconds=9")}
    answer = ask(ox_otel.wsgi.app(), "POST", "/interval", **BEARER, **form)

    assert 0.5 == json.loads(answer.body)["interval"]


@pytest.mark.parametrize("length", [str(MAX_BODY + 1), "9" * 5000, "-1", "x", "1e3"])
def test_a_body_that_is_too_long_is_not_read(profiler: ox_otel.Profiler, length: str) -> None:
    """Nor is one of which nobody knows how long it is."""
    body = io.BytesIO(b"x")
    app = ox_otel.wsgi.app()
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/interval", "CONTENT_LENGTH": length}
    setup_testing_defaults(environ)
    environ["wsgi.input"] = body
    told: list[str] = []
    app(environ, lambda status, _: told.append(status))

    assert "413" == told[0][:3]
    assert 0 == body.tell()


def test_no_length_is_no_body(profiler: ox_otel.Profiler) -> None:
    """Servers say so by an empty variable."""
    assert 200 == ask(ox_otel.wsgi.app(), CONTENT_LENGTH="", **BEARER).status


def test_the_head_of_an_answer(profiler: ox_otel.Profiler) -> None:
    """HEAD gets the headers of a GET, the length of its body included, and no body."""
    answer = ask(ox_otel.wsgi.app(), "HEAD", **BEARER)

    assert (200, b"") == (answer.status, answer.body)
    assert int(answer.headers["content-length"]) > 100
    assert "no-store" == answer.headers["cache-control"]
    # it has not been made, so nobody knows its length
    answer = ask(ox_otel.wsgi.app(), "HEAD", "/profile", **BEARER)
    assert (200, False) == (answer.status, "content-length" in answer.headers)


def test_other_methods(profiler: ox_otel.Profiler) -> None:
    """A change that is asked for by GET is refused, and says by what it is asked for."""
    answer = ask(ox_otel.wsgi.app(), path="/pause", **BEARER)

    assert (405, "POST") == (answer.status, answer.headers["allow"])
    assert not profiler.is_paused()
