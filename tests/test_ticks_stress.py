"""The ticks under stress: no crash, no hang, no wrong name, hardly a torn stack."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("TICKS_STRESS_SECONDS", "20"))
"""On each Python; `make ticks-stress` takes half an hour."""


@pytest.mark.skipif(sys.platform != "linux", reason="ticks are of Linux")
def test_nothing_harms_or_misleads_the_ticks() -> None:
    """A program that does its worst ends well, and every name that was seen is a true one."""
    program = Path(__file__).with_name("ticks_stress.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(program), str(SECONDS)],
        capture_output=True,
        text=True,
        timeout=SECONDS + 200,
    )

    assert (0, "") == (done.returncode, done.stderr)
    found = json.loads(done.stdout)
    print(found)
    assert ("ticks", "") == (found["engine"], found["reason"])
    assert [] == found["wrong"]
    assert found["whole"] > 5 * SECONDS
    assert found["still"] > 5 * SECONDS
    assert found.get("torn", 0) <= 0.01 * found["whole"]
