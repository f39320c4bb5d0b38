"""The application that every server here runs, profiled, in the forms that they serve.

It burns CPU and waits, and a recorder of its own writes down, in a file for each process, what the
page of metrics of that process says: so every worker can be looked into, whoever answers requests.
"""

import asyncio
import json
import logging
import os
import time
from collections import defaultdict

from prometheus_client import REGISTRY

import ox_otel

FOLDER = os.environ["JOURNALS"]


logger = logging.getLogger("app")
logger.setLevel(logging.INFO)
logger.propagate = False
logger.addHandler(logging.NullHandler())


def burn(seconds: float = 0.01) -> None:
    """Use so many seconds of CPU."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(200))


class Journal:
    """Keeps one file a process, with the sums over what its page of metrics shows."""

    def record(self, batch: ox_otel.Batch) -> None:
        """Write the file anew."""
        sums: defaultdict[str, float] = defaultdict(float)
        for family in REGISTRY.collect():
            for sample in family.samples:
                sums[sample.name] += sample.value
                if sample.labels.get("state") == "cpu":
                    sums[f"cpu {sample.name}"] += sample.value
                    if sample.labels.get("function") == "burn":
                        sums[f"burn {sample.name}"] += sample.value
        sums["process_time"] = time.process_time()
        path = os.path.join(FOLDER, f"{os.getpid()}.json")
        with open(f"{path}.part", "w") as file:
            json.dump(sums, file)
        os.replace(f"{path}.part", path)


ox_otel.install(recorders=["prometheus", Journal()])


def wsgi(environ, start_response) -> list[bytes]:
    """Answer a request by WSGI."""
    logger.info("a request")  # by which a thread that was started in C makes itself known
    burn()
    time.sleep(0.005)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"burned"]


async def asgi(scope, receive, send) -> None:
    """Answer a request by ASGI."""
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": f"{event['type']}.complete"})
            if event["type"] == "lifespan.shutdown":
                return
    burn()
    await asyncio.sleep(0.005)
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"burned"})
