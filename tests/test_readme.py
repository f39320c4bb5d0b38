"""The README tells the truth: its code runs, its tables are those of the code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ox_otel._engines import PROVEN
from ox_otel._metrics import METRICS
from ox_otel._settings import table

README = (Path(__file__).parent.parent / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_every_snippet_runs(snippet: str) -> None:
    """Each piece of Python in the README runs by itself, without a word of complaint."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", snippet],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)


def test_there_are_snippets() -> None:
    """The expression that finds the snippets finds them."""
    assert 6 == len(SNIPPETS)


def test_the_table_of_settings_is_that_of_the_code() -> None:
    """What the README says of the settings is what the settings say of themselves."""
    found = re.search(r"<!-- settings -->\n(.*?)\n<!-- /settings -->", README, re.DOTALL)

    assert table() == found[1]


def test_the_versions_on_which_ticks_are_proven_are_those_of_the_code() -> None:
    """What the README says that `auto` takes is what it takes."""
    found = re.search(r"<!-- proven -->(.*?)<!-- /proven -->", README)
    proven = [f"{major}.{minor}" for major, minor in PROVEN]

    assert ", ".join(proven) == found[1]


def test_the_table_of_metrics_names_them_all() -> None:
    """No metric is published that the README does not name, and the other way round."""
    named = set(re.findall(r"`(ox_profile_\w+)`", README))

    assert {
        f"ox_profile_{metric.name}" + ("_total" if metric.kind == "counter" else "")
        for metric in METRICS
    } | {"ox_profile_wakeup_delay_seconds"} == named
