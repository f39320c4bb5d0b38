"""Pools of the standard library, with each way to start a process."""

import sys

import pytest


@pytest.mark.parametrize("pool", ["pool", "executor"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_every_worker_is_sampled_and_none_is_harmed(serve, prove, method, pool) -> None:
    """The processes of a pool are sampled, and so is the program that has it."""
    prove(serve(sys.executable, "-m", "pools", "{port}", pool, method), workers=2, idle=1)
