"""The page as files: served as they are, or as one file that holds all."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from ox_otel import Function, Profile, Usage
from ox_otel._page import FILES, content
from ox_otel.formats import FORMATS
from ox_otel.recorders import Stack

HOSTILE = "</script></style><img src=x onerror=alert(1)><!-- <script>\"&'"


def saved(*names: str) -> str:
    """Return the file for a profile in which functions of these names use a second each."""
    used = Usage(1, 1, 1.0, 0.0, 1.0, 0.0)
    stacks: dict[Stack, Usage] = {(Function("m", name),): used for name in names}
    return FORMATS["html"].write(Profile(stacks, 0.0, 10.0, 0.02), "cpu").decode()


class Elements(HTMLParser):
    """What a page is made of: its elements, what those of each name hold, and its links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.addresses: list[str | None] = []
        self.handlers: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        """Note what stands in an element."""
        self.text.setdefault(self.tags[-1] if self.tags else "", []).append(data)


def test_the_page_asks_only_for_what_is_served() -> None:
    """All addresses are relative, so that it works below any prefix, and are routes of ours."""
    page = Elements(content("page.html").decode())
    assert {"page.css", "page.js", "page.svg", "metrics", "status"} == {*page.addresses}
    assert {"/page.css", "/page.js", "/page.svg", "/"} == FILES.keys()
    script = content("page.js").decode()
    assert [] == re.findall(r"""["'`](?:/\w|https?:)[^"'`]*""", script)


def test_nothing_is_parsed_as_markup() -> None:
    """The script has none of the ways in which text becomes markup or code."""
    script = content("page.js").decode()
    ways = "innerHTML|outerHTML|insertAdjacentHTML|document.write|DOMParser|eval|Function\\("
    assert [] == re.findall(ways, script)
    assert [] == Elements(content("page.html").decode()).handlers


def test_one_file_asks_nobody() -> None:
    """The file has no address in it but that of an empty picture and those of links that are hidden."""
    page = Elements(saved("f"))
    assert {"data:,", "metrics", "status"} == {*page.addresses}
    assert "link" in page.tags
    assert 2 == page.tags.count("script")


def test_one_file_runs_its_own_script_alone() -> None:
    """Its policy names the script and the style in it by what they are, and forbids all else."""
    page = saved("f")
    found = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert found
    policy = dict(part.split(" ", 1) for part in found[1].split("; "))
    for what, tag in (("script-src", "script"), ("style-src", "style")):
        [inside] = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = b64encode(sha256(inside.encode()).digest()).decode()
        assert f"'sha256-{digest}'" == policy[what]
    assert "'none'" == policy["default-src"]
    assert {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"} == {
        *policy
    }


@pytest.mark.parametrize("name", [HOSTILE, "]]>", "\u2028", "é"])
def test_a_name_is_no_markup(name: str) -> None:
    """Whatever a function is called, the file has the same elements, and the name in its data."""
    page = saved(name)
    assert Elements(saved("f")).tags == Elements(page).tags
    [data] = re.findall('<script id="profile" type="application/json">(.*?)</script>', page)
    assert f"m.{name}" in json.loads(data)["names"]


def test_what_the_file_says_of_itself() -> None:
    """The data has the window and the time that it was asked for."""
    page = saved("f")
    [data] = re.findall('<script id="profile" type="application/json">(.*?)</script>', page)
    assert {"title": "10.0 s from 1970-01-01 00:00:00 UTC", "time": "cpu", "seconds": 10.0} == {
        name: json.loads(data)[name] for name in ("title", "time", "seconds")
    }
