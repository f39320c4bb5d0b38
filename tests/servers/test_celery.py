"""Celery's prefork pool."""

import sys

import pytest

TASKS = (sys.executable, "-m", "tasks", "{port}", "worker", "--concurrency=2", "--loglevel=WARNING")


@pytest.mark.parametrize("options", [(), ("--max-tasks-per-child=20",)], ids=["kept", "recycled"])
def test_every_worker_is_sampled_and_none_is_harmed(serve, prove, options) -> None:
    """The processes of the pool are sampled, their master is not."""
    prove(serve(*TASKS, *options), workers=2)
