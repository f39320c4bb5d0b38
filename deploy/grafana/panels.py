"""How Grafana wants a dashboard: its panels, variables and places, as JSON of Grafana 10 to 13.

Pure functions from what a dashboard shows, which `dashboards` says, to dictionaries.
"""

from collections.abc import Iterator, Sequence
from typing import Any

Json = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
EVERYTHING_ELSE = "everything else"
"""Legend of what a stacked graph does not show one by one; drawn in grey."""

REFS = "ABCDEFGH"
"""The names of a panel's queries, in their order."""

WIDTH = 24
"""Of a dashboard, in Grafana's units; a unit of height is 30 pixels."""


def panel(
    kind: str, title: str, description: str, size: tuple[int, int], targets: list[Json]
) -> Json:
    """What all panels have in common; `size` is width and height, `targets` are the queries."""
    width, height = size
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": {"w": width, "h": height},
        "targets": [
            {"refId": ref, "datasource": DATASOURCE, **target}
            for ref, target in zip(REFS, targets, strict=False)
        ],
    }


def override(matcher: str, value: str, **properties: Any) -> Json:
    """Display properties for the fields that match, in place of the panel's defaults."""
    return {
        "matcher": {"id": matcher, "options": value},
        "properties": [{"id": name, "value": setting} for name, setting in properties.items()],
    }


def thresholds(base: str, limit: float | None) -> Json:
    """One colour, and orange from the limit on, if there is one."""
    steps: list[Json] = [{"color": base, "value": None}]
    if limit is not None:
        steps.append({"color": "orange", "value": limit})
    return {"mode": "absolute", "steps": steps}


def graph(  # noqa: PLR0913 (a graph has that many sides)
    title: str,
    description: str,
    lines: dict[str, str],
    *,
    reference: dict[str, str] | None = None,
    limit: float | None = None,
    unit: str = "none",
    axis: str = "",
    stacked: bool = False,
) -> Json:
    """Draw lines over time; `lines` and `reference` are legend -> query.

    Dashed are the references, which the lines are to be compared with, and the limit.
    """
    reference = reference or {}
    queries = lines | reference
    grey = {"color": {"mode": "fixed", "fixedColor": "#8e8e8e"}}
    dashed = {"custom.lineStyle": {"fill": "dash", "dash": [8, 8]}, "custom.fillOpacity": 0}
    return (
        panel(
            "timeseries",
            title,
            description,
            (12, 9),
            [{"expr": expr, "legendFormat": legend} for legend, expr in queries.items()],
        )
        | {
            "fieldConfig": {
                "defaults": {
                    "unit": unit,
                    "min": 0,
                    "color": {
                        "mode": "palette-classic-by-name"
                    },  # a name has one colour everywhere
                    "thresholds": thresholds("transparent", limit),
                    "custom": {
                        "axisLabel": axis,
                        "fillOpacity": 60 if stacked else 5,
                        "lineWidth": 0 if stacked else 1,
                        "showPoints": "never",
                        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
                        "thresholdsStyle": {"mode": "off" if limit is None else "dashed"},
                    },
                },
                "overrides": [
                    override("byName", EVERYTHING_ELSE, **grey),
                    *(
                        override("byFrameRefID", ref, **dashed)
                        for ref in REFS[len(lines) : len(queries)]
                    ),
                ],
            },
            "options": {
                "legend": {
                    "showLegend": True,
                    "displayMode": "table",
                    "placement": "bottom",
                    "calcs": ["mean", "max"],
                    "sortBy": "Mean",
                    "sortDesc": True,
                },
                "tooltip": {"mode": "multi", "sort": "desc"},
            },
        }
    )


def table(
    title: str,
    description: str,
    labels: Sequence[str],
    columns: dict[str, tuple[str, str]],
    *,
    width: int = WIDTH,
) -> Json:
    """List what the range shown comes to; `columns` are heading -> (query, unit).

    There is a row for each value of the labels; the first column sorts. Shares are drawn as bars.
    """
    # Grafana calls the values after their query, unless there is only one.
    values = [f"Value #{ref}" for ref in REFS] if len(columns) > 1 else ["Value"]
    headings = dict(zip(values, columns, strict=False))
    bar = {"custom.cellOptions": {"type": "gauge", "mode": "basic"}, "min": 0, "max": 1}
    return panel(
        "table",
        title,
        description,
        (width, 9),
        [
            {"expr": expr, "format": "table", "instant": True, "range": False}
            for expr, _ in columns.values()
        ],
    ) | {
        "transformations": [
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True},
                    "indexByName": {name: place for place, name in enumerate([*labels, *headings])},
                    "renameByName": {label: label.capitalize() for label in labels} | headings,
                },
            },
        ],
        "fieldConfig": {
            "defaults": {"unit": "none", "custom": {"filterable": True}},
            "overrides": [
                override("byName", heading, unit=unit, **(bar if unit == "percentunit" else {}))
                for heading, (_, unit) in columns.items()
            ],
        },
        "options": {
            "showHeader": True,
            "sortBy": [{"displayName": next(iter(columns)), "desc": True}],
        },
    }


