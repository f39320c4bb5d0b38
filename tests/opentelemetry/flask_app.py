"""A Flask app that knows nothing of us, nor of OpenTelemetry."""

import time

from flask import Flask

app = Flask(__name__)


def burn(seconds: float = 0.01) -> None:
    """Use so many seconds of CPU."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(200))


@app.get("/")
def answer() -> str:
    """Answer a request."""
    burn()
    return "burned"
