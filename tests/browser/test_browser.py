"""The page as people use it, in a real browser, which may not complain of anything.

`make test-browser` runs this. It leaves pictures in the folder that `PICTURES` names.
"""

import json
import os
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

TOKEN = "0123456789abcdef"  # noqa: S105
HOSTILE = "__main__.<img src=x onerror=document.title=1>"
HOT = ("__main__.price", "__main__.search", HOSTILE)
TOTAL, SERVE, PRICE, REST = "total", "__main__.serve", "__main__.price", "__main__.rest"


@pytest.fixture(autouse=True)
def _no_complaints(browser) -> Iterator[None]:
    """Fail a test in which the browser had anything to complain of: errors, violations of policy."""
    browser.complaints()
    yield
    assert [] == browser.complaints()


@pytest.fixture
def page(browser, service):
    """The page of the service, as soon as it shows where the time goes."""
    browser.open(service.url)
    browser.wait(lambda: browser.rows()[:1] == [PRICE] and PRICE in browser.widths())
    return browser


def ask(url: str) -> dict:
    """Return what a route answers."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def choose(browser, name: str, value: str) -> None:
    """Choose one of several by its label, as a mouse does."""
    browser.run("arguments[0].click()", browser.find(f"input[name={name}][value='{value}']"))


def test_where_the_time_goes(page) -> None:
    """The table names the hottest function first, and the graph has it as wide as it is hot."""
    page.wait(lambda: "running" == page.text("#state"))
    assert re.search(r"cost\d+\.\d\d % of a core", page.text("#facts"))
    assert re.search(r"samples[\d,]+", page.text("#facts"))
    # 4 parts of 7, less what a busy machine leaves without a place
    page.wait(lambda: 0.2 < page.widths()[PRICE] < 0.75)
    page.wait(lambda: PRICE == max(HOT, key=page.widths().__getitem__))
    widths = page.widths()
    assert 1 == widths[TOTAL]
    assert widths[SERVE] > 0.9
    assert re.search(r"Flame graph: \d.* CPU in \d.* = \d\.\d\d cores", page.text("#flames-title"))


def test_the_shop_of_the_demo(browser, shop: str) -> None:
    """What people see first: the shop under load, its hottest functions on top."""
    browser.open(shop, width=1400, height=760)
    browser.wait(lambda: re.search(r"in 1\d\.\d s", browser.text("#flames-title")))
    # what a noisy machine lets go unplaced may come before them
    assert {"shop.recommend", "shop.price_basket"} <= {*browser.rows()[:6]}
    assert "shop.recommend" in browser.widths()
    browser.picture("page")


def test_live_without_reload(page) -> None:
    """What is shown changes as the process goes on."""
    before = page.text("#facts")
    page.run("window.marked = true")
    page.wait(lambda: page.text("#facts") != before)
    assert page.run("return window.marked")


def test_zoom(page) -> None:
    """A click makes a function as wide as the graph, with its callers above; the button undoes it."""
    page.click_bar("__main__.handle")
    page.wait(lambda: page.widths()["__main__.handle"] > 0.99)
    kinds = {bar["name"]: bar["kind"] for bar in page.bars()}
    assert "above" in kinds[TOTAL]
    assert "above" not in kinds[PRICE]
    page.click_bar(PRICE)
    page.wait(lambda: page.widths()[PRICE] > 0.99)
    assert "__main__.search" not in page.widths()
    page.click("#out")
    page.wait(lambda: page.widths()[PRICE] < 0.9)
    assert not page.find("#out").is_displayed()


def test_by_keyboard_alone(page) -> None:
    """Tab reaches the graph, arrows walk in it, and the function they stand on is told."""
    page.run("document.querySelector('#functions .scroll').focus()")
    for _ in range(100):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        if "flame" == page.driver.switch_to.active_element.get_attribute("id"):
            break
    steps = [TOTAL, "threading.Thread._bootstrap"]
    page.click("#hold")
    page.press("#flame", Keys.HOME)
    for name in steps:
        assert name == told(page)
        page.press("#flame", Keys.ARROW_DOWN)
    while told(page) != PRICE:
        before = told(page)
        page.press("#flame", Keys.ARROW_DOWN)
        assert before != told(page)
    assert re.search(r"inclusive .* \(.*%\)self .*", page.text("#details"))
    page.press("#flame", Keys.ARROW_RIGHT)
    assert "__main__.render" == told(page)
    page.press("#flame", Keys.ARROW_LEFT, Keys.ARROW_UP)
    assert "__main__.handle" == told(page)
    page.press("#flame", Keys.ARROW_DOWN, Keys.ENTER)
    assert page.widths()[PRICE] > 0.99
    page.press("#flame", Keys.ESCAPE)
    assert page.widths()[PRICE] < 0.99
    assert TOTAL == told(page)


def told(browser) -> str:
    """Return the function that the keys stand on, as a screen reader and the page tell it."""
    shown = str(browser.text("#details span"))
    label = browser.run(
        "const flame = document.getElementById('flame');"
        "const bar = document.getElementById(flame.getAttribute('aria-activedescendant'));"
        "return bar.ariaSelected === 'true' && bar.ariaLabel"
    )
    assert label.startswith(f"{shown}, ")
    return shown


def test_search(page) -> None:
    """What is searched for stays in the table, stands out in the graph, and its share is told."""
    page.find("#search input").send_keys("PRICE")
    page.wait(lambda: [PRICE] == page.rows())
    kinds = {bar["name"]: bar["kind"] for bar in page.bars()}
    assert ("match", "other") == (kinds[PRICE], kinds[SERVE])
    share = float(re.search(r"“price”: ([\d.]+) % of all", page.text("#found"))[1])
    assert pytest.approx(page.widths()[PRICE], abs=0.05) == share / 100
    page.find("#search input").send_keys(Keys.BACKSPACE * 5 + "nowhere")
    page.wait(lambda: not page.rows())
    assert "no function is called so" == page.text("#left-out")


def test_a_function_of_the_table_is_shown_in_the_graph(page) -> None:
    """A click on a function searches for it; another one ends that."""
    page.run("document.querySelector('tbody button').click()")
    page.wait(lambda: [PRICE] == [bar["name"] for bar in page.bars() if "match" in bar["kind"]])
    page.run("document.querySelector('tbody button').click()")
    page.wait(lambda: not [bar for bar in page.bars() if "match" in bar["kind"]])


def test_sort(page) -> None:
    """A click on the head of a column sorts by it, another one the other way round."""
    page.click("thead button[value=inclusive]")
    assert page.rows()[0] != PRICE
    assert "descending" == page.find("thead th:nth-child(3)").get_attribute("aria-sort")
    page.click("thead button[value=name]")
    assert max(page.rows(), key=str.lower) == page.rows()[-1]
    page.click("thead button[value=name]")
    assert "descending" == page.find("thead th:nth-child(1)").get_attribute("aria-sort")
    page.click("thead button[value=self]")
    page.wait(lambda: PRICE == page.rows()[0])


def test_other_times(page) -> None:
    """What waits is hot by waiting, more than what burns; by wall both are there."""
    choose(page, "time", "wait")
    page.wait(lambda: "waiting" in page.text("#flames-title"))
    page.wait(lambda: page.widths().get(REST, 0.0) > page.widths().get(PRICE, 0.0))
    choose(page, "time", "wall")
    page.wait(lambda: "CPU and waiting" in page.text("#flames-title"))
    assert {REST, PRICE} <= page.widths().keys()


def test_other_windows(page) -> None:
    """A minute, and all since the start, where the graph is of the time that the tree has."""
    choose(page, "window", "60")
    assert "Capture the next minute:" == page.text("#capture")
    page.wait(lambda: PRICE in page.widths())
    choose(page, "window", "")
    assert "Save all since the start:" == page.text("#capture")
    page.wait(lambda: PRICE in page.widths())
    choose(page, "time", "wait")
    page.wait(lambda: [] == page.bars())
    assert "" == page.text("#details")
    assert "since the start, there is a tree of cpu alone" == page.run(
        "return document.getElementById('flame').dataset.empty"
    )
    page.wait(lambda: REST in page.rows())


def test_hold(page) -> None:
    """What is shown stays as it is while it is held, and the status goes on."""
    page.click("#hold")
    assert "true" == page.find("#hold").get_attribute("aria-pressed")
    page.wait(lambda: page.text("#flames-title"))
    title, before = page.text("#flames-title"), samples(page)
    page.wait(lambda: samples(page) > before)
    assert title == page.text("#flames-title")
    page.click("#hold")
    page.wait(lambda: page.text("#flames-title") != title)


def samples(browser) -> int:
    """Return how many samples the page says that there are."""
    return int(re.search(r"samples([\d,]+)", browser.text("#facts"))[1].replace(",", ""))


def test_a_name_is_text(page) -> None:
    """A function that is called like markup is shown by its name, and nothing else happens."""
    page.wait(lambda: HOSTILE in page.rows() and HOSTILE in page.widths())
    page.click_bar(HOSTILE)
    page.wait(lambda: HOSTILE == page.text("#details span"))
    page.run("document.querySelector('tbody tr:nth-child(2) button').click()")
    assert [] == page.all("img")
    assert "ox_otel" == page.driver.title


def test_control(browser, start) -> None:
    """The buttons pause and unpause the process, and set its interval; the page says so."""
    service = start()
    browser.open(service.url)
    browser.wait(lambda: PRICE in browser.widths())
    browser.click("#pause")
    browser.wait(lambda: "paused" == browser.text("#state"))
    assert "paused" == ask(f"{service.url}status")["state"]
    assert "Unpause" == browser.text("#pause")
    assert PRICE in browser.widths()  # the last that was seen
    browser.wait(lambda: re.search(r"last sample\d.* ago", browser.text("#facts")))
    browser.click("#pause")
    browser.wait(lambda: "running" == browser.text("#state"))
    assert "running" == ask(f"{service.url}status")["state"]

    field = browser.find("#interval input")
    assert "0.02" == field.get_attribute("value")
    field.send_keys(Keys.BACKSPACE * 4, "0.25", Keys.ENTER)
    browser.wait(lambda: "interval0.25 s" in browser.text("#facts"))
    assert 0.25 == ask(f"{service.url}status")["interval"]
    browser.run("document.getElementById('interval').noValidate = true")
    field.send_keys(Keys.BACKSPACE * 4, "77", Keys.ENTER)
    browser.wait(lambda: "accepted: seconds from 0.001 to 60" in browser.text("#notice"))
    assert ["400 (Bad Request)"] == re.findall(r"\d+ \(.*\)", " ".join(browser.complaints()))
    assert 0.25 == ask(f"{service.url}status")["interval"]


def test_a_token_is_asked_for(browser, start) -> None:
    """Where there is a token, the page asks for it, and keeps it in memory alone."""
    service = start(OX_OTEL_TOKEN=TOKEN)
    browser.open(service.url)
    browser.wait(lambda: browser.find("#entry").is_displayed())
    assert [] == browser.bars()
    browser.find("#entry input").send_keys("x" * 16, Keys.ENTER)
    browser.wait(lambda: "" == browser.find("#entry input").get_attribute("value"))
    browser.wait(lambda: browser.find("#entry").is_displayed())
    browser.find("#entry input").send_keys(TOKEN, Keys.ENTER)
    browser.wait(lambda: PRICE in browser.widths())
    assert not browser.find("#entry").is_displayed()
    browser.click("#pause")
    browser.wait(lambda: "paused" == browser.text("#state"))
    kept = browser.run(
        "return JSON.stringify([location, localStorage, sessionStorage, document.cookie])"
    )
    assert TOKEN not in kept
    browser.driver.refresh()
    browser.wait(lambda: browser.find("#entry").is_displayed())
    refused = [line for line in browser.complaints() if "401 (Unauthorized)" not in line]
    assert [] == refused


def test_below_a_prefix(browser, start) -> None:
    """An application that mounts us anywhere has the page there, with all that it does."""
    service = start(OX_OTEL_PORT="")
    browser.open(service.url.rstrip("/"))
    browser.wait(lambda: PRICE in browser.widths())
    assert service.url == browser.driver.current_url
    browser.click("#pause")
    browser.wait(lambda: "paused" == browser.text("#state"))


def test_a_process_that_goes_and_comes(browser, start) -> None:
    """The page says that it has lost the process, keeps the last that it saw, and finds the next."""
    service = start()
    browser.open(service.url)
    browser.wait(lambda: PRICE in browser.widths())
    service.end()
    browser.wait(lambda: browser.text("#state").startswith("connection lost"))
    assert PRICE in browser.widths()
    port = re.search(r":(\d+)/", service.url)[1]
    start(OX_OTEL_PORT=port)
    browser.wait(lambda: "running" == browser.text("#state"))
    assert [] == [line for line in browser.complaints() if "ERR_CONNECTION" not in line]


def downloaded(browser, folder: Path) -> bytes:
    """Return the next file that the browser has saved, and remove it."""
    [path] = browser.wait(
        lambda: [path for path in folder.glob("*") if path.suffix != ".crdownload"]
    )
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.fixture
def folder(browser, tmp_path: Path) -> Path:
    """Where the browser saves files."""
    browser.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    return tmp_path


def test_downloads(page, folder: Path) -> None:
    """Each button saves the profile in its format: of the window chosen, captured from now on."""
    choose(page, "window", "")
    beginnings = {
        "pprof": b"\x1f\x8b",
        "speedscope": b"{",
        "html": b"<!doctype html>",
    }
    for name, beginning in beginnings.items():
        page.click(f"#downloads button[value={name}]")
        assert downloaded(page, folder).startswith(beginning)
    choose(page, "window", "10")
    page.click("#downloads button[value=collapsed]")
    page.wait(lambda: "capturing 10 s for collapsed …" == page.text("#notice"))
    assert re.search(rb"(?m)^\S+;__main__\.handle;__main__\.price \d+$", downloaded(page, folder))
    page.wait(lambda: not page.find("#notice").is_displayed())


@pytest.fixture(scope="module")
def saved(service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile saved as one file."""
    url = f"{service.url}profile?format=html&time=wall&seconds=3"
    with urllib.request.urlopen(url, timeout=60) as answer:
        path = tmp_path_factory.mktemp("saved") / "profile.html"
        path.write_bytes(answer.read())
    return path