def flame_graph(title: str, description: str, columns: dict[str, str]) -> Json:
    """Draw a tree; `columns` are field -> query, of seconds by the labels path, level and label.

    The panel looks for its fields by name, in one frame that is sorted as the tree is walked. It
    knows times in nanoseconds only; other units are "samples" to it.
    """
    compute = [
        {
            "id": "calculateField",
            "options": {
                "mode": "binary",
                "binary": {"left": f"Value #{ref}", "operator": "*", "right": "1000000000"},
                "alias": name,
            },
        }
        for ref, name in zip(REFS, columns, strict=False)
    ]
    return panel(
        "flamegraph",
        title,
        description,
        (WIDTH, 24),
        [
            {"expr": expr, "format": "table", "instant": True, "range": False}
            for expr in columns.values()
        ],
    ) | {
        "transformations": [
            {"id": "merge", "options": {}},
            {"id": "sortBy", "options": {"sort": [{"field": "path"}]}},
            *compute,
            {
                "id": "convertFieldType",
                "options": {"conversions": [{"targetField": "level", "destinationType": "number"}]},
            },
        ],
        "fieldConfig": {"defaults": {"unit": "ns"}, "overrides": []},
        "options": {},
    }


def stat(
    title: str, description: str, query: str, *, unit: str = "none", limit: float | None = None
) -> Json:
    """Show one number and its course; it turns orange at the limit."""
    return panel("stat", title, description, (6, 4), [{"expr": query}]) | {
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "min": 0,
                "color": {"mode": "thresholds"},
                "thresholds": thresholds("text", limit),
            },
            "overrides": [],
        },
        "options": {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
        },
    }


def states(
    title: str, description: str, lines: dict[str, str], values: dict[str, tuple[str, str]]
) -> Json:
    """Draw a bar for each series over time; `values` are value -> (text, colour)."""
    return panel(
        "state-timeline",
        title,
        description,
        (12, 9),
        [{"expr": expr, "legendFormat": legend} for legend, expr in lines.items()],
    ) | {
        "fieldConfig": {
            "defaults": {
                "unit": "none",
                "mappings": [
                    {
                        "type": "value",
                        "options": {
                            value: {"text": text, "color": color, "index": place}
                            for place, (value, (text, color)) in enumerate(values.items())
                        },
                    }
                ],
            },
            "overrides": [],
        },
        "options": {
            "mergeValues": True,
            "showValue": "never",
            "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "single"},
        },
    }


def heatmap(title: str, description: str, buckets: str, *, unit: str) -> Json:
    """Show how a histogram's observations spread over its buckets, over time."""
    return panel(
        "heatmap",
        title,
        description,
        (12, 9),
        [{"expr": buckets, "format": "heatmap", "legendFormat": "{{le}}"}],
    ) | {
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "options": {
            "calculate": False,
            "yAxis": {"unit": unit, "axisPlacement": "left"},
            "cellValues": {"unit": "cps"},
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "exponent": 0.5, "steps": 64},
            "legend": {"show": True},
            "tooltip": {"mode": "single", "yHistogram": True},
        },
    }


def datasource() -> Json:
    """Let the reader choose the Prometheus; provisioning a file fills in no name by itself."""
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "prometheus",
        "current": {},
    }


def label_choice(name: str, query: str, anything: str = ".+") -> Json:
    """Let the reader choose any number of a label's values; `anything` matches them all."""
    return {
        "type": "query",
        "name": name,
        "label": name.capitalize(),
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # whenever the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": anything,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def text_choice(name: str, label: str, text: str) -> Json:
    """Let the reader type."""
    return {
        "type": "textbox",
        "name": name,
        "label": label,
        "query": text,
        "current": {"text": text, "value": text},
    }


def one_of(name: str, choices: Sequence[str], chosen: str) -> Json:
    """Let the reader choose one of a few values."""
    return {
        "type": "custom",
        "name": name,
        "label": name.capitalize(),
        "query": ",".join(choices),
        "current": {"text": chosen, "value": chosen},
        "options": [
            {"text": value, "value": value, "selected": value == chosen} for value in choices
        ],
    }


def offset_choice(name: str, choices: Sequence[str], chosen: str) -> Json:
    """Let the reader choose a duration, or type another one."""
    return one_of(name, choices, chosen) | {"allowCustomValue": True}


def placed(rows: dict[str, Sequence[Json]]) -> Iterator[Json]:
    """Yield each row's heading and panels, numbered, from left to right and from top to bottom."""
    number = top = 0
    for heading, panels in rows.items():
        number += 1
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": heading, "collapsed": False, "gridPos": place}
        left, top, bottom = 0, top + 1, top + 1
        for item in panels:
            number += 1
            size = item["gridPos"]
            if left + size["w"] > WIDTH:
                left, top = 0, bottom
            yield {"id": number, **item, "gridPos": {"x": left, "y": top, **size}}
            left, bottom = left + size["w"], max(bottom, top + size["h"])
        top = bottom


def dashboard(
    uid: str, title: str, description: str, variables: list[Json], rows: dict[str, Sequence[Json]]
) -> Json:
    """Put the rows, heading -> panels, together to what Grafana imports."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["ox_otel", "profiling"],
        "editable": False,  # the file is the source; changes made in Grafana would be lost
        "schemaVersion": 38,  # Grafana 10.0; newer ones bring it up to theirs
        "graphTooltip": 1,  # all panels mark the moment that the pointer is at
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "1m",
        "links": [
            {
                "type": "dashboards",
                "title": "ox_otel",
                "tags": ["ox_otel"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "templating": {"list": variables},
        "panels": list(placed(rows)),
    }
