"""What the host's log is told: that something is wrong, and at most once a minute what."""

import logging
import time
from contextlib import suppress

SECONDS_BETWEEN = 60.0
"""Between two lines of the same kind; what else happens in between is counted, see the metrics."""

_log = logging.getLogger("ox_otel")
_told: dict[str, float] = {}  # kinds of lines, which are as many as our code has, and when


def warn(message: str, *values: object) -> None:
    """Log a warning, unless one with this very *message*, whatever its values, was just logged."""
    now = time.monotonic()
    if now - _told.get(message, -SECONDS_BETWEEN) >= SECONDS_BETWEEN:
        _told[message] = now
        with suppress(Exception):  # a handler is the host's, and need not be in order
            _log.warning(message, *values)
