"""What we hand out to deploy: the dashboards, and the configurations around them."""

import json
import re
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from ox_otel._metrics import METRICS

DEPLOY = Path(__file__).parents[1] / "deploy"
GRAFANA = DEPLOY / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))

LABELS = {
    "ox_profile_wakeup_delay_seconds_bucket": {"le"},
    **{
        f"ox_profile_{metric.name}{'_total' * (metric.kind == 'counter')}": {*metric.labels}
        for metric in METRICS
    },
}
"""Of each metric that we publish, beside those that Prometheus adds."""

ADDED_BY_PROMETHEUS = {"job", "instance", "version"}
"""The last one if the configuration has it: a version of the service, not of ours."""


DASHBOARD = {path.stem: json.loads(path.read_text()) for path in DASHBOARDS}
PANELS = {
    f"{stem}: {panel['title']}": panel
    for stem, dashboard in DASHBOARD.items()
    for panel in dashboard["panels"]
    if panel["type"] != "row"
}
QUERIES = {
    f"{name}: {target['refId']}": target["expr"]
    for name, panel in PANELS.items()
    for target in panel["targets"]
}
each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARD.values(), ids=DASHBOARD)
each_panel = pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
each_query = pytest.mark.parametrize("expr", QUERIES.values(), ids=QUERIES)


def generate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the generator that stands in the folder."""
    command = [sys.executable, "-B", folder / "dashboards.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def selectors(expr: str) -> list[tuple[str, dict[str, str]]]:
    """Return each metric that the query selects, with its matchers: label -> operator and value."""
    return [
        (metric, dict(re.findall(r'(\w+)([=!~]+"[^"]*")', matchers)))
        for metric, matchers in re.findall(r"\b(ox_profile_\w+)\{([^}]*)\}", expr)
    ]


def labels_of(expr: str) -> set[str]:
    """Return the labels that the series of a query may have."""
    return ADDED_BY_PROMETHEUS.union(*(LABELS[metric] for metric, _ in selectors(expr)))


def test_dashboards_are_current() -> None:
    """What the generator would write is what is checked in."""
    check = generate(GRAFANA, "--check")
    assert (0, "") == (check.returncode, check.stderr)


def test_check_tells_which_dashboard_is_out_of_date(tmp_path: Path) -> None:
    """The check fails, naming the file, until the dashboards have been written anew."""
    folder = Path(shutil.copytree(GRAFANA, tmp_path / "grafana"))
    edited = folder / "dashboards" / DASHBOARDS[0].name
    edited.write_text(edited.read_text().replace("CPU", "cpu"))
    check = generate(folder, "--check")
    assert 1 == check.returncode
    assert f"{edited} is out of date" in check.stderr
    assert 0 == generate(folder).returncode
    assert DASHBOARDS[0].read_text() == edited.read_text()
    assert 0 == generate(folder, "--check").returncode


@each_dashboard
def test_titles_tell_panels_apart(dashboard: dict[str, Any]) -> None:
    """No two panels, and no two rows, of a dashboard have the same title or number."""
    panels = dashboard["panels"]
    for key in ("title", "id"):
        assert len(panels) == len({panel[key] for panel in panels})


@each_dashboard
def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    """Each panel has a place of its own on a grid of 24 columns."""

    def cells(place: dict[str, int]) -> set[tuple[int, int]]:
        return {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }

    places = [cells(panel["gridPos"]) for panel in dashboard["panels"]]
    assert set(range(24)) == {x for place in places for x, _ in place}
    assert [] == [1 for one, other in combinations(places, 2) if one & other]


@each_dashboard
def test_the_reader_chooses_data_source_job_and_instance(dashboard: dict[str, Any]) -> None:
    """The first variables are the data source and the labels that every series has."""
    datasource, job, instance, *_ = dashboard["templating"]["list"]
    assert ("datasource", "datasource", "prometheus") == tuple(
        datasource[key] for key in ("name", "type", "query")
    )
    for name, variable in (("job", job), ("instance", instance)):
        assert (name, name.capitalize(), True, True, ".+") == tuple(
            variable[key] for key in ("name", "label", "multi", "includeAll", "allValue")
        )
        assert "${datasource}" == variable["datasource"]["uid"]
        assert f", {name})" in variable["query"]["query"]


@each_panel
def test_panel_explains_itself(panel: dict[str, Any]) -> None:
    """Each panel has a title, a sentence of description and a unit."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]


