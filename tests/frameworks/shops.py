"""Applications of the frameworks that people use, each with the profiler mounted under /ox_otel."""

import asyncio
import time

import fastapi
import flask
import prometheus_client
from flask_login import LoginManager, UserMixin, login_user
from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import ox_otel
import ox_otel.asgi
import ox_otel.wsgi
from ox_otel.flask import OX_PROF_BP

ox_otel.install()


class Slow:
    """A collector that holds up a scrape for as long as it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def describe(self) -> list[object]:
        """Name nothing."""
        return []

    def collect(self) -> list[object]:
        """Wait."""
        time.sleep(self.seconds)
        return []


slow = Slow()
prometheus_client.REGISTRY.register(slow)


class User(UserMixin):
    """A user, who is what they say they are."""

    def __init__(self, name: str) -> None:
        self.id = self.name = name


flask_app = flask.Flask("shop")
flask_app.config.update(SECRET_KEY="known", OX_PROF_USERS={"ada"})  # noqa: S106 - of a test
LoginManager(flask_app).user_loader(User)
flask_app.register_blueprint(OX_PROF_BP)
flask_app.wsgi_app = DispatcherMiddleware(flask_app.wsgi_app, {"/ox_otel": ox_otel.wsgi.app()})


@flask_app.get("/")
def index() -> str:
    """Answer a request."""
    return "shop"


@flask_app.get("/login/<name>")
def login(name: str) -> str:
    """Log somebody in."""
    return str(login_user(User(name)))


@flask_app.get("/items/<int:number>")
def item(number: int) -> str:
    """Use some CPU."""
    end = time.thread_time() + 0.02
    while time.thread_time() < end:
        sum(range(1000))
    return str(number)


fastapi_app = fastapi.FastAPI()
fastapi_app.mount("/ox_otel", ox_otel.asgi.app())


@fastapi_app.get("/")
async def home() -> str:
    """Answer a request."""
    return "shop"


@fastapi_app.get("/longest_gap")
async def longest_gap(seconds: float, held_up: float) -> float:
    """Return for how long the loop did not come round, while scrapes were held up."""
    slow.seconds = held_up
    loop = asyncio.get_running_loop()
    end, last, longest = loop.time() + seconds, loop.time(), 0.0
    while last < end:
        await asyncio.sleep(0.005)
        longest = max(longest, loop.time() - last)
        last = loop.time()
    slow.seconds = 0.0
    return longest


def is_ada(scope) -> bool:
    """Return whether the one who has logged in may see the profiler."""
    return scope["session"].get("user") == "ada"


async def log_in(request) -> PlainTextResponse:
    """Log somebody in."""
    request.session["user"] = request.path_params["name"]
    return PlainTextResponse("welcome")


starlette_app = Starlette(
    routes=[Route("/login/{name}", log_in), Mount("/ox_otel", ox_otel.asgi.app(allow=is_ada))]
)
starlette_app.add_middleware(SessionMiddleware, secret_key="known")  # noqa: S106 - of a test

bare_app = ox_otel.asgi.app()
