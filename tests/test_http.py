"""HTTP: who may see and change what, and what every answer looks like."""

import json
import os
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ox_otel import Batch, Function, Profiler, Settings, Usage
from ox_otel.http import Request, Response, Site, is_loopback, respond

TOKEN = "0123456789abcdef"  # noqa: S105
SECRET = "a secret of the environment"  # noqa: S105

METHODS = {
    "/": "GET",
    "/metrics": "GET",
    "/status": "GET",
    "/pause": "POST",
    "/unpause": "POST",
    "/interval": "POST",
}
ROUTES = [*METHODS, "/nowhere"]


def expose(_: str) -> tuple[str, bytes]:
    """Stand in for the metrics."""
    return "text/plain", b"metrics 1\n"


@pytest.fixture
def profiler() -> Iterator[Profiler]:
    """A running profiler."""
    with Profiler(Settings(max_overhead=1)) as profiler:  # the interval stays as it is set
        yield profiler


@pytest.fixture
def site(profiler: Profiler) -> Site:
    """What is served on a loopback address without a token."""
    return Site(profiler, expose, None, loopback=True)


def ask(site: Site, method: str, path: str, query: str = "", **headers: str) -> Response:
    """Return the answer to a request from this machine, unless *headers* say otherwise."""
    named = {"host": "localhost:9000"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return respond(Request(method, path, query, named), site)


@pytest.mark.parametrize("loopback", [True, False])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_who_may_do_what(profiler: Profiler, token: str | None, loopback: bool) -> None:  # noqa: FBT001
    """The table of route, method, token and address: each has the status that it must have."""
    site = Site(profiler, expose, token, loopback)
    right = f"Bearer {TOKEN}"
    credentials = ["", right, f"bearer {TOKEN}", TOKEN, right[:-1], f"{right}é", f"{right}\ud800"]
    methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"]
    for path, method, given_token in product(ROUTES, methods, credentials):
        if path not in METHODS:
            expected = 404
        elif METHODS[path] != method.replace("HEAD", "GET"):
            expected = 405
        elif path == "/metrics":
            expected = 200
        elif token is not None:
            expected = 200 if given_token == right else 401
        else:
            expected = 200 if loopback else 403
        query = "seconds=0.05" if path == "/interval" else ""
        answer = ask(site, method, path, query, authorization=given_token)
        assert (path, method, given_token, expected) == (path, method, given_token, answer.status)


HOSTS = {
    "localhost": 200,
    "localhost:9000": 200,
    "LOCALHOST": 200,
    "127.0.0.1": 200,
    "127.0.0.2:80": 200,
    "[::1]": 200,
    "[::1]:9000": 200,
    "": 421,
    "evil.example": 421,
    "localhost.evil.example": 421,
    "evil.example:9000": 421,
    "localhost.": 421,
    "127.0.0.1.evil.example": 421,
    "10.0.0.1": 421,
    "0.0.0.0": 421,  # noqa: S104
    "[::2]": 421,
    "[::1": 421,
    "::1]": 421,
    "http://localhost": 421,
    '"><script>': 421,
}


@pytest.mark.parametrize(("host", "status"), HOSTS.items())
def test_names_of_the_host(site: Site, host: str, status: int) -> None:
    """Without a token only names of this machine are served: no page elsewhere can borrow them."""
    assert status == ask(site, "GET", "/status", host=host).status
    assert status == ask(site, "POST", "/pause", host=host).status
    assert 200 == ask(site, "GET", "/metrics", host=host).status


def test_a_request_without_a_host(site: Site) -> None:
    """No host is not this host."""
    assert 421 == respond(Request("GET", "/status", "", {}), site).status


def test_with_a_token_any_name_is_served(profiler: Profiler) -> None:
    """Whoever knows the token comes from nobody else's page."""
    site = Site(profiler, expose, TOKEN, loopback=True)
    headers = {"authorization": f"Bearer {TOKEN}", "host": "metrics.example"}
    assert 200 == ask(site, "GET", "/status", **headers).status


def test_the_name_of_another_address_in_the_path(site: Site) -> None:
    """An absolute address instead of a path is not found, whatever it names."""
    for path in ("http://evil.example/status", "http://localhost/status", "//status", "*", ""):
        assert 404 == ask(site, "GET", path).status


ORIGINS: list[tuple[dict[str, str], int]] = [
    ({}, 200),
    ({"sec_fetch_site": "same-origin"}, 200),
    ({"sec_fetch_site": "none"}, 200),
    ({"sec_fetch_site": "same-site"}, 403),
    ({"sec_fetch_site": "cross-site"}, 403),
    ({"sec_fetch_site": ""}, 403),
    ({"origin": "http://localhost:9000"}, 200),
    ({"origin": "http://localhost:9001"}, 403),
    ({"origin": "http://localhost"}, 403),
    ({"origin": "http://evil.example"}, 403),
    ({"origin": "http://evil.example://localhost:9000"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": ""}, 403),
    ({"origin": "http://["}, 403),
    ({"origin": "http://localhost:9000", "sec_fetch_site": "cross-site"}, 403),
]


@pytest.mark.parametrize("token", [None, TOKEN])
def test_pages_of_other_sites_change_nothing(profiler: Profiler, token: str | None) -> None:
    """A browser that says from where it comes is believed, with a token as without."""
    site = Site(profiler, expose, token, loopback=True)
    for headers, status in ORIGINS:
        profiler.unpause()
        answer = ask(site, "POST", "/pause", authorization=f"Bearer {TOKEN}", **headers)
        assert (headers, status) == (headers, answer.status)
        assert (status == 200) == profiler.is_paused()


def test_reading_changes_nothing(site: Site) -> None:
    """No GET or HEAD has an effect, on no route and with no query."""
    before = (site.profiler.is_paused(), site.profiler.status().interval)
    for path, method in product(ROUTES, ("GET", "HEAD")):
        ask(site, method, path, "seconds=5")
        assert before == (site.profiler.is_paused(), site.profiler.status().interval)


def test_control(site: Site) -> None:
    """POST pauses, unpauses and sets the interval, and answers with the new status."""
    assert "paused" == json.loads(ask(site, "POST", "/pause").body)["state"]
    assert site.profiler.is_paused()
    assert "running" == json.loads(ask(site, "POST", "/unpause").body)["state"]
    assert not site.profiler.is_paused()
    assert 0.5 == json.loads(ask(site, "POST", "/interval", "seconds=0.5").body)["interval"]


def test_the_interval_in_a_form(site: Site) -> None:
    """The interval may come in the body, as forms send it."""
    request = Request("POST", "/interval", "", {"host": "localhost"}, b"seconds=0.25")
    assert 0.25 == json.loads(respond(request, site).body)["interval"]


@pytest.mark.parametrize("seconds", ["", "0", "-1", "nan", "inf", "1e9", "x", "\ud800"])
def test_a_wrong_interval(site: Site, seconds: str) -> None:
    """A wrong interval is refused with what would be accepted, and changes nothing."""
    answer = ask(site, "POST", "/interval", f"seconds={seconds}")
    assert 400 == answer.status
    assert b"accepted: seconds from 0.001 to 60" in answer.body
    assert 0.02 == site.profiler.status().interval


def test_what_a_wrong_method_is_told(site: Site) -> None:
    """405 says which method the route takes."""
    answer = ask(site, "GET", "/pause")
    assert (405, "POST") == (answer.status, answer.headers["Allow"])


def test_what_a_missing_token_is_told(profiler: Profiler) -> None:
    """401 says what kind of credentials are asked for."""
    site = Site(profiler, expose, TOKEN, loopback=True)
    assert "Bearer" == ask(site, "GET", "/").headers["WWW-Authenticate"]


def test_the_status(site: Site) -> None:
    """The status is that of the profiler, as JSON."""
    answer = ask(site, "GET", "/status")
    assert "application/json" == answer.headers["Content-Type"]
    status = json.loads(answer.body)
    assert ("running", os.getpid()) == (status["state"], status["pid"])
    assert set(type(site.profiler.status()).__slots__) == status.keys()


def test_metrics_that_are_not_there(profiler: Profiler) -> None:
    """Without the recorder for them, metrics are not found."""
    assert 404 == ask(Site(profiler, None, None, loopback=True), "GET", "/metrics").status


def test_metrics_in_the_form_asked_for(profiler: Profiler) -> None:
    """The Accept header reaches whoever writes the metrics, the content type comes back."""
    site = Site(profiler, lambda accept: (accept.upper(), b""), None, loopback=True)
    assert "TEXT/X" == ask(site, "GET", "/metrics", accept="text/x").headers["Content-Type"]


def test_an_error_in_a_route(profiler: Profiler) -> None:
    """An error is answered with a 500 that says nothing, and counts as `request`."""

    def broken(_: str) -> tuple[str, bytes]:
        raise RuntimeError(SECRET)

    site = Site(profiler, broken, None, loopback=True)
    answer = ask(site, "GET", "/metrics")
    assert (500, b"internal error\n") == (answer.status, answer.body)
    assert {"request": 1} == profiler.snapshot().errors


def all_answers(site: Site) -> Iterator[Response]:
    """Yield an answer of every kind."""
    for path, method in product(ROUTES, ("GET", "POST", "PUT")):
        for host in ("localhost", "evil.example"):
            yield ask(site, method, path, "seconds=1", host=host)
    for token in (TOKEN, "x" * 16):
        locked = site._replace(token=token)
        yield ask(locked, "GET", "/", authorization=f"Bearer {TOKEN}")
    yield ask(site._replace(loopback=False), "GET", "/")
    yield ask(site._replace(expose=None), "GET", "/metrics")
    yield ask(site, "POST", "/interval", "seconds=x")


def test_headers_of_every_answer(site: Site) -> None:
    """Every answer says that it is no place for scripts, frames, guesses and caches."""
    for answer in all_answers(site):
        assert answer.headers["Content-Type"]
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none';")
        assert "nosniff" == answer.headers["X-Content-Type-Options"]
        assert "DENY" == answer.headers["X-Frame-Options"]
        assert "no-store" == answer.headers["Cache-Control"]
        assert not [name for name in answer.headers if name.startswith("Access-Control")]


def test_no_answer_holds_what_is_the_hosts_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer has a path, an argument, an environment value or the token in it."""
    monkeypatch.setenv("OUR_PASSWORD", SECRET)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--password=of-an-argument"])
    local = "a secret of a local variable"
    time.sleep(0.1)  # to be seen here
    for answer in all_answers(site):
        for secret in (SECRET, "of-an-argument", local, TOKEN, os.getcwd(), __file__, sys.prefix):
            assert secret.encode() not in answer.body


class Tags(HTMLParser):
    """Collects the tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Note a tag."""
        self.tags.add(tag)


def test_a_name_is_no_markup(site: Site) -> None:
    """A function whose name looks like markup is shown as text."""
    plain = Tags(ask(site, "GET", "/").body.decode()).tags
    name = '</pre><img src=x onerror=alert(1)><script>"&'
    usage = Usage(10**9, 10**9, 1e9, 0.0, 1e9, 0.0)
    site.profiler._pipeline.counts.record(Batch({Function("m", name): usage}))
    page = ask(site, "GET", "/").body.decode()
    assert "&lt;img src=x" in page
    assert plain == Tags(page).tags


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("", False),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:  # noqa: FBT001
    """Loopback is what no other machine can reach; a name that we do not know is not."""
    assert expected == is_loopback(host)


stopped = Profiler(Settings())
anything = st.text(max_size=20)
names = st.sampled_from(["host", "origin", "authorization", "sec-fetch-site", "accept"])
requests = st.builds(
    Request,
    st.sampled_from(["GET", "POST", "HEAD", "PUT"]) | anything,
    st.sampled_from(ROUTES) | anything,
    anything,
    st.dictionaries(names, st.sampled_from(["localhost", "http://localhost"]) | anything),
    st.binary(max_size=50),
)


@given(requests, st.sampled_from([None, TOKEN]))
def test_any_request(request: Request, token: str | None) -> None:
    """Whatever is asked, there is an answer, and nobody gets in by chance."""
    answer = respond(request, Site(stopped, expose, token, loopback=True))
    assert answer.status in (200, 400, 401, 403, 404, 405, 421)
    if answer.status == 200 and request.path != "/metrics":
        assert token is None
        assert request.headers["host"].lower().startswith(("localhost", "127.", "["))
