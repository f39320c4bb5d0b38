"""The blueprint for those who come from ox_profile: who may see and change what."""

import csv
import os
import re
import time
from collections import UserString
from collections.abc import Iterator
from html.parser import HTMLParser

import flask
import pytest
from flask_login import LoginManager, UserMixin, login_user

import ox_otel
from ox_otel import Batch, Function, Usage
from ox_otel.flask import OX_PROF_BP
from ox_otel.routes import Wsgi

SHOWS = ("/ox_profile/", "/ox_profile/status", "/ox_profile/show_req_times")
CHANGES = ("/ox_profile/pause", "/ox_profile/unpause", "/ox_profile/set_interval?interval=0.5")


class User(UserMixin):
    """A user; who has no name is nobody in particular."""

    def __init__(self, name: object) -> None:
        self.id = self.name = name
        self.email = f"{name}@shop.example"


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[flask.Flask]:
    """An app with the blueprint, in which whoever asks for /login/NAME is NAME from then on."""
    monkeypatch.setenv("OX_OTEL_MAX_OVERHEAD", "1")
    yield make_app()
    ox_otel.uninstall()


def make_app(prefix: str = "/ox_profile", **config: object) -> flask.Flask:
    """Return an app so configured, with the blueprint."""
    app = flask.Flask("shop")
    app.config.update(SECRET_KEY=os.urandom(16), **config)
    LoginManager(app).user_loader(User)
    app.add_url_rule("/login/<name>", view_func=lambda name: str(login_user(User(name))))
    app.register_blueprint(OX_PROF_BP, url_prefix=prefix)
    return app


def client_of(app: flask.Flask, name: str = "ada"):
    """Return a browser in which *name* has logged in."""
    client = app.test_client()
    client.get(f"/login/{name}")
    return client


def statuses(client) -> set[int]:
    """Return the statuses of all that can be asked for."""
    return {
        *(client.get(path).status_code for path in (*SHOWS, *CHANGES)),
        *(client.post(path).status_code for path in CHANGES),
    }


def test_nobody_is_allowed_by_default(app: flask.Flask) -> None:
    """Without a list of users nobody sees or changes anything, logged in or not."""
    assert {401} == statuses(app.test_client())
    assert {403} == statuses(client_of(app))
    assert ox_otel.get().is_paused()


def test_users_who_are_named_are_allowed(app: flask.Flask) -> None:
    """They see the status; whoever is not named, or not logged in, does not."""
    app.config["OX_PROF_USERS"] = {"ada", "grace"}

    assert {200, 405} == statuses(client_of(app, "grace"))
    assert {403} == statuses(client_of(app, "eve"))
    assert {403} == statuses(client_of(app, "ad"))
    assert {401} == statuses(app.test_client())


@pytest.mark.parametrize("users", [["ada"], ("ada",), {"ada": None}, frozenset(["ada"])])
def test_any_collection_of_users(app: flask.Flask, users: object) -> None:
    """A list will do as well as a set."""
    app.config["OX_PROF_USERS"] = users

    assert 200 == client_of(app).get("/ox_profile/status").status_code
    assert 403 == client_of(app, "eve").get("/ox_profile/status").status_code


@pytest.mark.parametrize("users", ["ada", b"grace", "", None, 7, UserString("ada"), range(7)])
def test_users_that_are_no_collection(app: flask.Flask, users: object) -> None:
    """Of one string any part would be a user: it is an error that says so, and nobody gets in."""
    app.config.update(OX_PROF_USERS=users, PROPAGATE_EXCEPTIONS=True)

    for client in (client_of(app), client_of(app, "ad"), app.test_client()):
        with pytest.raises(ox_otel.ConfigError, match=r"OX_PROF_USERS: \w+ is not accepted;"):
            client.get("/ox_profile/status")
    app.config["PROPAGATE_EXCEPTIONS"] = False
    assert {500} == statuses(client_of(app))


