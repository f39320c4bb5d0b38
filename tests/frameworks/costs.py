"""Four routes of known cost, as applications of Flask, FastAPI and Django, and what they have cost.

`GET /truth` tells what the routes have really used, and what the profiler says of it.
"""

import asyncio
import json
import time
from collections import Counter
from threading import Lock

import ox_otel
from ox_otel import routes

COSTS = {"light": 0.01, "medium": 0.02, "heavy": 0.03, "split": 0.04}
"""CPU seconds of a request; a split one uses them in two parts."""

profiler = ox_otel.install()

truth: Counter[str] = Counter()
requests: Counter[str] = Counter()
lock = Lock()


def burn(route: str, seconds: float) -> None:
    """Use so many seconds of CPU for a request of *route*."""
    began = time.thread_time()
    while time.thread_time() < began + seconds:
        sum(range(200))
    with lock:
        truth[route] += time.thread_time() - began


def work(kind: str, route: str) -> str:
    """Answer a request of one *kind*."""
    burn(route, COSTS[kind] / 2)
    time.sleep(0.002)
    burn(route, COSTS[kind] / 2)
    with lock:
        requests[route] += 1
    return kind


async def work_async(kind: str, route: str) -> str:
    """Answer a request of one *kind*; others have their turns meanwhile."""
    burn(route, COSTS[kind] / 2)
    await asyncio.sleep(0.002)
    burn(route, COSTS[kind] / 2)
    requests[route] += 1
    return kind


def report() -> str:
    """Return what routes have cost, in truth and as the profiler has it."""
    told = profiler.snapshot().routes
    return json.dumps(
        {
            "engine": profiler.status().engine,
            "truth": truth,
            "requests": requests,
            "cpu": {route: usage.cpu_seconds for route, usage in told.items()},
            "counted": {route: usage.requests for route, usage in told.items()},
        }
    )


def flask_app():
    """Return the application for Flask."""
    import flask

    app = flask.Flask(__name__)
    app.wsgi_app = routes.Wsgi(app.wsgi_app)  # type: ignore[method-assign]
    for kind in COSTS:
        rule = f"/{kind}/<name>"
        app.add_url_rule(rule, kind, lambda name, kind=kind, rule=rule: work(kind, rule))
    app.add_url_rule("/truth", "truth", report)
    return app


def fastapi_app():
    """Return the application for FastAPI: two routes of coroutines, two of plain functions."""
    import fastapi
    from fastapi.responses import PlainTextResponse

    router = fastapi.APIRouter(prefix="/v1", default_response_class=PlainTextResponse)

    @router.get("/light/{name}")
    async def light(name: str) -> str:
        return await work_async("light", "/v1/light/{name}")

    @router.get("/medium/{name}")
    def medium(name: str) -> str:
        return work("medium", "/v1/medium/{name}")

    @router.get("/heavy/{name}")
    async def heavy(name: str) -> str:
        parts = (burn_soon("/v1/heavy/{name}", COSTS["heavy"] / 2) for _ in range(2))
        await asyncio.gather(*parts)
        requests["/v1/heavy/{name}"] += 1
        return "heavy"

    @router.get("/split/{name}")
    def split(name: str) -> str:
        return work("split", "/v1/split/{name}")

    app = fastapi.FastAPI()
    app.include_router(router)
    app.add_api_route("/truth", report, response_class=PlainTextResponse)

    @app.middleware("http")  # which runs all below in a task of its own
    async def pass_on(request, call_next):
        return await call_next(request)

    app.add_middleware(routes.Asgi)
    return app


async def burn_soon(route: str, seconds: float) -> None:
    """Use CPU after a turn of the others."""
    await asyncio.sleep(0)
    burn(route, seconds)


def django_app():
    """Return the application for Django."""
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path

    answers = {"truth": report}
    for kind in COSTS:
        rule = f"{kind}/<str:name>"
        answers[rule] = lambda kind=kind, rule=rule: work(kind, rule)
    settings.configure(
        ALLOWED_HOSTS=["*"],
        MIDDLEWARE=["ox_otel.routes.django"],
        ROOT_URLCONF=tuple(
            path(rule, lambda request, name="", answer=answer: HttpResponse(answer()))
            for rule, answer in answers.items()
        ),
    )
    return get_wsgi_application()
