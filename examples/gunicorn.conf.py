"""Profile each gunicorn worker: gunicorn --config gunicorn.conf.py flask_app:app.

Each worker has an endpoint of its own, on the port after its neighbour's: let Prometheus scrape
them all, 9464 and up, and every worker is an instance of its own.
"""

import ox_otel

FIRST_PORT = 9464

bind = "127.0.0.1:8000"
workers = 2


def pre_fork(server, worker) -> None:
    """Choose the worker's port, in the master, which knows the other workers."""
    taken = {other.ox_otel_port for other in server.WORKERS.values()}
    worker.ox_otel_port = next(port for port in range(FIRST_PORT, 65536) if port not in taken)


def post_fork(server, worker) -> None:
    """Start the profiler in the worker; the master, which only forks, is not profiled."""
    ox_otel.install(port=worker.ox_otel_port)
