"""One recorder's deliveries: whatever it does, neither the host nor its neighbours notice."""

import logging

from ox_otel._fork import uncut
from ox_otel.recorders import Batch, Recorder

FIRST_RETRY = 1.0
LAST_RETRY = 60.0
"""Seconds until a recorder that failed is tried again; they double with each failure."""

_log = logging.getLogger("ox_otel")


class Delivery:
    """Hands batches to *recorder*; what it refuses is kept, merged, without the stacks."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._kept: Batch | None = None
        self._pause = 0.0
        self._retry_at = 0.0

    def deliver(self, batch: Batch, now: float) -> bool:
        """Hand over *batch* and what was kept; return False if the recorder failed just now."""
        if self._kept is not None:
            batch = self._kept.plus(batch)
        if now < self._retry_at:
            self._kept = batch
            return True
        try:
            with uncut:
                self.recorder.record(batch)
        except BaseException as error:  # a SystemExit of its own must not harm the others either
            self._kept = batch
            if not self._pause:  # once, not at every retry
                recorder, what = type(self.recorder).__qualname__, type(error).__name__
                _log.warning("ox_otel: recorder %s failed: %s", recorder, what)
            self._pause = min(max(2 * self._pause, FIRST_RETRY), LAST_RETRY)
            self._retry_at = now + self._pause
            return False
        self._kept = None
        self._pause = 0.0
        return True
