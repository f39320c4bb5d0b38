"""What a request for a profile asks for."""

import pytest

from ox_otel import CaptureError, ConfigError, Profiler, Settings
from ox_otel._views import View, view
from ox_otel.formats import FORMATS


def never() -> bool:
    """Whoever asked waits."""
    return False


def test_what_is_asked_for() -> None:
    """Format, time and seconds come from the query; what is not there is left open."""
    assert View(FORMATS["collapsed"], None, None) == view("")
    assert View(FORMATS["pprof"], "wait", 2.5) == view("format=pprof&time=wait&seconds=2.5")
    assert View(FORMATS["speedscope"], None, None) == view("format=speedscope&other=1")


def test_what_a_route_decides() -> None:
    """Where a route has a format and a time, the query changes neither; seconds it may."""
    fixed = ("pprof", "cpu", 30.0)
    assert View(FORMATS["pprof"], "cpu", 30.0) == view("", *fixed)
    assert View(FORMATS["pprof"], "cpu", 5.0) == view("seconds=5&format=html&time=wall", *fixed)


def test_where_captures_are_short() -> None:
    """What a route has by default is cut; what is asked for is refused, with where to ask for it."""
    assert 10.0 == view("", "pprof", "cpu", 30.0, 10.0).seconds
    assert 10.0 == view("seconds=10", longest=10.0).seconds
    assert view("", longest=10.0).seconds is None
    with pytest.raises(ConfigError, match=r"up to 10, and more by ASGI or by OX_OTEL_PORT"):
        view("seconds=10.1", longest=10.0)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("format=x", f"format: 'x' is not accepted; accepted: {', '.join(FORMATS)}"),
        ("format=", "format: '' is not accepted"),
        ("time=hits", "time: 'hits' is not accepted; accepted: cpu, wait, wall"),
        ("time=", "time: '' is not accepted"),
        ("seconds=", "seconds: '' is not accepted; accepted: a number from 0.1 to 300"),
        ("seconds=nan", "seconds: 'nan' is not accepted"),
        ("seconds=301", "seconds: '301' is not accepted"),
        (f"time={'x' * 1000}", "time: 'xxx"),
    ],
)
def test_what_is_not_accepted(query: str, message: str) -> None:
    """The error names what was asked for, in brief, and what is accepted."""
    with pytest.raises(ConfigError) as caught:
        view(query)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 250


def test_since_the_start_there_is_one_time() -> None:
    """It is the tree's; another one is refused, and not made up."""
    for tree, other in (("cpu", "wall"), ("wall", "cpu")):
        profiler = Profiler(Settings(tree=tree))
        for time in (None, tree):
            assert b"" == View(FORMATS["collapsed"], time, None).make(profiler, never)
        for time in (other, "wait"):
            with pytest.raises(CaptureError, match=f"only {tree}, as OX_OTEL_TREE has it"):
                View(FORMATS["collapsed"], time, None).make(profiler, never)


def test_a_file_to_download() -> None:
    """Its name says what it is."""
    headers = view("format=pprof&time=wall").headers
    assert 'attachment; filename="wall.pb.gz"' == headers["Content-Disposition"]
    assert "application/octet-stream" == headers["Content-Type"]
    assert 'filename="profile.collapsed.txt"' in view("").headers["Content-Disposition"]
