"""Mounted in an application, by WSGI or by ASGI: who is let in, and to what."""

import json
import time
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from asking import BEARER, TOKEN, Answer, by_asgi, by_wsgi

import ox_otel
import ox_otel.asgi
import ox_otel.wsgi

Ask = Callable[..., Answer]


@pytest.fixture(params=["wsgi", "asgi"])
def module(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The module of an interface; threads of a test end a moment after the answers that they make."""
    yield {"wsgi": ox_otel.wsgi, "asgi": ox_otel.asgi}[request.param]
    deadline = time.monotonic() + 30
    while any(worker.alive() for worker in ox_otel.asgi._workers):
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def ask(module: ModuleType) -> Ask:
    """What asks an application by that interface."""
    return {ox_otel.wsgi: by_wsgi, ox_otel.asgi: by_asgi}[module]


def test_without_a_token_nobody_sees_anything_but_metrics(
    module: ModuleType, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a request that comes from this machine, by its name: so do all behind a proxy."""
    monkeypatch.delenv("OX_OTEL_TOKEN", raising=False)
    ox_otel.install()
    app = module.app()

    assert 200 == ask(app, "/metrics").status
    for path in ("/", "/status"):
        assert 403 == ask(app, path).status
        assert 403 == ask(app, path, x_forwarded_for="127.0.0.1", **BEARER).status
    assert 403 == ask(app, "/pause", "POST").status
    assert not ox_otel.get().is_paused()
    ox_otel.uninstall()


def test_with_the_token_everything_is_served(
    guarded: ox_otel.Profiler, module: ModuleType, ask: Ask
) -> None:
    """By whatever name the server is called, what is seen and changed is the installed profiler."""
    app = module.app()

    for path in ("/", "/status", "/metrics"):
        assert 200 == ask(app, path, host="shop.example", **BEARER).status
    assert 401 == ask(app).status
    assert 401 == ask(app, authorization=f"Bearer {TOKEN[:-1]}").status
    assert "paused" == json.loads(ask(app, "/pause", "POST", **BEARER).body)["state"]
    assert guarded.is_paused()


def test_whom_the_host_lets_in(guarded: ox_otel.Profiler, module: ModuleType, ask: Ask) -> None:
    """They need no token, but their browser may still not be sent by another site."""
    app = module.app(allow=lambda asked: asked.get("user") == "ada")
    ada, eve = {"user": "ada"}, {"user": "eve"}

    assert 401 == ask(app, said=eve).status
    assert 200 == ask(app, said=ada).status
    assert 200 == ask(app, said=eve, **BEARER).status
    for evil in ({"origin": "http://evil.example"}, {"sec_fetch_site": "cross-site"}):
        assert 403 == ask(app, "/pause", "POST", ada, **evil).status
    assert not guarded.is_paused()


async def no() -> bool:
    """Let in nobody, if anybody awaited it."""
    return False


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.parametrize(
    "made",
    [no, lambda: None, object, lambda: "yes", lambda: 1],
    ids=["coroutine", "nothing", "something", "text", "number"],
)
def test_only_true_lets_in(
    guarded: ox_otel.Profiler, module: ModuleType, ask: Ask, made: Callable[[], object]
) -> None:
    """What is merely something lets in nobody: a coroutine that would have said no, for one."""
    assert 401 == ask(module.app(allow=lambda _: made())).status


def test_what_the_host_raises_lets_nobody_in(
    guarded: ox_otel.Profiler, module: ModuleType, ask: Ask
) -> None:
    """It reaches the server, which tells its own log; scrapers, who need no leave, never meet it."""

    def broken(_: object) -> bool:
        raise LookupError

    app = module.app(allow=broken)
    with pytest.raises(LookupError):
        ask(app)
    assert 200 == ask(app, "/metrics").status


def test_without_metrics(guarded: ox_otel.Profiler, module: ModuleType, ask: Ask) -> None:
    """Where they are not wanted, they are not there, whoever asks."""
    app = module.app(metrics=False)

    assert 404 == ask(app, "/metrics", **BEARER).status
    assert 200 == ask(app, **BEARER).status


def test_nothing_is_installed(module: ModuleType, ask: Ask) -> None:
    """What is not there yet is a reason to come again, and none to fail; it may come later."""
    app = module.app()

    assert 503 == ask(app, "/metrics").status
    ox_otel.install()
    assert 200 == ask(app, "/metrics").status
    ox_otel.uninstall()


def test_the_head_of_an_answer(guarded: ox_otel.Profiler, module: ModuleType, ask: Ask) -> None:
    """HEAD gets the headers of a GET, the length of its body included, and no body."""
    answer = ask(module.app(), "/status", "HEAD", **BEARER)

    assert (200, b"") == (answer.status, answer.body)
    assert int(answer.headers["content-length"]) > 100
    assert "no-store" == answer.headers["cache-control"]
    # it has not been made, so nobody knows its length
    answer = ask(module.app(), "/profile", "HEAD", **BEARER)
    assert (200, False) == (answer.status, "content-length" in answer.headers)
