"""Answers requests by what workers do for it that take no requests themselves."""

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def serve(port: int, work: Callable[[], str]) -> None:
    """Answer each request by what *work* returns, until SIGTERM."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = work().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, *_: object) -> None:
            """Be silent."""

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server, suppress(SystemExit):
        server.serve_forever()
