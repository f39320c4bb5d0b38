"""Unchanged programs under `opentelemetry-instrument`: every process delivers, once."""

import subprocess
import sys

import pytest

GUNICORN = ("gunicorn", "--bind=127.0.0.1:{port}", "--workers=2")
ASGI = "--worker-class=uvicorn_worker.UvicornWorker"


def burned(export, app: str) -> float:
    """Return the CPU seconds that an export has for the function that burns."""
    return export.total("seconds", code_function_name=f"{app}.burn", state="cpu")


@pytest.mark.parametrize(
    ("app", "workers", "command"),
    [
        ("flask_app", 1, ("flask", "--app=flask_app", "run", "--port={port}")),
        ("flask_app", 2, (*GUNICORN, "flask_app:app")),
        ("flask_app", 2, (*GUNICORN, "--preload", "flask_app:app")),
        ("fastapi_app", 1, ("uvicorn", "--port={port}", "fastapi_app:app")),
        ("fastapi_app", 2, (*GUNICORN, "--preload", ASGI, "fastapi_app:app")),
    ],
    ids=["flask", "gunicorn-flask", "preload-flask", "uvicorn-fastapi", "preload-fastapi"],
)
def test_every_worker_delivers_once(  # noqa: PLR0913, PLR0917 - half of them are fixtures
    collector, serve, load, app, workers, command
) -> None:
    """An app that knows nothing of us has its functions' CPU in the collector, none of it twice."""
    service = serve(*command)
    with load(service.url, starting=True) as answers:
        collector.wait_for(
            lambda: workers == sum(burned(e, app) > 0.1 for e in collector.latest().values()),
            "every worker delivers",
        )
    assert service.stop() in (0, -15)

    latest = {key: export for key, export in collector.latest().items() if burned(export, app)}
    assert {"burned"} == {answer.strip('"') for answer in answers}
    assert workers == len(latest)
    for export in collector.exports:
        assert "shop" == export.resource["service.name"]
        export.assert_conserved()
    # a master may deliver while it starts, and is silent from its first fork on
    by_workers = [export.instance in latest for export in collector.exports]
    assert sorted(by_workers) == by_workers
    told = sum(burned(export, app) for export in latest.values())
    assert 0 < told <= 1.25 * 0.01 * len(answers)
    assert {f"{app}.burn", f"{app}.answer"} <= {
        point.attributes["code.function.name"]
        for export in latest.values()
        for point in export.points("hits")
    }
    assert [] == [line for line in service.log.read_text().splitlines() if "Traceback" in line]


def test_workers_may_be_replaced(collector, serve, load) -> None:
    """With delta temporality a worker forked late begins at nothing, too, and all add up."""
    service = serve(
        *(*GUNICORN, "--preload", "--max-requests=40", "flask_app:app"),
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
    )
    with load(service.url, starting=True) as answers:
        collector.wait_for(lambda: len(collector.latest()) >= 6, "three generations deliver")
    assert 0 == service.stop()

    for export in collector.exports:
        export.assert_conserved()
        assert [] == [point for point in export.points("seconds") if point.value < 0]
    told = sum(burned(export, "flask_app") for export in collector.exports)
    assert 0 < told <= 1.25 * 0.01 * len(answers)


def run(code: str, environ: dict[str, str], **more: str) -> tuple[str, str]:
    """Return what a program prints under `opentelemetry-instrument`, and what it logs."""
    done = subprocess.run(
        ["opentelemetry-instrument", sys.executable, "-c", code],
        env={**environ, **more},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert 0 == done.returncode
    return done.stdout, done.stderr


INSTALLED = """
import flask, opentelemetry.instrumentation.flask as instrumentation, ox_otel
print(ox_otel.get() is not None, issubclass(flask.Flask, instrumentation._InstrumentedFlask))
"""


@pytest.mark.parametrize(
    ("variable", "value", "state"),
    [
        ("OTEL_SERVICE_NAME", "shop", "True True"),
        ("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "requests, ox_otel", "False True"),
        ("OTEL_SDK_DISABLED", "true", "False True"),
    ],
)
def test_it_can_be_switched_off(environ, variable, value, state) -> None:
    """It starts by itself, and not where either of OpenTelemetry's own switches says so."""
    assert (f"{state}\n", "") == run(INSTALLED, environ, **{variable: value})


def test_what_is_wrong_harms_nobody(environ) -> None:
    """With a wrong setting of ours, all else is instrumented, and the log says what is accepted."""
    printed, log = run(INSTALLED, environ, OX_OTEL_INTERVAL="soon")
    assert "False True\n" == printed
    assert [True] == ["seconds from 0.001 to 60" in line for line in log.splitlines()]
