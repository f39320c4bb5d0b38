"""Mounted in an application of each framework, under its own server: closed, whole, in its place."""

import json

import pytest

TOKEN = "0123456789abcdef"  # noqa: S105
BEARER = {"Authorization": f"Bearer {TOKEN}"}

GUNICORN = ("gunicorn", "--bind=127.0.0.1:{port}", "--threads=4")
UVICORN = ("uvicorn", "--host=127.0.0.1", "--port={port}")

SERVERS = {
    "flask run": ("flask", "--app=shops:flask_app", "run", "--port={port}"),
    "flask, gunicorn": (*GUNICORN, "shops:flask_app"),
    "fastapi, uvicorn": (*UVICORN, "shops:fastapi_app"),
    "fastapi, uvicorn with a root path": (*UVICORN, "--root-path=/api", "shops:fastapi_app"),
    "the example of fastapi": (*UVICORN, "fastapi_app:app"),
    "the example of django": (*GUNICORN, "django_app:application"),
}


@pytest.mark.parametrize("server", SERVERS)
def test_it_is_served_under_a_prefix(serve, server) -> None:
    """With the token everything, without it the metrics, and the application is where it was."""
    site = serve(*SERVERS[server], OX_OTEL_TOKEN=TOKEN)

    assert 200 == site.get("/").status
    metrics = site.get("/ox_otel/metrics")
    assert 200 == metrics.status
    assert "ox_profile_samples_total" in metrics.text
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "nosniff" == metrics.headers["x-content-type-options"]
    for path in ("/ox_otel/", "/ox_otel/status"):
        assert 401 == site.get(path).status
        assert 401 == site.get(path, Authorization=f"Bearer {TOKEN[:-1]}").status
        assert 200 == site.get(path, **BEARER).status
    assert site.ask_with_two_tokens("/ox_otel/status", TOKEN) in (400, 401)
    page = site.get("/ox_otel", **BEARER)
    assert page.status in (307, 308)
    assert page.headers["location"].endswith("/ox_otel/" if page.status == 307 else "./ox_otel/")
    for path in ("/ox_otel/ox_otel/status", "/ox_otel//status", "/ox_otel/%2e%2e/status"):
        assert 404 == site.get(path, **BEARER).status
    assert 404 == site.get("/ox_otels/status", **BEARER).status

    head = site.ask("HEAD", "/ox_otel/status", **BEARER)
    assert (200, "") == (head.status, head.text)
    assert int(head.headers["content-length"]) > 100
    assert 405 == site.get("/ox_otel/pause", **BEARER).status
    form = {**BEARER, "Content_Type": "application/x-www-form-urlencoded"}
    answer = site.ask("POST", "/ox_otel/interval", b"seconds=0.5", **form)
    assert 0.5 == json.loads(answer.text)["interval"]
    assert 413 == site.ask("POST", "/ox_otel/interval", b"x" * 5000, **form).status
    foreign = {**BEARER, "Origin": "http://evil.example"}
    assert 403 == site.ask("POST", "/ox_otel/pause", **foreign).status
    assert "running" == json.loads(site.get("/ox_otel/status", **BEARER).text)["state"]
    assert "paused" == json.loads(site.ask("POST", "/ox_otel/pause", **BEARER).text)["state"]


@pytest.mark.parametrize("server", sorted(SERVERS.keys() - {"flask run", "the example of fastapi"}))
def test_it_is_closed_without_a_token(serve, server) -> None:
    """Requests come from this machine here, as all do behind a proxy: that opens nothing."""
    site = serve(*SERVERS[server])

    proxied = {"X_Forwarded_For": "127.0.0.1", "Forwarded": "for=127.0.0.1;host=localhost"}
    for headers in ({}, {"Host": "localhost"}, proxied, BEARER):
        if "Host" in headers and server == "the example of django":
            continue
        for path in ("/ox_otel/", "/ox_otel/status"):
            assert 403 == site.get(path, **headers).status
        assert 403 == site.ask("POST", "/ox_otel/pause", **headers).status
    assert 200 == site.get("/ox_otel/metrics").status


def test_whom_the_application_lets_in(serve) -> None:
    """Who has logged in as the one who may needs no token; another one, or nobody, is refused."""
    site = serve(*UVICORN, "shops:starlette_app")

    assert 403 == site.get("/ox_otel/status").status
    site.get("/login/eve")
    assert 403 == site.get("/ox_otel/status").status
    site.get("/login/ada")
    for path in ("status", "", "page.js", "page.css", "live.json"):
        assert 200 == site.get(f"/ox_otel/{path}").status
    assert 403 == site.ask("POST", "/ox_otel/pause", Origin="http://evil.example").status
    assert 200 == site.ask("POST", "/ox_otel/pause").status


def test_it_may_be_all_that_a_server_serves(serve) -> None:
    """Not mounted anywhere, it follows the life of its server, and has its root at the root."""
    site = serve(*UVICORN, "--lifespan=on", "shops:bare_app", OX_OTEL_TOKEN=TOKEN)

    assert 200 == site.get("/", **BEARER).status
    assert 200 == site.get("/metrics").status


def test_a_scrape_does_not_hold_up_the_loop(serve) -> None:
    """While collectors of the application take seconds, its own requests are answered."""
    site = serve(*UVICORN, "shops:fastapi_app")
    watcher, scraper = site.connect(), site.connect()
    watcher.request("GET", "/longest_gap?seconds=4&held_up=2")
    while site.get("/").status != 200:
        pass
    scraper.request("GET", "/ox_otel/metrics")

    assert float(watcher.getresponse().read()) < 1
    assert 200 == scraper.getresponse().status
    watcher.close()
    scraper.close()
