"""The dashboards against what they are made for: a profiled program, scraped by real servers."""

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.store

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))

PROGRAM = """
import sys, threading, time
import ox_otel

def burn_first(until):
    while time.monotonic() < until:
        for _ in range(10_000): pass  # seen to run however busy the machine is

def burn_then(until):
    while time.monotonic() < until:
        for _ in range(10_000): pass

def take_turns():
    while True:
        burn_first(time.monotonic() + 4.5)
        burn_then(time.monotonic() + 2.5)

def wait():
    while True:
        with ox_otel.tag(route="/wait"):
            time.sleep(0.05)

profiler = ox_otel.install(port=int(sys.argv[1]))
print("serving", flush=True)
threading.Thread(target=wait, daemon=True).start()
take_turns()
"""

# What Grafana puts in place of the variables; the program has run for longer than the range.
VARIABLES = {
    "$__rate_interval": "4s",
    "$__range": "21s",
    "$job": "ox_otel",
    "$instance": ".+",
    "$module": ".*",
    "$function": ".*",
    "$top": "5",
    "$before": "9s",
    "$version": ".*",
    "$baseline": ".*",
}
DAYS = re.compile(r"(?<=offset )\d+d")
"""Offsets that dashboards have for good; no server here is as old."""


def substituted(expr: str, **variables: str) -> str:
    """Return the query as Grafana would send it."""
    values = VARIABLES | {f"${name}": value for name, value in variables.items()}
    recent = DAYS.sub(values["$before"], expr)
    return re.sub(r"\$\w+", lambda variable: values[variable[0]], recent)


def queries() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each query of each panel, with a name for it."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.stem}: {panel['title']}: {target['refId']}", target


QUERIES = dict(queries())
each_query = pytest.mark.parametrize("target", QUERIES.values(), ids=QUERIES)