def test_users_that_are_wrong_from_the_start() -> None:
    """What is known when the blueprint is registered is told then; nothing is installed."""
    with pytest.raises(ox_otel.ConfigError, match="OX_PROF_USERS"):
        make_app(OX_PROF_USERS="ada")
    assert ox_otel.get() is None


def test_another_field(app: flask.Flask) -> None:
    """Users may be known by something else than their name."""
    app.config.update(OX_PROF_USERS=["ada@shop.example"], OX_PROF_USERNAME_FIELD="email")

    assert 200 == client_of(app).get("/ox_profile/status").status_code
    assert 403 == client_of(app, "eve").get("/ox_profile/status").status_code


@pytest.mark.parametrize("field", ["nothing", "is_active", "get_id", "__class__"])
def test_a_field_that_is_no_name(app: flask.Flask, field: str) -> None:
    """Where a user has no such field, or no text in it, nobody gets in, whoever is allowed."""
    user = User("ada")
    users = {None, True, User, user.get_id, ""}
    app.config.update(OX_PROF_USERS=users, OX_PROF_USERNAME_FIELD=field)

    assert {403} == statuses(client_of(app))


def test_an_empty_name(app: flask.Flask) -> None:
    """Who has no name is nobody, even if the list has an empty line."""
    app.config.update(OX_PROF_USERS=[""], OX_PROF_USERNAME_FIELD="surname")
    app.login_manager.user_loader(type("", (User,), {"surname": ""}))

    assert {403} == statuses(client_of(app))


def test_nobody_who_is_not_logged_in(app: flask.Flask) -> None:
    """Not even where the app has switched logins off, and somebody anonymous bears the name."""
    app.config.update(OX_PROF_USERS=["guest"], LOGIN_DISABLED=True)
    anonymous = type("", (app.login_manager.anonymous_user,), {"name": "guest"})
    app.login_manager.anonymous_user = anonymous

    assert {401} == statuses(app.test_client())


@pytest.mark.parametrize("said", [lambda _: False, "no", 1])
def test_only_true_is_a_login(app: flask.Flask, said: object) -> None:
    """Where an app has made something else of the property, a method for one, nobody gets in."""
    app.config["OX_PROF_USERS"] = {"ada"}
    app.login_manager.user_loader(type("", (User,), {"is_authenticated": said}))

    assert {401} == statuses(client_of(app))


def test_an_app_without_logins() -> None:
    """Where nobody knows who asks, nobody gets in."""
    app = flask.Flask("shop")
    app.register_blueprint(OX_PROF_BP)
    app.config["OX_PROF_USERS"] = {"ada"}

    assert {403} == statuses(app.test_client())
    ox_otel.uninstall()


def test_who_is_not_logged_in_is_sent_to_the_login(app: flask.Flask) -> None:
    """As flask-login has been told to."""
    app.login_manager.login_view = "login"
    app.add_url_rule("/login", "login", lambda: "")

    answer = app.test_client().get("/ox_profile/status")
    assert (302, "/login") == (answer.status_code, answer.location.partition("?")[0])


def test_it_begins_paused(app: flask.Flask) -> None:
    """As in ox_profile, nothing is sampled before somebody asks for it."""
    assert "paused" == ox_otel.get().status().state