def test_one_file(browser, saved: Path) -> None:
    """The file that was saved shows the same, by itself: graph, table, zoom, search, other times."""
    browser.open(saved.as_uri())
    by_wall = browser.widths()
    assert {REST, PRICE, HOSTILE} <= by_wall.keys()
    assert re.match(r"3\.\d s from 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC", browser.text("#state"))
    assert not [one for one in browser.all(".live") if one.is_displayed()]
    choose(browser, "time", "cpu")
    assert by_wall != browser.widths()
    browser.click_bar(PRICE)
    assert browser.widths()[PRICE] > 0.99
    browser.find("#search input").send_keys("search")
    assert ["__main__.search"] == browser.rows()
    assert [] == browser.all("img")
    browser.picture("file")


SIZES = {"light": (1400, 800, "light"), "dark": (1400, 800, "dark"), "narrow": (400, 900, "light")}


@pytest.mark.parametrize("size", SIZES)
def test_accessible(browser, service, size: str) -> None:
    """A checker of accessibility finds no fault, in light, in the dark and on a narrow screen."""
    width, height, scheme = SIZES[size]
    browser.open(service.url, width=width, height=height, scheme=scheme)
    browser.wait(lambda: PRICE in browser.widths())
    browser.picture(size)
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (scheme == "dark") == (max(map(int, re.findall(r"\d+", ground))) < 60)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    for choice in ("", "price"):
        browser.find("#search input").send_keys(choice)
        browser.run(Path(os.environ["AXE"]).read_text())
        faults = browser.driver.execute_async_script(
            "axe.run(document, {resultTypes: ['violations', 'incomplete']}).then(arguments[0])"
        )
        assert [] == [
            (fault["id"], [node["html"] + node["failureSummary"] for node in fault["nodes"]])
            for fault in faults["violations"]
        ]