@pytest.fixture(scope="module")
def profiled(
    free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Address of a profiled program in which two functions take turns to burn CPU, and one waits."""
    script = tmp_path_factory.mktemp("profiled") / "program.py"
    script.write_text(PROGRAM)
    port = free_port()
    command = [sys.executable, script, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert "serving\n" == program.stdout.readline()  # lest the first scrape fails
        yield f"127.0.0.1:{port}"
        program.terminate()


@pytest.fixture(scope="module")
def stores(prometheus: Any, victoria_metrics: Any, profiled: str) -> dict[str, Any]:
    """Both servers, scraping the profiled program at the same time."""
    stores = {"prometheus": prometheus, "victoria_metrics": victoria_metrics}
    for server in stores.values():
        server.begin_to_scrape(profiled)
    return stores


@pytest.fixture(scope="module", params=["prometheus", "victoria_metrics"])
def store(request: pytest.FixtureRequest, stores: dict[str, Any]) -> Any:
    """A server that has scraped the profiled program for as long as the dashboard looks back."""
    server = stores[request.param]
    server.wait_for("count_over_time(ox_profile_samples_total[1m]) > 22", timeout=120)
    return server


@each_query
def test_query_returns_data(store: Any, target: dict[str, Any]) -> None:
    """Each query of each panel answers with numbers, a healthy program's errors with zeros."""
    expr = substituted(target["expr"])
    series = store.query(expr) if target.get("instant") else store.query_range(expr, seconds=5)
    assert series
    assert [] == [labels for labels, value in series if not math.isfinite(value)]


@each_query
def test_legend_names_labels_that_the_answer_has(store: Any, target: dict[str, Any]) -> None:
    """A legend is filled from labels of the series, so that no two lines look the same."""
    wanted = set(re.findall(r"{{(\w+)}}", target.get("legendFormat", "")))
    assert [] == [
        labels
        for labels, _ in store.query(substituted(target["expr"]))
        if not wanted <= set(labels)
    ]


def test_functions_are_chosen_once_for_the_whole_graph(store: Any) -> None:
    """A graph of the first function is one line, though another one is first from time to time."""
    expr = QUERIES["overview: CPU by function: self: A"]["expr"]
    shown = store.query_range(substituted(expr, top="1"), seconds=10)
    assert {"burn_first"} == {labels["function"] for labels, _ in shown}


def test_share_of_nothing_is_zero(store: Any) -> None:
    """While no CPU is unplaced its share is 0 for each process, which is not the same as no data."""
    expr = QUERIES["health: CPU under __unplaced__: A"]["expr"]
    shares = store.query(substituted(expr).replace("__unplaced__", "no such function"))
    assert [0.0] == [value for _, value in shares]


def test_what_a_graph_shows_adds_up_to_what_was_observed(store: Any) -> None:
    """The lines of a stacked graph, everything else included, are all of the CPU observed."""
    lines = QUERIES["overview: CPU by function: self: A"]["expr"]
    rest = QUERIES["overview: CPU by function: self: B"]["expr"]
    observed = QUERIES["overview: CPU: A"]["expr"]
    deadline = time.monotonic() + 30  # for a while a rate of a new series may be off
    while True:
        # in one query, lest a scrape comes between them
        [(_, difference)] = store.query(
            substituted(f"sum({lines}) + sum({rest}) - sum({observed})", top="1")
        )
        if abs(difference) < 1e-6 or time.monotonic() > deadline:
            break
        time.sleep(1)
    assert pytest.approx(0, abs=1e-6) == difference


def test_queries_parse(promtool: str, tmp_path: Path) -> None:
    """Prometheus' own parser accepts each query."""
    rules = [
        {"record": f"query:{number}", "expr": substituted(target["expr"])}
        for number, target in enumerate(QUERIES.values())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    check = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True)
    assert f"SUCCESS: {len(rules)} rules found" in check.stdout, check.stderr


def test_scrape_configuration_is_valid(promtool: str) -> None:
    """Prometheus' own checker accepts the configuration that we hand out."""
    file = DEPLOY / "prometheus" / "prometheus.yml"
    check = subprocess.run([promtool, "check", "config", file], capture_output=True, text=True)
    assert 0 == check.returncode, check.stderr


def test_rules_are_valid(promtool: str) -> None:
    """Prometheus' own checker accepts each file of rules that we hand out."""
    files = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
    check = subprocess.run([promtool, "check", "rules", *files], capture_output=True, text=True)
    assert (0, len(files)) == (check.returncode, check.stdout.count("SUCCESS")), check.stderr


def test_rules_do_what_their_tests_say(promtool: str) -> None:
    """Prometheus' own test runner finds the sums and alerts that are expected of given series."""
    folder = DEPLOY / "prometheus" / "tests"
    files = sorted(path.name for path in folder.glob("*.yml"))
    check = subprocess.run(
        [promtool, "test", "rules", *files], cwd=folder, capture_output=True, text=True
    )
    assert (0, len(files)) == (check.returncode, check.stdout.count("SUCCESS")), check.stderr


def test_every_rule_has_a_test() -> None:
    """Each recording and alert is named in the tests of the rules."""
    folder = DEPLOY / "prometheus"
    tests = "".join(path.read_text() for path in (folder / "tests").glob("*.yml"))
    for path in (folder / "rules").glob("*.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                name = rule.get("record") or rule["alert"]
                assert re.search(rf"(expr|alertname): {re.escape(name)}\b", tests), name


def test_victoria_metrics_scrapes_without_complaint(victoria_metrics: Any, profiled: str) -> None:
    """VictoriaMetrics logs no warning about the endpoint, and takes all of its samples."""
    victoria_metrics.scrape(profiled)
    assert victoria_metrics.query("scrape_samples_scraped > 0")
    assert [] == [
        line
        for line in victoria_metrics.log().splitlines()
        if "promscrape" in line and re.search(r"\t(warn|error|fatal|panic)\t", line)
    ]
