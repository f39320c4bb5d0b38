"""The dashboard `flame`: flame graphs, and what has changed, from the tree's counters alone."""

from panels import Json, dashboard, flame_graph, label_choice, offset_choice
from queries import PROCESSES, TREE, TREE_SELF, in_range, process_choices, total

NODE = "path, level, label"
BASELINE = f'{PROCESSES}, version=~"$baseline"'
VERSION = f'{PROCESSES}, version=~"$version"'


def node_times(counter: str, matchers: str = PROCESSES, before: str = "") -> str:
    """What each node of the tree used in the range shown, all chosen processes together."""
    return total(in_range(counter, matchers, before), NODE)


def one(matchers: str = PROCESSES) -> dict[str, str]:
    """The times of the nodes that used any: a flame graph's columns."""
    inclusive = node_times(TREE, matchers)
    return {
        "value": f"{inclusive} > 0",
        "self": f"{node_times(TREE_SELF, matchers)} and {inclusive} > 0",
    }


def two(left: tuple[str, str], right: tuple[str, str]) -> dict[str, str]:
    """The times of the nodes on two sides, each given as matchers and how long before.

    A node that one side alone has is 0 on the other: each column has all nodes.
    """
    columns = {}
    for name, counter in (("value", TREE), ("self", TREE_SELF)):
        before, after = node_times(counter, *left), node_times(counter, *right)
        columns[name] = f"{before} or 0 * {after}"
        columns[f"{name}Right"] = f"{after} or 0 * {before}"
    return columns


def flame() -> Json:
    """The flame graph of the range shown."""
    return flame_graph(
        "Flame graph",
        "Where the CPU of the range shown went, by path of calls (elapsed time where "
        "OX_OTEL_TREE=wall). Click a bar to zoom, a name to find it.",
        one(),
    )


def diffs() -> list[Json]:
    """Two flame graphs that compare: red has grown its share, green has lost."""
    return [
        flame_graph(
            "Against earlier",
            "The range shown against as long a one that lies the chosen time before. Red are paths "
            "whose share has grown, green those whose share has fallen.",
            two((PROCESSES, "$before"), (PROCESSES, "")),
        ),
        flame_graph(
            "Between versions",
            "Two values of the label version, which your scrape configuration may give to targets. "
            "Red are paths whose share has grown from the baseline to the version.",
            two((BASELINE, ""), (VERSION, "")),
        ),
    ]


DASHBOARD = dashboard(
    "ox-otel-flame",
    "ox_otel: flame graphs",
    "Flame graphs of any time range, and of what has changed, from Prometheus alone.",
    [
        *process_choices(),
        offset_choice("before", ["1h", "1d", "7d"], "1d"),
        label_choice("baseline", f"label_values({TREE}{{{PROCESSES}}}, version)", anything=".*"),
        label_choice("version", f"label_values({TREE}{{{PROCESSES}}}, version)", anything=".*"),
    ],
    {"The range shown": [flame()], "What has changed": diffs()},
)
