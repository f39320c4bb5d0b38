"""Profile each gunicorn worker: gunicorn --config gunicorn.conf.py flask_app:app.

Each worker has an endpoint of its own, at the first port that is free: let Prometheus scrape them
all, and every worker is an instance of its own.
"""

import ox_otel

bind = "127.0.0.1:8000"
workers = 2


def post_fork(server, worker) -> None:
    """Start the profiler in the worker; the master, which only forks, is not profiled."""
    ox_otel.install(port="9464-9495")
