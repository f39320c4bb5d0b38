"""A browser that needs no screen, and services for it to look into."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 60
"""Seconds after which what has not come will not come, however busy the machine is."""

SHOP = Path(__file__).parents[2] / "examples" / "shop"

PICTURES = Path(os.environ.get("PICTURES", "pictures")).resolve()
"""Where pictures of the page are left, for people to look at."""


class Browser:
    """What people do with the page, and what they see."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(
        self, url: str, *, width: int = 1400, height: int = 900, scheme: str = "light"
    ) -> None:
        """Go to an address; the width is that of what is shown."""
        self.complaints()  # those about the page before
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        self.driver.get(url)

    def run(self, script: str, *arguments: object) -> Any:
        """Return what a script returns."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        """Return the element of this selector."""
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        """Return the elements of this selector."""
        return self.driver.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        """Return what an element says."""
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Return what the condition returns as soon as it holds."""
        return WebDriverWait(self.driver, PATIENCE, 0.1).until(lambda _: condition())

    def bars(self) -> list[dict[str, Any]]:
        """Return the bars of the flame graph as they are drawn."""
        found: list[dict[str, Any]] = self.run(
            """return [...document.querySelectorAll("#flame > div")].map((bar) => ({
              name: bar.ariaLabel.split(", ")[0],
              label: bar.textContent,
              width: bar.getBoundingClientRect().width,
              top: bar.getBoundingClientRect().top,
              kind: bar.className,
              selected: bar.ariaSelected,
            }))"""
        )
        return found

    def widths(self) -> dict[str, float]:
        """Return the width of each bar by name, as a part of the graph's."""
        bars = self.bars()
        return {bar["name"]: bar["width"] / bars[0]["width"] for bar in reversed(bars)}

    def click_bar(self, name: str) -> None:
        """Click on the bar of this name; one may have been drawn anew in the meantime."""
        clicked = """const bar = [...document.querySelectorAll("#flame > div")]
          .find((bar) => bar.ariaLabel.startsWith(arguments[0] + ","));
          bar?.click(); return Boolean(bar)"""
        self.wait(lambda: self.run(clicked, name))

    def click(self, selector: str) -> None:
        """Click on an element as a mouse does."""
        self.find(selector).click()

    def press(self, selector: str, *keys: str) -> None:
        """Press keys where the focus is, which is first moved to an element."""
        self.run("document.querySelector(arguments[0]).focus()", selector)
        self.driver.switch_to.active_element.send_keys(*keys)

    def rows(self) -> list[str]:
        """Return the functions in the table."""
        names: list[str] = self.run(
            'return [...document.querySelectorAll("tbody th")].map((cell) => cell.textContent)'
        )
        return names

    def picture(self, name: str) -> None:
        """Leave a picture of what is shown."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(PICTURES / f"{name}.png")

    def complaints(self) -> list[str]:
        """Return what the browser has complained of since the last call: errors, and violations."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="session")
def browser(
    installed: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    """A browser."""
    options = webdriver.ChromeOptions()
    options.binary_location = installed("chromium")
    folder = tmp_path_factory.mktemp("chromium")
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *("--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}"),
    ):
        options.add_argument(argument)
    downloads = {"download.default_directory": str(folder / "downloads")}
    options.add_experimental_option("prefs", downloads)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(installed("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


# A service that spends its time in functions of known shares and names; a line of input ends it.
SERVICE = """
import sys, threading
import ox_otel

def price():
    for _ in range(600_000): pass

def search():
    for _ in range(150_000): pass

def render():
    for _ in range(150_000): pass

hostile = search.__code__.replace(co_name="<img>", co_qualname="<img src=x onerror=document.title=1>")
hostile = type(search)(hostile, globals())

def handle():
    price()
    search()
    render()
    hostile()

def rest(seconds):
    threading.Event().wait(seconds)

def serve():
    while True:
        handle()
        rest(0.02)

def idle():  # on a busy machine who serves may wait longer for a core than in a rest
    while True:
        rest(1)

profiler = ox_otel.install(max_overhead=1)
threading.Thread(target=serve, daemon=True).start()
threading.Thread(target=idle, daemon=True).start()
if not profiler.url:  # an application of its own serves it, below a prefix, to whoever comes
    from ox_otel.wsgi import app
    from werkzeug.exceptions import NotFound
    from werkzeug.middleware.dispatcher import DispatcherMiddleware
    from werkzeug.serving import make_server
    mounted = DispatcherMiddleware(NotFound(), {"/inner/profile": app(allow=lambda _: True)})
    server = make_server("127.0.0.1", 0, mounted, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
print(profiler.url or f"http://127.0.0.1:{server.port}/inner/profile", flush=True)
sys.stdin.readline()
"""


class Process:
    """A running service, at the address of its profiler."""

    def __init__(self, script: Path, **environ: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, script],
            env=os.environ | {"OX_OTEL_PORT": "0"} | environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip() + "/"

    def end(self) -> None:
        """Have it end, and wait for it."""
        if self._process.poll() is None:
            self._process.communicate("\n", timeout=PATIENCE)


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the service."""
    path = tmp_path_factory.mktemp("service") / "shop.py"
    path.write_text(SERVICE)
    return path


@pytest.fixture
def start(browser: Browser, script: Path) -> Iterator[Callable[..., Process]]:
    """What starts a service with these variables in its environment."""
    started = []

    def begin(**environ: str) -> Process:
        started.append(Process(script, **environ))
        return started[-1]

    yield begin
    browser.driver.get("about:blank")  # it has nothing to complain of when they end
    for process in started:
        process.end()


@pytest.fixture
def shop(browser: Browser, free_port: Callable[[], int]) -> Iterator[str]:
    """The shop of the demo under load; the address of the profiler in it."""
    ports = free_port(), free_port()
    url, profiler = (f"http://127.0.0.1:{port}/" for port in ports)
    processes = [
        subprocess.Popen(
            [sys.executable, SHOP / "service.py", f"--port={ports[0]}"],
            env=os.environ | {"OX_OTEL_PORT": str(ports[1])},
        )
    ]
    try:
        deadline = time.monotonic() + PATIENCE
        while processes[0].poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"{url}truth", timeout=10):
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        processes.append(subprocess.Popen([sys.executable, SHOP / "load.py", url]))
        yield profiler
        browser.driver.get("about:blank")  # it has nothing to complain of when they end
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(PATIENCE)


@pytest.fixture(scope="session")
def service(script: Path) -> Iterator[Process]:
    """A service that all tests may look into."""
    process = Process(script)
    time.sleep(1)
    yield process
    process.end()
