"""Celery's prefork pool."""

import sys

TASKS = (sys.executable, "-m", "tasks", "{port}", "worker", "--concurrency=2", "--loglevel=WARNING")


def test_every_worker_is_sampled_and_none_is_harmed(serve, prove) -> None:
    """The processes of the pool are sampled, their master is not."""
    prove(serve(*TASKS), workers=2, stop_seconds=20)


def test_workers_may_be_replaced(serve, prove_recycled) -> None:
    """A process of the pool that ends after twenty tasks is replaced by one that is sampled."""
    # without us, too, it takes six seconds to end such a pool
    prove_recycled(serve(*TASKS, "--max-tasks-per-child=20"), stop_seconds=20)
