"""Our formats as the pages of others read them: Grafana's flame graph panel, and speedscope."""

import json
import re
from base64 import b64encode
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from ox_otel import Function, Profile, Usage
from ox_otel.formats import FORMATS

MAIN, PRICE = Function("shop", "main"), Function("shop.cart", "Cart.price")
SEARCH, SORT = Function("shop.search", "<lambda>"), Function("shop", "sort")


def used(cpu_seconds: float, wait_seconds: float = 0.0) -> Usage:
    """Return the usage of a stack."""
    return Usage(1, 1, cpu_seconds, wait_seconds, cpu_seconds, wait_seconds)


PROFILE = Profile(
    {
        (MAIN,): used(1.0, 3.0),
        (MAIN, PRICE): used(2.0),
        (MAIN, PRICE, SORT): used(3.0),
        (MAIN, SEARCH): used(1.5),
        (MAIN, SEARCH, SORT): used(0.5, 9.0),
        (SORT,): used(2.0),
    },
    1_700_000_000.0,
    10.0,
    0.02,
)
# of the CPU, in %: with all that a function called, and itself
SHARES = {
    "shop.main": (80.0, 10.0),
    "shop.cart.Cart.price": (50.0, 20.0),
    "shop.search.<lambda>": (20.0, 15.0),
    "shop.sort": (55.0, 55.0),
}


def test_grafana_draws_our_frame(draw: Callable[..., dict[str, Any]]) -> None:
    """Its panel takes the rows of `/flamegraph.json` as they are, and each bar has its share."""
    rows = json.loads(FORMATS["frame"].write(PROFILE, "cpu"))
    bars = draw("frame", rows=rows)
    assert 1.0 == bars["total"].share
    for label in SHARES.keys() - {"shop.sort"}:  # which is drawn three times
        assert pytest.approx(SHARES[label][0] / 100, abs=0.01) == bars[label].share


@pytest.mark.parametrize("name", ["speedscope", "collapsed", "pprof"])
def test_speedscope_imports(name: str, browse: Callable[[str, str], str], view: Path) -> None:
    """It knows each of these formats by itself, and finds each function with its shares."""
    form = FORMATS[name]
    content = b64encode(form.write(PROFILE, "cpu")).decode()
    script = view / f"speedscope-{name}.js"
    script.write_text(f'speedscope.loadFileFromBase64("cpu.{form.extension}", "{content}")')
    page = view / "node_modules" / "speedscope" / "dist" / "release" / "index.html"
    shown = browse(
        f"speedscope-{name}",
        f"{page.as_uri()}#view=sandwich&localProfilePath={str(script).lstrip('/')}",
    )
    cells = re.findall(
        r"<td[^>]*>[^<]*\(([^)]*)%\).*?<td[^>]*>[^<]*\(([^)]*)%\).*?</span>([^<]*)</td>", shown
    )
    found = {unescape(label): (float(total), float(own)) for total, own, label in cells}
    assert SHARES == found
