"""The application in the processes of a pool: pools.py PORT POOL METHOD."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import app


def work() -> str:
    """Do what a request does."""
    app.burn()
    return "burned"


if __name__ == "__main__":
    import front

    _, port, pool, method = sys.argv
    context = multiprocessing.get_context(method)
    if pool == "executor":
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            front.serve(int(port), lambda: executor.submit(work).result())
    else:
        with context.Pool(2) as processes:
            front.serve(int(port), lambda: processes.apply(work))
