"""HTTP: who may see and change what, and what every answer looks like."""

import gzip
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ox_otel import Profiler, Settings
from ox_otel._capture import MAX_CAPTURES
from ox_otel._page import FILES
from ox_otel.formats import FORMATS
from ox_otel.http import TOO_LARGE, TOO_MANY, Exposure, Request, Response, is_loopback, respond

TOKEN = "0123456789abcdef"  # noqa: S105
SECRET = "a secret of the environment"  # noqa: S105

METHODS = {
    "/metrics": "GET",
    "/status": "GET",
    "/pause": "POST",
    "/unpause": "POST",
    "/interval": "POST",
    "/profile": "GET",
    "/flamegraph.json": "GET",
    "/debug/pprof/profile": "GET",
    "/debug/pprof/wall": "GET",
    "/live.json": "GET",
} | dict.fromkeys(FILES, "GET")
PROFILES = [path for path in METHODS if "prof" in path or "flame" in path]
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
def exposure(profiler: Profiler) -> Exposure:
    """What is served on a loopback address without a token."""
    return Exposure(profiler, expose, None, loopback=True)


def ask(exposure: Exposure, method: str, path: str, query: str = "", **headers: str) -> Response:
    """Return the answer to a request from this machine, unless *headers* say otherwise."""
    named = {"host": "localhost:9000"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return respond(Request(method, path, query, named), exposure)


WHO: dict[str, dict[str, str]] = {
    "a shell here": {},
    "a shell elsewhere": {"host": "app.example:9000"},
    "with the token": {"host": "app.example:9000", "authorization": f"Bearer {TOKEN}"},
    "with a wrong token": {"authorization": f"Bearer {TOKEN[:-1]}"},
    "with half a header": {"authorization": TOKEN},
    "with another scheme": {"authorization": f"bearer {TOKEN}"},
    "with a longer token": {"authorization": f"Bearer {TOKEN}é"},
    "with no text": {"authorization": f"Bearer {TOKEN}\ud800"},
    "with two tokens": {"authorization": f"Bearer {TOKEN}, Bearer {TOKEN}"},
    "our own page": {"origin": "http://localhost:9000", "sec_fetch_site": "same-origin"},
    "a foreign page": {"origin": "http://evil.example", "sec_fetch_site": "cross-site"},
    "a page by our address": {"host": "evil.example:9000", "origin": "http://evil.example:9000"},
    "a foreign page with the token": {
        "authorization": f"Bearer {TOKEN}",
        "origin": "http://evil.example",
        "sec_fetch_site": "cross-site",
    },
}
"""Who asks: what the headers of the request tell."""

WHERE: dict[str, tuple[bool, str | None]] = {
    "loopback": (True, None),
    "loopback, token": (True, TOKEN),
    "network": (False, None),
    "network, token": (False, TOKEN),
}
"""Where it is served: whether the address is loopback, and the token."""

# what the metrics, a route that shows and a route that changes something answer
WELCOME, HERE_ONLY, SCRAPES_ONLY = (200, 200, 200), (421, 421, 421), (200, 403, 403)
NO_TOKEN, LOST = (200, 401, 401), (421, 401, 401)

EXPECTED: dict[str, tuple[tuple[int, int, int], ...]] = {
    # loopback, the same with a token, the network, the same with a token
    "a shell here": (WELCOME, NO_TOKEN, SCRAPES_ONLY, NO_TOKEN),
    "a shell elsewhere": (HERE_ONLY, LOST, SCRAPES_ONLY, NO_TOKEN),
    "with the token": (HERE_ONLY, (421, 200, 200), SCRAPES_ONLY, WELCOME),
    "with a wrong token": (WELCOME, NO_TOKEN, SCRAPES_ONLY, NO_TOKEN),
    "with half a header": (WELCOME, NO_TOKEN, SCRAPES_ONLY, NO_TOKEN),
    "with another scheme": (WELCOME, NO_TOKEN, SCRAPES_ONLY, NO_TOKEN),
    "with a longer token": (WELCOME, NO_TOKEN, SCRAPES_ONLY, NO_TOKEN),
    "with no text": (WELCOME, NO_TOKEN, SCRAPES_ONLY, NO_TOKEN),
    "with two tokens": (WELCOME, NO_TOKEN, SCRAPES_ONLY, NO_TOKEN),
    "our own page": (WELCOME, NO_TOKEN, SCRAPES_ONLY, NO_TOKEN),
    "a foreign page": (SCRAPES_ONLY, NO_TOKEN, SCRAPES_ONLY, NO_TOKEN),
    "a page by our address": (HERE_ONLY, LOST, SCRAPES_ONLY, NO_TOKEN),
    "a foreign page with the token": (SCRAPES_ONLY, SCRAPES_ONLY, SCRAPES_ONLY, SCRAPES_ONLY),
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("who", WHO)
def test_who_may_do_what(profiler: Profiler, who: str, where: str) -> None:
    """Every route, method, user and address: each answer has the status that it must have."""
    loopback, token = WHERE[where]
    exposure = Exposure(profiler, expose, token, loopback)
    to_metrics, to_show, to_change = EXPECTED[who][list(WHERE).index(where)]
    for path, method in product(
        ROUTES, ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE")
    ):
        if path not in METHODS:
            expected = 404
        elif METHODS[path] != method.replace("HEAD", "GET"):
            expected = 405
        elif path == "/metrics":
            expected = to_metrics
        elif path in FILES and where == "loopback, token" and to_metrics == 200:
            expected = 403 if "foreign" in who else 200  # the page that asks for the token
        else:
            expected = to_change if method == "POST" else to_show
        if path in PROFILES and expected == 200:
            expected = 400  # so short a time is refused, but only to those who may see anything
        before = (profiler.is_paused(), profiler.status().interval)
        query = "seconds=10" if path == "/live.json" else "seconds=0.05"
        answer = ask(exposure, method, path, query, **WHO[who])
        assert (path, method, expected) == (path, method, answer.status)
        assert expected == 200 or before == (profiler.is_paused(), profiler.status().interval)
        profiler.unpause()
        profiler.set_interval(0.02)


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
    "localhost, evil.example": 421,
    "localhost:9000, evil.example": 421,
    "127.0.0.1:9000, evil.example:9000": 421,
    "[::1]:9000, evil.example": 421,
    "localhost:x": 421,
    "[::1": 421,
    "::1]": 421,
    "http://localhost": 421,
    '"><script>': 421,
}


@pytest.mark.parametrize(("host", "status"), HOSTS.items())
def test_names_of_the_host(exposure: Exposure, host: str, status: int) -> None:
    """On loopback only names of this machine are served: no page elsewhere can borrow them."""
    assert status == ask(exposure, "GET", "/status", host=host).status
    assert status == ask(exposure, "POST", "/pause", host=host).status
    assert status == ask(exposure, "GET", "/metrics", host=host).status


def test_a_request_without_a_host(exposure: Exposure) -> None:
    """No host is not this host."""
    for path in ("/status", "/metrics"):
        assert 421 == respond(Request("GET", path, "", {}), exposure).status


def test_with_a_token_any_name_is_served(profiler: Profiler) -> None:
    """Whoever knows the token comes from nobody else's page."""
    exposure = Exposure(profiler, expose, TOKEN, loopback=True)
    headers = {"authorization": f"Bearer {TOKEN}", "host": "metrics.example"}
    assert 200 == ask(exposure, "GET", "/status", **headers).status


def test_the_name_of_another_address_in_the_path(exposure: Exposure) -> None:
    """An absolute address instead of a path is not found, whatever it names."""
    for path in ("http://evil.example/status", "http://localhost/status", "//status", "*", ""):
        assert 404 == ask(exposure, "GET", path).status


def test_whom_the_host_trusts(profiler: Profiler) -> None:
    """They need no token where anybody may come; pages of other sites are refused as ever."""
    pause = Request("POST", "/pause", "", {"host": "app.example"}, trusted=True)
    foreign = pause._replace(headers={"host": "app.example", "origin": "http://evil.example"})
    for token in (None, TOKEN):
        exposure = Exposure(profiler, expose, token, loopback=False)
        for path in ("/", "/status", "/metrics"):
            request = Request("GET", path, "", {}, trusted=True)
            assert 200 == respond(request, exposure).status
        assert 403 == respond(foreign, exposure).status
        assert not profiler.is_paused()
        assert 200 == respond(pause, exposure).status
        profiler.unpause()


def test_a_token_is_compared_in_constant_time(
    profiler: Profiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison whose time tells nothing of the token decides, and nothing else."""
    exposure = Exposure(profiler, expose, TOKEN, loopback=True)
    for equal, status in ((True, 200), (False, 401)):
        monkeypatch.setattr("hmac.compare_digest", lambda *_, equal=equal: equal)
        assert status == ask(exposure, "GET", "/status").status


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
    exposure = Exposure(profiler, expose, token, loopback=True)
    for headers, status in ORIGINS:
        profiler.unpause()
        answer = ask(exposure, "POST", "/pause", authorization=f"Bearer {TOKEN}", **headers)
        assert (headers, status) == (headers, answer.status)
        assert (status == 200) == profiler.is_paused()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("site", ["cross-site", "same-site", ""])
def test_pages_of_other_sites_ask_for_nothing(exposure: Exposure, site: str, method: str) -> None:
    """Neither script nor picture of theirs starts a capture; a link of theirs leads to our page."""
    for path, mode in product(METHODS, ("no-cors", "cors", "navigate", "websocket", "")):
        sent = method if METHODS[path] == "GET" else METHODS[path]
        headers = {"sec_fetch_site": site, "sec_fetch_mode": mode}
        answer = ask(exposure, sent, path, "seconds=x", **headers)
        may = path == "/metrics" or (path in FILES and mode == "navigate")
        assert (path, mode, 200 if may else 403) == (path, mode, answer.status)
    assert 200 == ask(exposure, method, "/status", origin="http://evil.example").status


def test_reading_changes_nothing(exposure: Exposure) -> None:
    """No GET or HEAD has an effect, on no route and with no query."""
    before = (exposure.profiler.is_paused(), exposure.profiler.status().interval)
    for path, method in product(ROUTES, ("GET", "HEAD")):
        ask(exposure, method, path, "seconds=0.1")
        assert before == (exposure.profiler.is_paused(), exposure.profiler.status().interval)


def test_control(exposure: Exposure) -> None:
    """POST pauses, unpauses and sets the interval, and answers with the new status."""
    assert "paused" == json.loads(ask(exposure, "POST", "/pause").body)["state"]
    assert exposure.profiler.is_paused()
    assert "running" == json.loads(ask(exposure, "POST", "/unpause").body)["state"]
    assert not exposure.profiler.is_paused()
    assert 0.5 == json.loads(ask(exposure, "POST", "/interval", "seconds=0.5").body)["interval"]


def test_the_interval_in_a_form(exposure: Exposure) -> None:
    """The interval may come in the body, as forms send it."""
    request = Request("POST", "/interval", "", {"host": "localhost"}, b"seconds=0.25")
    assert 0.25 == json.loads(respond(request, exposure).body)["interval"]


@pytest.mark.parametrize("seconds", ["", "0", "-1", "nan", "inf", "1e9", "x", "\ud800"])
def test_a_wrong_interval(exposure: Exposure, seconds: str) -> None:
    """A wrong interval is refused with what would be accepted, and changes nothing."""
    answer = ask(exposure, "POST", "/interval", f"seconds={seconds}")
    assert 400 == answer.status
    assert b"accepted: seconds from 0.001 to 60" in answer.body
    assert 0.02 == exposure.profiler.status().interval


def test_what_a_wrong_method_is_told(exposure: Exposure) -> None:
    """405 says which method the route takes."""
    answer = ask(exposure, "GET", "/pause")
    assert (405, "POST") == (answer.status, answer.headers["Allow"])


def test_what_a_missing_token_is_told(profiler: Profiler) -> None:
    """401 says what kind of credentials are asked for."""
    exposure = Exposure(profiler, expose, TOKEN, loopback=True)
    assert "Bearer" == ask(exposure, "GET", "/status").headers["WWW-Authenticate"]


def test_the_status(exposure: Exposure) -> None:
    """The status is that of the profiler, as JSON."""
    answer = ask(exposure, "GET", "/status")
    assert "application/json" == answer.headers["Content-Type"]
    status = json.loads(answer.body)
    assert ("running", os.getpid()) == (status["state"], status["pid"])
    assert set(type(exposure.profiler.status()).__slots__) == status.keys()


def test_metrics_that_are_not_there(profiler: Profiler) -> None:
    """Without the recorder for them, metrics are not found."""
    assert 404 == ask(Exposure(profiler, None, None, loopback=True), "GET", "/metrics").status


def test_metrics_in_the_form_asked_for(profiler: Profiler) -> None:
    """The Accept header reaches whoever writes the metrics, the content type comes back."""
    exposure = Exposure(profiler, lambda accept: (accept.upper(), b""), None, loopback=True)
    assert "TEXT/X" == ask(exposure, "GET", "/metrics", accept="text/x").headers["Content-Type"]


def test_an_error_in_a_route(profiler: Profiler) -> None:
    """An error is answered with a 500 that says nothing, and counts as `request`."""

    def broken(_: str) -> tuple[str, bytes]:
        raise RuntimeError(SECRET)

    exposure = Exposure(profiler, broken, None, loopback=True)
    answer = ask(exposure, "GET", "/metrics")
    assert (500, b"internal error\n") == (answer.status, answer.body)
    assert {"request": 1} == profiler.snapshot().errors


def all_answers(exposure: Exposure) -> Iterator[Response]:
    """Yield an answer of every kind."""
    for path, method in product(ROUTES, ("GET", "POST", "PUT")):
        for host in ("localhost", "evil.example"):
            yield ask(exposure, method, path, "seconds=0.1", host=host)
    for name in FORMATS:
        yield ask(exposure, "GET", "/profile", f"seconds=0.1&time=wall&format={name}")
    yield ask(exposure, "GET", "/profile", "time=wall")
    for token in (TOKEN, "x" * 16):
        locked = exposure._replace(token=token)
        yield ask(locked, "GET", "/status", authorization=f"Bearer {TOKEN}")
    yield ask(exposure._replace(loopback=False), "GET", "/")
    yield ask(exposure._replace(metrics=None), "GET", "/metrics")
    yield ask(exposure, "POST", "/interval", "seconds=x")
    yield from (TOO_LARGE, TOO_MANY)


def test_headers_of_every_answer(exposure: Exposure) -> None:
    """Every answer says that it is no place for scripts, frames, guesses and caches."""
    for answer in all_answers(exposure):
        assert answer.headers["Content-Type"]
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none';")
        assert "nosniff" == answer.headers["X-Content-Type-Options"]
        assert "DENY" == answer.headers["X-Frame-Options"]
        assert "no-store" == answer.headers["Cache-Control"]
        assert "same-origin" == answer.headers["Cross-Origin-Resource-Policy"]
        assert "no-referrer" == answer.headers["Referrer-Policy"]
        assert not [name for name in answer.headers if name.startswith("Access-Control")]


def test_no_answer_holds_what_is_the_hosts_alone(
    exposure: Exposure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer has a path, an argument, an environment value or the token in it."""
    monkeypatch.setenv("OUR_PASSWORD", SECRET)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--password=of-an-argument"])
    local = "a secret of a local variable"
    time.sleep(0.1)  # to be seen here
    for answer in all_answers(exposure):
        is_packed = answer.body.startswith(b"\x1f\x8b")
        shown = gzip.decompress(answer.body) if is_packed else answer.body
        for secret in (SECRET, "of-an-argument", local, TOKEN, os.getcwd(), __file__, sys.prefix):
            assert secret.encode() not in shown


def test_the_page(exposure: Exposure) -> None:
    """The page may run its own script and ask its own address, and nothing else."""
    answer = ask(exposure, "GET", "/")
    assert "text/html; charset=utf-8" == answer.headers["Content-Type"]
    policy = dict(
        part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; ")
    )
    allowed = {what for what, whom in policy.items() if whom != "'none'"}
    assert {"script-src", "style-src", "img-src", "connect-src"} == allowed
    assert {"'self'"} == {policy[what] for what in allowed}
    for path in FILES:
        assert ask(exposure, "GET", path).body


def test_what_has_happened_lately(exposure: Exposure) -> None:
    """From the first question on, the stacks of the last seconds are kept, and told with the status."""
    deadline = time.monotonic() + 20
    while not (shown := json.loads(ask(exposure, "GET", "/live.json", "seconds=10").body))[
        "seconds"
    ]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "running" == shown["status"]["state"]
    assert ["cpu", "wait", "wall"] == shown["times"]
    assert f"{__name__}.test_what_has_happened_lately" in shown["names"]


@pytest.mark.parametrize(("tree", "times"), [("cpu", ["cpu"]), ("wall", ["wall"]), ("off", [])])
def test_what_has_happened_since_the_start(tree: str, times: list[str]) -> None:
    """The tree is of the time that it is kept for; the table of functions has all times."""
    here = f"{__name__}.test_what_has_happened_since_the_start"
    with Profiler(Settings(tree=tree)) as profiler:
        exposure = Exposure(profiler, None, None, loopback=True)
        deadline, shown = time.monotonic() + 20, {"names": []}
        while here not in shown["names"]:
            assert time.monotonic() < deadline
            shown = json.loads(ask(exposure, "GET", "/live.json").body)
    assert times == shown["times"]
    assert here in {shown["names"][name] for name, *_ in shown["functions"]}


@pytest.mark.parametrize("seconds", ["0", "61", "-1", "nan", "x"])
def test_more_seconds_than_are_kept(exposure: Exposure, seconds: str) -> None:
    """What is not kept is refused, with what is accepted."""
    answer = ask(exposure, "GET", "/live.json", f"seconds={seconds}")
    assert 400 == answer.status
    assert b"a number from 1 to 60" in answer.body


def test_a_profile_of_the_seconds_to_come(exposure: Exposure) -> None:
    """Each route of profiles waits so long, and answers in the format and with the time it has."""
    for path, query, content_type, name in (
        ("/profile", "format=speedscope&time=wait", "application/json", "wait.speedscope.json"),
        ("/flamegraph.json", "time=wall", "application/json", "wall.frame.json"),
        ("/debug/pprof/profile", "", "application/octet-stream", "cpu.pb.gz"),
        ("/debug/pprof/wall", "", "application/octet-stream", "wall.pb.gz"),
    ):
        began = time.monotonic()
        answer = ask(exposure, "GET", path, f"seconds=0.3&{query}")
        assert 200 == answer.status
        assert content_type == answer.headers["Content-Type"]
        assert f'attachment; filename="{name}"' == answer.headers["Content-Disposition"]
        assert time.monotonic() - began >= 0.3
        if name.endswith("gz"):
            assert name.partition(".")[0].encode() in gzip.decompress(answer.body)


def test_a_profile_since_the_start(exposure: Exposure) -> None:
    """Without seconds nobody waits: it is what the tree has."""
    answer = ask(exposure, "GET", "/flamegraph.json")
    assert "total" == json.loads(answer.body)[0]["label"]
    answer = ask(exposure, "GET", "/profile", "time=wall")
    assert (409, b"since the start there is only cpu") == (answer.status, answer.body[:33])


def test_who_wants_headers_only_waits_for_nothing(exposure: Exposure) -> None:
    """HEAD tells of a capture without making it, and refuses what would be refused."""
    began = time.monotonic()
    answer = ask(exposure, "HEAD", "/debug/pprof/profile", "seconds=300")
    assert (200, "application/octet-stream", b"") == (
        answer.status,
        answer.headers["Content-Type"],
        answer.body,
    )
    assert 400 == ask(exposure, "HEAD", "/debug/pprof/profile", "seconds=301").status
    assert time.monotonic() - began < 60


def test_a_profile_that_is_not_to_be_had(exposure: Exposure) -> None:
    """Paused, it is refused with the reason; where there are too many, with when to come again."""
    exposure.profiler.pause()
    answer = ask(exposure, "GET", "/debug/pprof/wall", "seconds=300")
    assert (409, b"nothing can be captured: paused\n") == (answer.status, answer.body)
    exposure.profiler.unpause()
    with ExitStack() as captures:
        for _ in range(MAX_CAPTURES):
            captures.enter_context(exposure.profiler._pipeline.captures.another())
        answer = ask(exposure, "GET", "/debug/pprof/wall", "seconds=300")
        assert (429, "5") == (answer.status, answer.headers["Retry-After"])


def test_whoever_has_gone_is_not_waited_for(exposure: Exposure) -> None:
    """A capture ends when the server says that the client has hung up."""
    headers = {"host": "localhost"}
    request = Request("GET", "/profile", "seconds=300", headers, gone=lambda: True)
    began = time.monotonic()
    assert 200 == respond(request, exposure).status
    assert time.monotonic() - began < 60


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
    trusted=st.just(False),
)


@given(requests, st.sampled_from([None, TOKEN]))
def test_any_request(request: Request, token: str | None) -> None:
    """Whatever is asked, there is an answer, and nobody gets in by chance."""
    answer = respond(request, Exposure(stopped, expose, token, loopback=True))
    assert answer.status in (200, 400, 401, 403, 404, 405, 409, 421)
    if answer.status == 200 and request.path not in ("/metrics", *FILES):
        assert token is None
    if answer.status == 200:
        assert request.headers["host"].lower().startswith(("localhost", "127.", "["))


def test_all_since_the_start_is_of_one_moment() -> None:
    """The tree and the table on the page are of one batch, which is all that is made for them."""
    with Profiler(Settings(start_paused=True)) as profiler:
        assert 200 == ask(Exposure(profiler, None, None, loopback=True), "GET", "/live.json").status
        deadline = time.monotonic() + 20
        while not profiler._pipeline.flushes:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert 1 == profiler._pipeline.flushes
