"""Real servers for the tests here: Prometheus and VictoriaMetrics, on loopback and a free port."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

# long, and asked for by name: make soak, and once in make test-all
collect_ignore = [] if "SOAK_SECONDS" in os.environ else ["test_soak.py"]
collect_ignore += [] if "GRAFANA_VIEW" in os.environ else ["grafana"]  # make test-grafana

DEPLOYED = Path(__file__).parents[2] / "deploy" / "prometheus" / "prometheus.yml"

Installed = Callable[[str], str]

Series = list[tuple[dict[str, str], float]]
"""What a query answers: (labels, value) for each series."""


class Store:
    """A running server that scrapes targets, and answers PromQL about what it has scraped."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], config: Path, log: Path) -> None:
        self.url = url
        self._process = process
        self._config = config
        self._log = log

    def log(self) -> str:
        """Return what the server has logged."""
        return self._log.read_text()

    def scrape(self, *targets: str, every: float = 1.0, **labels: dict[str, str]) -> None:
        """Scrape these targets, `host:port`, from now on; return once all have been, or fail.

        Each of *labels* is the values that targets have of it. The rest of the configuration is
        that of `deploy/prometheus`. Servers take seconds to take up a configuration: give all
        targets at once.
        """
        self.begin_to_scrape(*targets, every=every, **labels)
        for target in targets:
            self.wait_for(f'up{{instance="{target}"}} == 1', timeout=60)

    def begin_to_scrape(self, *targets: str, every: float = 1.0, **labels: dict[str, str]) -> None:
        """Have these targets scraped soon; return at once."""
        config = yaml.safe_load(DEPLOYED.read_text())
        del config["rule_files"]  # they have tests of their own; VictoriaMetrics refuses the key
        config["global"]["scrape_interval"] = f"{round(every * 1000)}ms"
        [job] = config["scrape_configs"]
        job["static_configs"] = [
            {
                "targets": [target],
                "labels": {name: values[target] for name, values in labels.items()},
            }
            for target in targets
        ]
        self._config.write_text(yaml.safe_dump(config))
        self._process.send_signal(signal.SIGHUP)  # both servers read their configuration anew

    def query(self, expr: str) -> Series:
        """Evaluate the expression now; fail if the server does not accept it."""
        return [(series["metric"], float(series["value"][1])) for series in self.vector(expr)]

    def vector(self, expr: str, **parameters: float) -> list[dict[str, Any]]:
        """Return the answer to a query as the server has it; *parameters* may be the `time`."""
        answer: list[dict[str, Any]] = self._get("/api/v1/query", query=expr, **parameters)[
            "result"
        ]
        return answer

    def query_range(self, expr: str, seconds: float, step: float = 1.0) -> Series:
        """Evaluate the expression at each step of the last seconds; return all of the values."""
        end = time.time()
        answer = self._get(
            "/api/v1/query_range", query=expr, start=end - seconds, end=end, step=step
        )
        return [
            (series["metric"], float(value))
            for series in answer["result"]
            for _, value in series["values"]
        ]

    def exemplars(self, expr: str) -> list[tuple[dict[str, str], list[dict[str, Any]]]]:
        """Return the exemplars stored for what the expression selects: labels, exemplars."""
        answer = self._get("/api/v1/query_exemplars", query=expr, start=0, end=time.time() + 60)
        return [(series["seriesLabels"], series["exemplars"]) for series in answer]

    def wait_for(self, expr: str, timeout: float = 60) -> Series:
        """Return the answer to the query as soon as it is not empty; fail after `timeout` s."""
        deadline = time.monotonic() + timeout
        while not (series := self.query(expr)):
            if time.monotonic() > deadline:
                pytest.fail(f"{self.url}: no data after {timeout} s for {expr}\n{self.log()}")
            time.sleep(0.2)
        return series

    def _get(self, path: str, **parameters: str | float) -> Any:
        form = urllib.parse.urlencode(parameters).encode()
        try:
            with urllib.request.urlopen(self.url + path, data=form, timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{parameters['query']}\n{error.read().decode()}")


@contextmanager
def running(
    command: Callable[[str, Path, Path], list[str]], port: int, health: str, folder: Path
) -> Iterator[Store]:
    """Run a server while the block runs; `command` takes its address, configuration and data."""
    config, log = folder / "prometheus.yml", folder / "log"
    config.write_text("scrape_configs: []\n")
    address = f"127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(address, config, folder / "data"),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_until_healthy(f"http://{address}{health}", process, log)
        yield Store(f"http://{address}", process, config, log)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        print(log.read_text())  # which pytest shows if a test failed


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the address answers; fail if the process ends before, or after 90 seconds."""
    deadline = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(url, timeout=10).close()
        except OSError as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # "not ready yet" is an answer too
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(
                    f"{url} does not answer, exit status {process.poll()}\n{log.read_text()}"
                )
            time.sleep(0.1)
        else:
            return


@pytest.fixture(scope="session")
def promtool(installed: Installed) -> str:
    """Prometheus' own checker of configurations and rules."""
    return installed("promtool")


@pytest.fixture(scope="module")
def prometheus(
    installed: Installed, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """A Prometheus that scrapes nothing yet."""
    program = installed("prometheus")

    def command(address: str, config: Path, data: Path) -> list[str]:
        return [
            program,
            f"--web.listen-address={address}",
            f"--config.file={config}",
            f"--storage.tsdb.path={data}",
            "--scrape.discovery-reload-interval=1s",  # take up new targets soon, not after 5 s
            "--enable-feature=exemplar-storage",
        ]

    folder = tmp_path_factory.mktemp("prometheus")
    with running(command, free_port(), "/-/ready", folder) as store:
        yield store


@pytest.fixture(scope="module")
def victoria_metrics(
    installed: Installed, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """A VictoriaMetrics that scrapes nothing yet."""
    program = installed("victoria-metrics")

    def command(address: str, config: Path, data: Path) -> list[str]:
        return [
            program,
            f"-httpListenAddr={address}",
            f"-promscrape.config={config}",
            f"-storageDataPath={data}",
            "-search.latencyOffset=0s",  # answer about what was scraped this second
        ]

    folder = tmp_path_factory.mktemp("victoria-metrics")
    with running(command, free_port(), "/health", folder) as store:
        yield store


@pytest.fixture(scope="session")
def chromium(installed: Installed) -> str:
    """A browser that needs no screen."""
    return installed("chromium")
