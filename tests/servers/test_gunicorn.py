"""Gunicorn, with each class of workers."""

import sys

import pytest

GUNICORN = (sys.executable, "-m", "gunicorn", "--bind=127.0.0.1:{port}", "--workers=2")


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["each", "preload"])
@pytest.mark.parametrize(
    ("worker", "app"),
    [
        ("sync", "app:wsgi"),
        ("gthread", "app:wsgi"),
        ("gevent", "app:wsgi"),
        ("uvicorn_worker.UvicornWorker", "app:asgi"),
    ],
)
def test_every_worker_is_sampled_and_none_is_harmed(serve, prove, worker, app, preload) -> None:
    """Whether the workers load the app or their master does, they are sampled and it is not."""
    service = serve(*GUNICORN, f"--worker-class={worker}", "--threads=4", *preload, app)

    prove(service, workers=2)


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["each", "preload"])
def test_workers_may_be_replaced(serve, prove_recycled, preload) -> None:
    """A worker that ends after thirty requests is replaced by one that is sampled."""
    prove_recycled(serve(*GUNICORN, "--max-requests=30", *preload, "app:wsgi"))
