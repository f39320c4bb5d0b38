"""A browser that needs no screen, and the pages of others that it shows.

The pages stand in the folder that `GRAFANA_VIEW` names; `make test-grafana` makes it first. The
pictures are to be found there afterwards.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PAGE = """<!doctype html>
<meta charset="utf-8">
<link rel="stylesheet" href="view.css">
<style>button { color: inherit }</style>
<body style="margin: 16px; font-family: sans-serif">
<div id="panel" style="height: 480px"></div>
<script id="drawn" type="application/json"></script>
<script id="asked" type="application/json">{asked}</script>
<script src="view.js"></script>
"""


class Bar(NamedTuple):
    """A bar of the graph as it was drawn: its share of the root's width, and its colour."""

    share: float
    color: str

    @property
    def redness(self) -> int:
        """How much more red than green there is, from -255 to 255."""
        red, green = (int(self.color[place : place + 2], 16) for place in (1, 3))
        return red - green


@pytest.fixture(scope="session")
def view() -> Path:
    """The folder of the pages."""
    return Path(os.environ["GRAFANA_VIEW"])


@pytest.fixture(scope="session")
def browse(chromium: str, view: Path) -> Callable[[str, str], str]:
    """What opens an address, takes a picture of that name, and returns what the page has become."""

    def browse(picture: str, address: str) -> str:
        browser = subprocess.run(
            [
                chromium,
                *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--allow-file-access-from-files", f"--user-data-dir={view / 'chromium'}"),
                *("--window-size=1400,330", "--virtual-time-budget=10000"),
                *(f"--screenshot={view / picture}.png", "--dump-dom", address),
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert browser.stdout, browser.stderr
        return browser.stdout

    return browse


@pytest.fixture(scope="session")
def draw(browse: Callable[[str, str], str], view: Path) -> Callable[..., dict[str, Bar]]:
    """What has Grafana's code draw what it is asked for, and returns the bars by function."""

    def draw(picture: str, **asked: Any) -> dict[str, Bar]:
        page = view / f"{picture}.html"
        page.write_text(PAGE.replace("{asked}", json.dumps(asked).replace("<", "\\u003c")))
        found = re.search(r'<script id="drawn"[^>]*>(.+?)</script>', browse(picture, page.as_uri()))
        assert found
        bars = json.loads(found[1])
        return {
            bar["text"].partition(" (")[0]: Bar(bar["width"] / bars[0]["width"], bar["color"])
            for bar in bars
            if "text" in bar
        }

    return draw