@each_panel
def test_panel_asks_the_chosen_data_source(panel: dict[str, Any]) -> None:
    """No panel and no query names a data source of its own."""
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert [chosen] * len(panel["targets"]) == [target["datasource"] for target in panel["targets"]]
    assert chosen == panel["datasource"]


@each_query
def test_query_uses_metrics_and_labels_that_we_publish(expr: str) -> None:
    """Metrics are those of the contract, matched and grouped by labels that they have."""
    selected = selectors(expr)
    assert len(re.findall(r"\box_profile_", expr)) == len(selected)  # none without matchers
    for metric, matchers in selected:
        assert set(matchers) <= LABELS[metric] | ADDED_BY_PROMETHEUS
    for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", expr):
        assert set(filter(None, labels.split(", "))) <= labels_of(expr)


@each_query
def test_query_heeds_the_choice_of_job_and_instance(expr: str) -> None:
    """Every selector is limited to what the reader has chosen."""
    assert selectors(expr)
    for _, matchers in selectors(expr):
        assert ('=~"$job"', '=~"$instance"') == (matchers["job"], matchers["instance"])


@each_query
def test_query_takes_its_time_ranges_from_grafana(expr: str) -> None:
    """Rates are over $__rate_interval, totals over $__range; counters are never read raw."""
    ranges = set(re.findall(r"(\w+)\([^()]*\[([^]]*)\]", expr))
    assert ranges <= {("rate", "$__rate_interval"), ("increase", "$__range")}
    counters = len(re.findall(r"ox_profile_\w+_(?:total|bucket)\{", expr))
    assert expr.count("[") == counters


@each_panel
def test_legends_and_columns_name_labels_of_the_query(panel: dict[str, Any]) -> None:
    """What is shown beside a value is a label that its series have."""
    for target in panel["targets"]:
        shown = set(re.findall(r"{{(\w+)}}", target.get("legendFormat", "")))
        assert shown <= labels_of(target["expr"])
    for transformation in panel.get("transformations", []):
        for column in transformation["options"].get("renameByName", {}):
            if not column.startswith("Value"):
                assert column in labels_of(panel["targets"][0]["expr"])


def test_containers_listen_on_loopback_only() -> None:
    """What compose starts can be reached from this machine and from no other."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ["127.0.0.1:9090:9090", "127.0.0.1:3000:3000"] == ports


def test_container_images_are_pinned() -> None:
    """Images are named to the last digit of their version, so that tomorrow's is today's."""
    compose = (DEPLOY / "compose.yaml").read_text()
    images = re.findall(r"(?:image:|FROM) (\S+)", compose)
    assert 3 == len(images)
    assert [] == [image for image in images if not re.search(r":v?\d+\.\d+\.\d+", image)]


def test_containers_find_the_files_that_they_mount() -> None:
    """Each mounted folder exists in the checkout, and is mounted read-only."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
    assert mounts
    for mount in mounts:
        folder, _, mode = mount.split(":")
        assert (True, "ro") == ((DEPLOY / folder).is_dir(), mode)


def test_grafana_finds_dashboards_and_prometheus_where_compose_puts_them() -> None:
    """Provisioning names the mounted folder, the service, and the interval it scrapes at."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    provisioning = GRAFANA / "provisioning"
    [provider] = yaml.safe_load((provisioning / "dashboards" / "ox_otel.yaml").read_text())[
        "providers"
    ]
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    mounted = f"./grafana/dashboards:{provider['options']['path']}:ro"
    assert mounted in services["grafana"]["volumes"]
    assert "http://prometheus:9090" == source["url"]
    assert "prometheus" in services
    assert scrape["global"]["scrape_interval"] == source["jsonData"]["timeInterval"]
