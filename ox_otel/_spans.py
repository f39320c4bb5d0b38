"""Whose work was it? The span of OpenTelemetry that is current on a thread that is seen.

Nothing is hooked for that: the thread's own context is asked, as code that runs there would ask it,
by OpenTelemetry's API. So it is the span of the very task or greenlet that runs, and a span that was
only started, and never made current, is none. Of spans nothing is kept but numbers.

To see the context of another thread needs an extension, which not every installation has: without it
no span is known.
"""

import sys
import time
from contextvars import Context
from typing import NamedTuple

try:
    from ox_otel._context import context_of
except ImportError:

    def context_of(_ident: int, /) -> Context | None:
        """Return None: no context can be seen."""
        return None


class Span(NamedTuple):
    """A span that is sampled, by its numbers, and when it was seen, on the monotonic clock."""

    trace_id: int
    span_id: int
    seen_at: float


def is_traced() -> bool:
    """Return whether anybody here makes spans."""
    return "opentelemetry.sdk.trace" in sys.modules


def span_of(ident: int) -> Span | None:
    """Return the sampled span that is current on the thread *ident*, None where none is.

    Runs no code but OpenTelemetry's own: a span of somebody else's class is not asked.
    """
    tracing = sys.modules.get("opentelemetry.trace")  # who traces has imported it
    current_span = getattr(tracing, "get_current_span", None)
    if current_span is None or (context := context_of(ident)) is None:
        return None
    span = context.copy().run(current_span)  # itself it is entered, on its own thread
    if not type(span).__module__.startswith("opentelemetry."):
        return None
    found = span.get_span_context()
    if not (found.is_valid and found.trace_flags.sampled):
        return None
    return Span(found.trace_id, found.span_id, time.monotonic())