def test_unless_the_app_has_it_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed already is left as it is, and the environment is asked before."""
    profiler = ox_otel.install()
    make_app()
    assert not profiler.is_paused()
    ox_otel.uninstall()

    monkeypatch.setenv("OX_OTEL_START_PAUSED", "false")
    make_app()
    assert not ox_otel.get().is_paused()
    ox_otel.uninstall()


def test_control(app: flask.Flask) -> None:
    """A POST pauses, unpauses and sets the interval, and shows the new status."""
    app.config["OX_PROF_USERS"] = {"ada"}
    client, profiler = client_of(app), ox_otel.get()

    assert "running" in client.post("/ox_profile/unpause").text
    assert not profiler.is_paused()
    assert "paused" in client.post("/ox_profile/pause").text
    assert profiler.is_paused()
    for where in ({"query_string": {"interval": "0.5"}}, {"data": {"interval": "0.25"}}):
        assert 200 == client.post("/ox_profile/set_interval", **where).status_code
        [given] = where.values()
        assert float(given["interval"]) == profiler.wishes().interval


@pytest.mark.parametrize("seconds", ["", "0", "-1", "nan", "1e9", "x"])
def test_a_wrong_interval(app: flask.Flask, seconds: str) -> None:
    """It is refused with what would be accepted, and changes nothing."""
    app.config["OX_PROF_USERS"] = {"ada"}
    answer = client_of(app).post("/ox_profile/set_interval", data={"interval": seconds})

    assert 400 == answer.status_code
    assert "accepted: seconds from 0.001 to 60" in answer.text
    assert 0.02 == ox_otel.get().wishes().interval


def test_a_link_changes_nothing(app: flask.Flask) -> None:
    """A GET, as ox_profile took it, is told what to do instead: there is a button for it."""
    app.config["OX_PROF_USERS"] = {"ada"}
    client = client_of(app)
    before = ox_otel.get().wishes()

    for path in CHANGES:
        answer = client.get(path)
        bare = path.partition("?")[0]
        assert (405, "POST") == (answer.status_code, answer.headers["Allow"])
        assert f'<form method="post" action="{bare}">' in answer.text
        assert 405 == client.head(path).status_code
    assert before == ox_otel.get().wishes()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_site_changes_nothing(app: flask.Flask, headers: dict[str, str]) -> None:
    """The browser of a user who is allowed may not be sent by somebody else."""
    app.config["OX_PROF_USERS"] = {"ada"}
    before = ox_otel.get().wishes()

    for path in CHANGES:
        assert 403 == client_of(app).post(path, headers=headers).status_code
    assert before == ox_otel.get().wishes()


def test_forms_have_the_token_of_the_app(app: flask.Flask) -> None:
    """Where Flask-WTF guards all forms of an app, ours pass."""
    app.config["OX_PROF_USERS"] = {"ada"}
    app.jinja_env.globals["csrf_token"] = lambda: 'a "token"'
    page = client_of(app).get("/ox_profile/status").text

    field = '<input type="hidden" name="csrf_token" value="a &quot;token&quot;">'
    assert page.count("<form") == page.count(field) == 2


def burn() -> None:
    """Use some CPU."""
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        sum(range(1000))


def test_the_status_shows_the_hottest_functions(app: flask.Flask) -> None:
    """As many as are asked for, of those whose names match."""
    app.config["OX_PROF_USERS"] = {"ada"}
    client = client_of(app)
    client.post("/ox_profile/unpause")
    deadline = time.monotonic() + 30
    while ".burn<" not in client.get("/ox_profile/status").text:
        burn()
        assert time.monotonic() < deadline
    client.post("/ox_profile/pause")  # no more functions come, while they are counted

    def rows(**query: object) -> int:
        page = client.get("/ox_profile/status", query_string=query).text
        return len(re.findall("<tr><td>", page))

    assert rows() > 1
    assert 1 == rows(max_records=1)
    assert 1 == rows(pattern="*.burn")
    assert 0 == rows(max_records=-1)
    assert rows() == rows(max_records=10**30) == rows(max_records="x")


def test_requests_and_times_by_route(app: flask.Flask) -> None:
    """Each route has its requests, and the time that they took, under its template."""
    app.config["OX_PROF_USERS"] = {"ada"}
    app.add_url_rule("/burn/<int:n>", view_func=lambda n: str(burn()), endpoint="burn")
    client = client_of(app)
    client.post("/ox_profile/unpause")
    for n in range(3):
        client.get(f"/burn/{n}")

    def shown() -> dict[str, list[str]]:
        lines = client.get("/ox_profile/show_req_times?as_csv=1").text.splitlines()
        assert "route,requests,cpu_seconds,wait_seconds" == lines[0]
        return {cells[0]: cells[1:] for cells in csv.reader(lines[1:])}

    deadline = time.monotonic() + 30
    while shown().get("/burn/<int:n>", ["0"])[0] != "3":
        assert time.monotonic() < deadline
    _, cpu_seconds, wait_seconds = map(float, shown()["/burn/<int:n>"])
    assert 0.15 <= cpu_seconds < 0.15 + 0.15
    assert wait_seconds >= 0
    page = client.get("/ox_profile/show_req_times").text
    first = re.findall("<tr><td>(.*?)</td><td>(.*?)</td>", page)[0]
    assert ("/burn/&lt;int:n&gt;", "3") == first


def test_requests_are_counted_once(app: flask.Flask) -> None:
    """An app that has asked for routes itself does not count them twice."""
    app = flask.Flask("shop")
    app.wsgi_app = mine = Wsgi(app.wsgi_app)
    app.register_blueprint(OX_PROF_BP)

    assert mine is app.wsgi_app


class Tags(HTMLParser):
    """Collects the tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Note a tag."""
        self.tags.add(tag)


def test_a_name_is_no_markup(app: flask.Flask) -> None:
    """Whatever the app has told its templates, names of functions and reasons stay text."""
    app.config["OX_PROF_USERS"] = {"ada"}
    app.jinja_env.autoescape = False
    client = client_of(app)
    profiler = ox_otel.get()
    known = Batch({Function("m", "f"): Usage(1, 1)})
    profiler._pipeline.counts.record(known)
    plain = Tags(client.get("/ox_profile/status").text).tags

    name = '</td><img src=x onerror=alert(1)><script>"&'
    profiler._pipeline.counts.record(Batch({Function("m", name): Usage(1, 1)}))
    profiler._life._failure = name
    page = client.get("/ox_profile/status").text
    assert 2 == page.count("&lt;img src=x")
    assert plain == Tags(page).tags


def test_headers_of_every_answer(app: flask.Flask) -> None:
    """Refusals included, every answer says that it is no place for scripts, frames and caches."""
    app.config["OX_PROF_USERS"] = {"ada"}
    for client in (client_of(app), client_of(app, "eve"), app.test_client()):
        for path in SHOWS:
            headers = client.get(path).headers
            assert headers["Content-Security-Policy"].startswith("default-src 'none';")
            assert "nosniff" == headers["X-Content-Type-Options"]
            assert "no-store" == headers["Cache-Control"]
            assert "text/html; charset=utf-8" == headers["Content-Type"]


def test_another_prefix() -> None:
    """Registered elsewhere, or in an app that is mounted, its links and forms lead there."""
    app = make_app("/prof", OX_PROF_USERS={"ada"})
    page = client_of(app).get("/prof/status", environ_overrides={"SCRIPT_NAME": "/shop"}).text

    found = set(re.findall(r'(?:href|action)="([^"]*)"', page))
    assert found == {path for path in found if path.startswith("/shop/prof/")}
    ox_otel.uninstall()


def test_nothing_is_installed_any_more(app: flask.Flask) -> None:
    """Who has uninstalled the profiler has no status, and cannot change it."""
    app.config["OX_PROF_USERS"] = {"ada"}
    ox_otel.uninstall()
    client = client_of(app)

    assert 503 == client.get("/ox_profile/status").status_code
    assert 503 == client.post("/ox_profile/unpause").status_code


def test_all_processes_of_a_service_do_as_one_is_told(tmp_path, monkeypatch) -> None:
    """With a folder of the service, what is wished of one process stands there for all."""
    monkeypatch.setenv("OX_OTEL_RUN_DIR", str(tmp_path))
    os.chmod(tmp_path, 0o700)
    client = client_of(make_app(OX_PROF_USERS={"ada"}))
    client.post("/ox_profile/unpause")

    assert (tmp_path / "paused").read_text().startswith("False ")
    ox_otel.uninstall()
