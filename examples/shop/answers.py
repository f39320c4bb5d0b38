"""Where the demo's figures come from: Prometheus or the profiler's own page, and the shop.

All of them come as `Seconds`, so that `now - before` is what was used in between.
"""

import json
import urllib.parse
import urllib.request
from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

REST = "(everything else)"  # whatever the process does outside of the functions that it knows
METRIC = "ox_profile_self_seconds_total"
Seconds = Counter[tuple[str, str]]  # ("module.function", "cpu" or "wait"): seconds, a float


def get(url: str) -> str:
    """Return the body at `url`; OSError when there is none."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def increase(seconds: float) -> str:
    """Return the question to Prometheus: what has each function used in the last `seconds`?"""
    window = f"[{max(1, round(seconds))}s]"
    return f'sum by (module, function, state) (increase({METRIC}{{job="ox_otel"}}{window}))'


def ask_prometheus(url: str, seconds: float) -> Seconds:
    """Return what each function has used in the last `seconds`, as Prometheus answers."""
    query = urllib.parse.urlencode({"query": increase(seconds)})
    series = json.loads(get(f"{url}/api/v1/query?{query}"))["data"]["result"]
    return Seconds({_key(one["metric"]): float(one["value"][1]) for one in series})


def ask_profiler(url: str) -> Seconds:
    """Return what each function has used so far, as the profiler's own /metrics has it."""
    samples = [
        sample
        for family in text_string_to_metric_families(get(f"{url}/metrics"))
        for sample in family.samples
    ]
    return Seconds({_key(one.labels): one.value for one in samples if one.name == METRIC})


def _key(labels: dict[str, str]) -> tuple[str, str]:
    return f"{labels['module']}.{labels['function']}", labels["state"]


def ask_shop(url: str) -> tuple[Seconds, dict[str, str]]:
    """Return what each function has really used so far, and the kind of each function."""
    truth = json.loads(get(f"{url}/truth"))
    seconds, kinds = Seconds({(REST, "cpu"): truth["process_cpu_seconds"]}), {}
    for name, account in truth["functions"].items():
        kinds[name] = account["kind"]
        seconds[name, "cpu"] = account["cpu_seconds"]
        seconds[name, "wait"] = account["wall_seconds"] - account["cpu_seconds"]
        seconds[REST, "cpu"] -= account["cpu_seconds"]
    return seconds, kinds


def graph_address(url: str) -> str:
    """Return the address at which Prometheus draws the hottest functions over time."""
    rate = f'rate({METRIC}{{job="ox_otel", state="cpu"}}[10s])'
    graph = {"g0.expr": f"topk(8, sum by (module, function) ({rate}))", "g0.tab": 0}
    return (
        f"{url}/graph?{urllib.parse.urlencode(graph | {'g0.stacked': 1, 'g0.range_input': '5m'})}"
    )
