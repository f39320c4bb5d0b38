"""A shop as a web service, profiled by two lines: `import ox_otel` and `ox_otel.install()`.

    python examples/shop/service.py --port 8000
    curl http://127.0.0.1:8000/metrics

The profile stands on the /metrics page that the app has anyway, and on the profiler's own endpoint
too when OX_OTEL_PORT is set. /truth is what the shop itself knows about where its time went.
"""

import argparse
import dataclasses
import logging
import time
from typing import Any

import flask
import prometheus_client
import shop
import truth
from werkzeug.serving import make_server

import ox_otel

app = flask.Flask(__name__)


@app.get("/recommend/<int:customer>")
def recommend(customer: int) -> dict[str, int]:
    """Pure Python."""
    return {"customer": shop.recommend(customer)}


@app.get("/basket/<int:first>")
def basket(first: int) -> dict[str, float]:
    """Pure Python."""
    return {"price": shop.price_basket(first, 130_000)}


@app.get("/cheapest")
def cheapest() -> list[shop.Product]:
    """C code that holds the GIL: one call, tens of milliseconds long."""
    return shop.cheapest()


@app.get("/reviews")
def reviews() -> dict[str, int]:
    """C code that holds the GIL."""
    return {"praise": shop.search_reviews()}


@app.get("/best-sellers")
def best_sellers() -> list[tuple[int, int]]:
    """A database: C code that lets go of the GIL."""
    return shop.best_sellers()


@app.get("/checkout/<int:first>")
def checkout(first: int) -> dict[str, str]:
    """A little Python, then a wait."""
    return {"receipt": shop.pay(shop.price_basket(first, 500))}


@app.get("/metrics")
def metrics() -> flask.Response:
    """What Prometheus scrapes: the registry of the app, with the profile in it."""
    return flask.Response(
        prometheus_client.generate_latest(), content_type=prometheus_client.CONTENT_TYPE_LATEST
    )


@app.get("/truth")
def own_accounts() -> dict[str, Any]:
    """Seconds per function as the shop accounts for them, and the CPU of the whole process."""
    return {
        "process_cpu_seconds": time.process_time(),
        "functions": {name: dataclasses.asdict(own) for name, own in truth.accounts.items()},
    }


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threaded", action="store_true", help="one thread for each request")
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # no line per request
    ox_otel.install()
    make_server(options.host, options.port, app, threaded=options.threaded).serve_forever()


if __name__ == "__main__":
    main()
