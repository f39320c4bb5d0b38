"""CPU as most code uses it: seldom looking at the clock."""

import time


def burn(cpu_seconds: float) -> None:
    """Use so many seconds of CPU, in Python.

    To look at the clock all the time would have the kernel, on a busy machine, end the thread's turn
    before its own clock beats, and what meets no beat has no ticks.
    """
    until = time.thread_time() + cpu_seconds
    steps = 1000
    while (now := time.thread_time()) < until:
        for _ in range(steps):
            pass
        steps_a_second = steps / (time.thread_time() - now)
        steps = max(int((until - time.thread_time()) / 2 * steps_a_second), 1000)