@pytest.mark.parametrize("width", [320, 700, 1000, 1400, 2200])
def test_any_width(browser, service, width: int) -> None:
    """Nothing is wider than the screen, whatever its width, and bars stay within the graph."""
    browser.open(service.url, width=width)
    browser.wait(lambda: PRICE in browser.widths())
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert 1 == max(browser.widths().values())


def test_a_process_that_is_slow_is_asked_rarely(page) -> None:
    """An answer that takes long is not asked for again before nine times as long."""
    page.run(
        """const { fetch } = window;
        window.asked = [];
        window.fetch = async (...request) => {
          asked.push(performance.now());
          await new Promise((resolve) => setTimeout(resolve, 300));
          return fetch(...request);
        };"""
    )
    page.wait(lambda: page.run("return asked.length") >= 3)
    first, second, third, *_ = page.run("return asked")
    assert min(second - first, third - second) > 2900


def test_a_page_that_is_hidden_asks_for_nothing(page, service) -> None:
    """When nobody looks, nothing is asked: the process may forget what it keeps for the page."""
    asked = "return performance.getEntriesByType('resource').length"
    page.driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": False})
    page.run("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")

    def is_still() -> bool:
        before = page.run(asked)
        time.sleep(2)
        return bool(before == page.run(asked))

    page.wait(is_still)  # a question that was asked before is answered when it can be
    before = page.run(asked)
    time.sleep(3)
    assert before == page.run(asked)
    page.run("Object.defineProperty(document, 'hidden', {value: false})")
    page.wait(lambda: page.run(asked) > before)
