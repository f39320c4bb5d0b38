"""The host's log is told what is wrong, but never flooded, and cannot strike back."""

import logging

import pytest

from ox_otel import _notices
from ox_otel._notices import SECONDS_BETWEEN, warn


def test_a_thousand_faults_make_a_line_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the same kind of thing goes wrong, a line a minute says so; others are told."""
    now = 0.0
    monkeypatch.setattr(_notices.time, "monotonic", lambda: now)
    for second in range(1000):
        now = 1000.0 + second * 3 * SECONDS_BETWEEN / 1000
        warn("recorder %s failed", second)
        warn("no endpoint at %s", second)

    lines = ["recorder 0 failed", "no endpoint at 0"]
    assert [*lines, *(line.replace("0", "334") for line in lines)] == caplog.messages[:4]
    assert 2 * 3 == len(caplog.messages)


def test_a_handler_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler of the host that raises stops nothing of ours."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("out of order")

    handler, logger = Broken(), logging.getLogger("ox_otel")
    logger.addHandler(handler)
    try:
        with pytest.raises(RuntimeError):
            logger.warning("this one fails")
        warn("this one does not")
    finally:
        logger.removeHandler(handler)
