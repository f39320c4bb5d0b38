"""The WSGI application: what a server says and what it is told."""

import io
import json
from wsgiref.util import setup_testing_defaults

import pytest
from asking import BEARER, TOKEN, by_wsgi

import ox_otel
import ox_otel.wsgi
from ox_otel.http import MAX_BODY


def test_a_header_that_comes_twice(guarded: ox_otel.Profiler) -> None:
    """Two tokens are none: servers join them."""
    twice = f"Bearer {TOKEN},Bearer {TOKEN}"
    assert 401 == by_wsgi(ox_otel.wsgi.app(), authorization=twice).status


def asked(seconds: float) -> dict[str, str]:
    """Return what a server says of a request for so many seconds."""
    return {"QUERY_STRING": f"seconds={seconds}"}


def test_captures_are_short(guarded: ox_otel.Profiler) -> None:
    """A thread of the server waits for them, which it may be killed for, and hears no hanging up."""
    app = ox_otel.wsgi.app()

    for path in ("/profile", "/flamegraph.json", "/debug/pprof/profile", "/debug/pprof/wall"):
        assert 400 == by_wsgi(app, path, "HEAD", asked(10.5), **BEARER).status
        refused = by_wsgi(app, path, said=asked(10.5), **BEARER)
        assert b"accepted: up to 10, and more by ASGI or by OX_OTEL_PORT" in refused.body
        assert 200 == by_wsgi(app, path, "HEAD", asked(10), **BEARER).status
    assert 200 == by_wsgi(app, "/profile", said=asked(0.1), **BEARER).status


@pytest.mark.parametrize("prefix", ["/ox_otel", "/shop/ox_otel", "/a: b"])
def test_the_root_ends_with_a_slash(guarded: ox_otel.Profiler, prefix: str) -> None:
    """Without it the links of the page would lead beside us, so the browser is sent there."""
    answer = by_wsgi(ox_otel.wsgi.app(), "", said={"SCRIPT_NAME": prefix})

    assert 308 == answer.status
    assert {"/a: b": "./a%3A%20b/"}.get(prefix, "./ox_otel/") == answer.headers["location"]


def test_not_under_a_prefix(guarded: ox_otel.Profiler) -> None:
    """A server may run it by itself: then no path is the root."""
    assert 200 == by_wsgi(ox_otel.wsgi.app(), "", said={"SCRIPT_NAME": ""}, **BEARER).status


def test_a_path_that_has_the_prefix_twice(guarded: ox_otel.Profiler) -> None:
    """The prefix is the server's business: what comes after it is the path."""
    assert 404 == by_wsgi(ox_otel.wsgi.app(), "/ox_otel/status", **BEARER).status


def test_a_form(guarded: ox_otel.Profiler) -> None:
    """The body of a request is read as far as it was announced, and no further."""
    form = {"CONTENT_LENGTH": "11", "wsgi.input": io.BytesIO(b"seconds=0.5&seconds=9")}
    answer = by_wsgi(ox_otel.wsgi.app(), "/interval", "POST", form, **BEARER)

    assert 0.5 == json.loads(answer.body)["interval"]


@pytest.mark.parametrize("length", [str(MAX_BODY + 1), "9" * 5000, "-1", "x", "1e3"])
def test_a_body_that_is_too_long_is_not_read(guarded: ox_otel.Profiler, length: str) -> None:
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


def test_no_length_is_no_body(guarded: ox_otel.Profiler) -> None:
    """Servers say so by an empty variable."""
    assert 200 == by_wsgi(ox_otel.wsgi.app(), said={"CONTENT_LENGTH": ""}, **BEARER).status


def test_other_methods(guarded: ox_otel.Profiler) -> None:
    """A change that is asked for by GET is refused, and says by what it is asked for."""
    answer = by_wsgi(ox_otel.wsgi.app(), "/pause", **BEARER)

    assert (405, "POST") == (answer.status, answer.headers["allow"])
    assert not guarded.is_paused()
