"""Routes from OpenTelemetry: a span of a server begins and ends with its request.

Nothing is imported here: whoever traces has loaded the SDK. It calls a span processor on the
thread, and in the context, that a span begins or ends in; of spans that are not recorded it says
nothing.
"""

import sys
from typing import Any
from weakref import WeakSet

from ox_otel._accounts import Account, Template, at_hand
from ox_otel._books import books
from ox_otel._fork import follow_forks
from ox_otel._tag import begin, end
from ox_otel.recorders import Batch

MOST_OPEN = 10_000
"""Spans that may be under way; of others no account is opened."""


class Spans:
    """A span processor: opens an account with each span of a server, and closes it with the span.

    Where a request has an account already, it is named as the span has it. What a middleware of
    ours counts in place of the span does not count again when the span ends.
    """

    def __init__(self) -> None:
        self._begin()
        follow_forks(self._begin)

    def _begin(self) -> None:
        """Begin with nothing: in a forked child, too, since what is under way is its parent's."""
        self._open: dict[int, Account] = {}

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Open an account if the span is a server's."""
        if getattr(span.kind, "name", "") != "SERVER" or len(self._open) >= MOST_OPEN:
            return
        outer = at_hand.get()
        if outer is None or not outer.is_open or outer.books is not books():
            account = begin(_unknown)
            if account is not None:
                self._open[_number(span)] = account

    def _on_ending(self, span: Any) -> None:
        """Do nothing: the SDK calls this, too."""

    def on_end(self, span: Any) -> None:
        """Close the account of a span."""
        if getattr(span.kind, "name", "") != "SERVER":
            return
        route = (span.attributes or {}).get("http.route")
        account, at_end = self._open.pop(_number(span), None), at_hand.get()
        if account is None:
            if at_end is not None and at_end.route() is None:
                at_end.template = lambda: route
            return
        account.template = lambda: route
        if at_end is account:
            end(account)
        else:  # in another context, which is not ours to change
            account.books.close_account(account)

    def shutdown(self) -> None:
        """Do nothing: nothing is kept here."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Do nothing, successfully."""
        return True


def begin_instead(template: Template) -> Account | None:
    """Open an account as `begin` does, in place of the one that the request has from its span.

    That one goes on in no other way: it may be lost on its loop already, and end late.
    """
    account = at_hand.get()
    if account is not None and account.template is _unknown:
        account.books.cancel_account(account)
    return begin(template)


def _unknown() -> None:
    return None


def _number(span: Any) -> int:
    number: int = span.get_span_context().span_id
    return number


_spans = Spans()
_followed: WeakSet[Any] = WeakSet()


class SpanFollower:
    """A recorder that takes nothing: about once a second it looks for somebody who traces."""

    def record(self, batch: Batch) -> None:
        """Have the SDK's tracer provider tell of its spans, as soon as there is one."""
        # what `get_tracer_provider` returns, which would make one if there was none
        provider: Any = getattr(sys.modules.get("opentelemetry.trace"), "_TRACER_PROVIDER", None)
        if hasattr(provider, "add_span_processor") and provider not in _followed:
            _followed.add(provider)
            if not _is_concurrent(provider):
                provider.add_span_processor(_spans)


def _is_concurrent(provider: Any) -> bool:
    """Return whether it calls span processors on threads of its own, where no request is at hand."""
    processor = getattr(provider, "_active_span_processor", None)
    return type(processor).__name__ == "ConcurrentMultiSpanProcessor"
