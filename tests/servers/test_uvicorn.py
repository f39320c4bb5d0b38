"""Uvicorn, with each event loop."""

import sys

import pytest

UVICORN = (sys.executable, "-m", "uvicorn", "--host=127.0.0.1", "--port={port}", "app:asgi")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_every_worker_is_sampled_and_none_is_harmed(serve, prove, loop) -> None:
    """Each worker is a process of its own that loads the app; the one above them does not."""
    prove(serve(*UVICORN, f"--loop={loop}", "--workers=2"), workers=2)


def test_a_single_process_is_sampled_and_not_harmed(serve, prove) -> None:
    """Without workers, the process that was started is sampled; it ends by the signal it got."""
    prove(serve(*UVICORN), workers=1, status=-15)
