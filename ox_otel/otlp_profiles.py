"""The recorder that sends profiles over OTLP (experimental, as that signal is).

Once a minute, the calling-context tree of that minute goes to the collector that the variables of
OpenTelemetry's SDK name. A collector that does not take it is asked ever more rarely; meanwhile the
minutes add up to one profile, of bounded size.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic

from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import (
    ExportProfilesServiceResponse as _Response,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import get_tracer_provider

from ox_otel._clock import since_epoch
from ox_otel._collector import Collector, Refused
from ox_otel._fork import follow_forks
from ox_otel._notices import warn
from ox_otel._otlp import Window, encode
from ox_otel._profiler import Profiler
from ox_otel._pruning import Pruning
from ox_otel.recorders import Batch, Node

PERIOD = 60.0
"""Seconds from one profile to the next."""

LAST_PAUSE = 3600.0
"""Seconds that a collector which does not take profiles is left alone at the most; they double."""

MAX_NODES = 5_000
"""Nodes of the tree in one profile; what others use counts for the nearest above."""


class OtlpProfilesRecorder:
    """Sends what *profiler* finds, a tree of the *time* so called, to the collector of *environ*.

    The last profile goes when the profiler ends, within the second that `cancel` waits, but not to
    a collector that has refused the one before.

    Raises:
        ValueError: a variable is wrong, there is no tree, or opentelemetry-proto is of a version
            whose profiles are others.
    """

    def __init__(
        self, profiler: Profiler, time: str, environ: Mapping[str, str] = os.environ
    ) -> None:
        if time == "off":
            raise ValueError("there is no tree to send, as OX_OTEL_TREE is off")
        self._profiler = profiler
        self._time = time
        self._collector = Collector(environ)
        self._own_resource = Resource.create()
        self._begin()
        try:
            self._encode(self._began)
        except Exception as error:
            raise ValueError(f"opentelemetry-proto has other profiles: {error}") from error
        follow_forks(self._begin)

    def _begin(self) -> None:
        """Begin with nothing: in a forked child, too, since the figures are its parent's."""
        self._pause = 0.0
        self._begin_window(monotonic())
        self._due = self._began + PERIOD

    def _begin_window(self, now: float) -> None:
        self._tree: dict[Node, int] = {}
        self._pruning = Pruning(1, MAX_NODES)
        self._began = now

    def record(self, batch: Batch) -> None:
        """Add *batch* to the profile, and send this if it is time: it may wait for the collector."""
        for node, nanoseconds in self._pruning.prune(Batch(tree=batch.tree)).tree.items():
            self._tree[node] = self._tree.get(node, 0) + nanoseconds
        now = monotonic()
        is_last = self._profiler.status().state == "stopped"
        if now >= self._due or (is_last and not self._pause):
            self._send(now)

    def _send(self, now: float) -> None:
        """Send what there is; what is not taken is kept."""
        retry_after = 0.0
        try:
            if any(self._tree.values()):
                self._check(self._collector.post(self._encode(now)))
        except Exception as error:
            retry_after = error.retry_after if isinstance(error, Refused) else 0.0
            said = str(error) if isinstance(error, Refused) else type(error).__name__
            warn("ox_otel: no profiles for the collector at %s: %s", self._collector.address, said)
            self._profiler.count_error("recorder")
            self._pause = 2 * max(self._pause, PERIOD)
        else:
            self._pause = 0.0
            self._begin_window(now)
        self._due = now + min(max(self._pause, retry_after, PERIOD), LAST_PAUSE)

    def _encode(self, now: float) -> bytes:
        seconds = now - self._began
        window = Window(since_epoch() - seconds, seconds)
        interval = self._profiler.status().interval
        return encode(self._tree, self._time, interval, window, self._resource().attributes)

    def _resource(self) -> Resource:
        """Return the resource that the host's traces have, or the one that the variables name."""
        resource = getattr(get_tracer_provider(), "resource", None)
        return resource if isinstance(resource, Resource) else self._own_resource

    def _check(self, answer: bytes) -> None:
        """Tell of what the collector has taken only in part; it must not be sent again."""
        rejected = 0
        with suppress(Exception):  # an answer that says nothing is not a refusal either
            rejected = _Response.FromString(answer).partial_success.rejected_profiles
        if rejected:
            warn("ox_otel: the collector at %s rejected a profile", self._collector.address)
            self._profiler.count_error("recorder")
