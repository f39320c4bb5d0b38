"""A FastAPI app, profiled: run it, then look at http://127.0.0.1:8000/ox_otel/metrics.

pip install ox-otel fastapi uvicorn
OX_OTEL_TOKEN=$(openssl rand -hex 16) uvicorn fastapi_app:app

What is mounted is served to whoever reaches the app, so all but the metrics needs the token:
curl -H "Authorization: Bearer $OX_OTEL_TOKEN" http://127.0.0.1:8000/ox_otel/status
"""

from fastapi import FastAPI

import ox_otel
import ox_otel.asgi

app = FastAPI()
ox_otel.install()
app.mount("/ox_otel", ox_otel.asgi.app())


@app.get("/")
def index() -> int:
    """Use some CPU."""
    return sum(number % 7 for number in range(200_000))
