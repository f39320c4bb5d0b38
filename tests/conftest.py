"""What holds for every test: it finds nothing of ours in the process, and leaves nothing."""

import os
import sys
from collections.abc import Iterator

import hypothesis
import pytest
from prometheus_client import REGISTRY

import ox_otel
from ox_otel import _notices
from ox_otel._native import own_idents

# what programs of the tests write to stderr is compared, on old releases of Python too
os.environ.setdefault("PYTHONWARNINGS", "ignore:ox_otel:RuntimeWarning")

# what a noisy machine takes for an example says nothing about it
hypothesis.settings.register_profile("ox_otel", deadline=None)
hypothesis.settings.load_profile("ox_otel")


@pytest.fixture(autouse=True)
def _no_traces() -> Iterator[None]:
    """Fail a test that leaves a profiler, thread or collector, or touches the switch interval."""
    switch_interval = sys.getswitchinterval()
    _notices._told.clear()  # what an earlier test has had logged is news to this one
    assert [] == _traces()
    yield
    found = _traces()
    ox_otel.uninstall()  # so that only the test at fault fails
    assert [] == found
    assert switch_interval == sys.getswitchinterval()


def _traces() -> list[object]:
    """Return what there is of ours in this process."""
    return [
        *filter(None, [ox_otel.get()]),
        *own_idents,
        *(name for name in REGISTRY._names_to_collectors if name.startswith("ox_profile")),
    ]
