"""Profiles over HTTP: what the query of a request asks for, and how it is made."""

from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from ox_otel._capture import LONGEST, CaptureError, window
from ox_otel._graph import graph
from ox_otel._profiler import Profiler
from ox_otel._settings import ConfigError
from ox_otel.formats import FORMATS, Format
from ox_otel.profiles import TIMES, Profile


class View(NamedTuple):
    """A profile as it is asked for: *seconds* from now on, or since the start where that is None.

    Without a *time* it is the one that there is, CPU if there are all.
    """

    form: Format
    time: str | None
    seconds: float | None

    @property
    def headers(self) -> dict[str, str]:
        """The headers of an answer that has it."""
        name = f"{self.time or 'profile'}.{self.form.extension}"
        return {
            "Content-Type": self.form.content_type,
            "Content-Disposition": f'attachment; filename="{name}"',
        }

    def make(self, profiler: Profiler, gone: Callable[[], bool]) -> bytes:
        """Make it, which takes as long as it is asked for, unless whoever asked has *gone*.

        Raises:
            CaptureError: there is no such profile.
        """
        if self.seconds is None:
            profile = profiler.since_start()
        else:
            profile = profiler.capture(self.seconds, gone=gone)
        time = self.time or profile.times[0]
        if time not in profile.times:
            raise CaptureError(
                f"since the start there is only {profile.times[0]}, as OX_OTEL_TREE has it; "
                f"with seconds=N there are {', '.join(TIMES)}"
            )
        return self.form.write(profile, time)


def view(
    query: str,
    form: str | None = None,
    time: str | None = None,
    seconds: float | None = None,
    longest: float = LONGEST,
) -> View:
    """Return what *query* asks for; its format or time where they are not given, or the seconds.

    A capture may last *longest* seconds where it is asked for.

    Raises:
        ConfigError: something that is not accepted.
    """
    sent = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
    form = form or _one_of(FORMATS, "format", sent.get("format", "collapsed"))
    if time is None and "time" in sent:
        time = _one_of(TIMES, "time", sent["time"])
    if "seconds" in sent:
        seconds = window(sent["seconds"])
        if seconds > longest:
            raise ConfigError(
                f"seconds: {seconds:g} is not accepted here, where a thread of the server waits; "
                f"accepted: up to {longest:g}, and more by ASGI or by OX_OTEL_PORT"
            )
    elif seconds is not None:
        seconds = min(seconds, longest)
    return View(FORMATS[form], time, seconds)


def live(query: str, profiler: Profiler) -> dict[str, Any]:
    """Return status and wishes, and the graph of the last `seconds`, or of all since the start.

    Raises:
        ConfigError: so many seconds are not kept.
    """
    sent = parse_qs(query)
    if "seconds" in sent:
        shown = graph(profiler.recent(sent["seconds"][0]))
    else:
        counted = profiler.snapshot()
        try:
            tree = profiler.since_start(counted)
        except CaptureError:
            tree = Profile({}, 0.0, 0.0, 0.0, times=())
        shown = graph(tree, counted.functions)  # there are more in it than in the tree
    wishes = profiler.wishes()._asdict()
    return {"status": asdict(profiler.status()), "wishes": wishes, **shown}


def _one_of(known: Collection[str], what: str, value: str) -> str:
    if value not in known:
        raise ConfigError(
            f"{what}: {repr(value)[:100]} is not accepted; accepted: {', '.join(known)}"
        )
    return value
