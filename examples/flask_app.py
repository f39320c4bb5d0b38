"""A Flask app, profiled: run it, then look at http://127.0.0.1:5000/metrics.

pip install ox-otel flask
flask --app flask_app run
"""

from flask import Flask, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

import ox_otel

app = Flask(__name__)
ox_otel.install()


@app.get("/")
def index() -> str:
    """Use some CPU."""
    return str(sum(number % 7 for number in range(200_000)))


@app.get("/metrics")
def metrics() -> Response:
    """Show all metrics of the process; an app that has this route already needs nothing else."""
    return Response(generate_latest(), content_type=CONTENT_TYPE_LATEST)
