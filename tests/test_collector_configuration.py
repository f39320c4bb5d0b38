"""The page about OpenTelemetry and the configuration of a collector: they fit together, and us."""

import re
from pathlib import Path
from typing import Any

import yaml

from ox_otel._metrics import METRICS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "opentelemetry.md").read_text(encoding="utf-8")
CONFIG: Any = yaml.safe_load((ROOT / "deploy" / "otel-collector" / "config.yaml").read_text())


def test_the_collector_takes_what_the_page_sends() -> None:
    """It listens, on loopback, where the program of the page exports to, by that protocol."""
    exported = dict(re.findall(r"export (\w+)=(\S+)", PAGE))
    assert "http/protobuf" == exported["OTEL_EXPORTER_OTLP_PROTOCOL"]
    address = CONFIG["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    assert f"http://{address}" == exported["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert all(
        protocol["endpoint"].startswith("127.0.0.1:")
        for protocol in CONFIG["receivers"]["otlp"]["protocols"].values()
    )


def test_the_collector_hands_metrics_on() -> None:
    """Its pipeline has all that is configured, and nothing else; memory is limited first."""
    [(signal, pipeline)] = CONFIG["service"]["pipelines"].items()
    assert "metrics" == signal
    for kind in ("receivers", "processors", "exporters"):
        assert list(CONFIG[kind]) == pipeline[kind]
    assert "memory_limiter" == pipeline["processors"][0]
    assert CONFIG["exporters"]["otlphttp"]["metrics_endpoint"].endswith("/v1/metrics")


def test_the_page_names_what_arrives() -> None:
    """Metrics in its table are there, in the unit that it says."""
    units = {f"ox_profile.{metric.name}": metric.unit for metric in METRICS}
    rows = re.findall(r"^\| (`ox_profile.*?) \|.*\| (.*) \|$", PAGE, re.MULTILINE)
    assert 6 == len(rows)
    for names, unit in rows:
        for name in re.findall("`([^`]*)`", names):
            assert unit in (f"`{units[name]}`", "of its own")
