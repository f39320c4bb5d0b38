"""The start without code: what `opentelemetry-instrument` calls, as far as no SDK is needed."""

import os
import subprocess
import sys

import pytest

PREAMBLE = """
import sys
sys.modules["opentelemetry"] = None  # nothing of it is needed, but by the recorder
import ox_otel
from ox_otel.instrumentation import OxOtelInstrumentor
OxOtelInstrumentor().instrument(skip_dep_check=True)
profiler = ox_otel.get()
print(profiler and (profiler.status().state, [type(one).__name__ for one, _ in profiler._recorders][:1]))
OxOtelInstrumentor().uninstrument()
print(ox_otel.get())
"""


def run(code: str = PREAMBLE, *arguments: str, **environ: str) -> tuple[list[str], str]:
    """Return what *code* prints, by lines, and what it logs."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert 0 == done.returncode
    return done.stdout.splitlines(), done.stderr


def test_it_starts_with_the_recorder_for_opentelemetry() -> None:
    """By itself it publishes where OpenTelemetry does, and can be taken away again."""
    code = PREAMBLE.replace('sys.modules["opentelemetry"] = None', "")
    assert (["('running', ['OtelRecorder'])", "None"], "") == run(code)


def test_other_recorders_may_be_chosen() -> None:
    """The variable for recorders, and all others, are heard."""
    chosen = run(OX_OTEL_RECORDERS="prometheus", OX_OTEL_START_PAUSED="true")
    assert (["('paused', ['PrometheusRecorder'])", "None"], "") == chosen


@pytest.mark.parametrize(
    ("variable", "value", "left"),
    [("OTEL_SDK_DISABLED", " True", "None"), ("OX_OTEL_ENABLED", "false", "('stopped', [])")],
)
def test_it_can_be_switched_off(variable: str, value: str, left: str) -> None:
    """Nothing runs where the SDK is disabled, or we are."""
    assert ([left, "None"], "") == run(**{"OX_OTEL_RECORDERS": "prometheus", variable: value})


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OX_OTEL_INTERVAL", "soon", "OX_OTEL_INTERVAL (argument interval): 'soon'"),
        ("OX_OTEL_RECORDERS", "otel", "'otel' cannot be had"),
    ],
)
def test_it_never_raises(variable: str, value: str, said: str) -> None:
    """What is wrong is logged in a line, and the program goes on without us."""
    lines, log = run(**{"OX_OTEL_RECORDERS": "prometheus", variable: value})
    assert ["None", "None"] == lines
    assert 1 == len(log.splitlines())
    assert f"ox_otel: not profiled: {said}" in log.replace(
        "OX_OTEL_RECORDERS (argument recorders): ", ""
    )


def test_a_helper_of_multiprocessing_is_left_alone() -> None:
    """The process that keeps books for `multiprocessing` starts as any other, and works for nobody."""
    helper = "from multiprocessing.resource_tracker import main"
    assert (["None", "None"], "") == run(PREAMBLE, helper, OX_OTEL_RECORDERS="prometheus")
