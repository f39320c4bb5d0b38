"""Formats: pure functions from a profile, and the time it is looked at by, to bytes."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ox_otel.formats import collapsed, frame, html, pprof, speedscope
from ox_otel.profiles import Profile


class Format(NamedTuple):
    """A format: how it is called by who serves it, and *write*, which makes it.

    *write* takes a profile and one of its times.
    """

    content_type: str
    extension: str
    write: Callable[[Profile, str], bytes]


FORMATS: Mapping[str, Format] = {
    "collapsed": Format("text/plain; charset=utf-8", "collapsed.txt", collapsed.write),
    "speedscope": Format("application/json", "speedscope.json", speedscope.write),
    "pprof": Format("application/octet-stream", "pb.gz", pprof.write),
    "html": Format("text/html; charset=utf-8", "html", html.write),
    "frame": Format("application/json", "frame.json", frame.write),
}
"""The formats by the names that requests give them."""
