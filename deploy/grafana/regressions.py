"""The dashboard `regressions`: functions whose share of the CPU has grown most."""

from panels import Json, dashboard, graph, offset_choice, one_of, table
from queries import (
    FUNCTION,
    FUNCTION_LEGEND,
    INCLUSIVE,
    OBSERVED,
    PROCESSES,
    SELF,
    in_range,
    per_second,
    process_choices,
    top,
    total,
)

CPU = f'{PROCESSES}, state="cpu"'


def shares(counter: str, before: str = "") -> str:
    """The share of all CPU that each function had in the range shown, or in one before it."""
    whole = total(in_range(OBSERVED, CPU, before))
    return f"{total(in_range(counter, CPU, before), FUNCTION)} / scalar({whole})"


def growth(counter: str, before: str) -> str:
    """By how much the share of each function has grown; nothing where there is no before."""
    now, then = shares(counter), shares(counter, before)
    known = f"{total(in_range(OBSERVED, CPU, before))} > 0"
    return f"({now} - ({then} or 0 * ({now}))) and on () ({known})"


def grown(kind: str, before: str) -> Json:
    """What has grown most since the time `before`, by self or inclusive time."""
    counter, doing = {
        "self": (SELF, "in the function itself"),
        "inclusive": (INCLUSIVE, "in the function and what it calls"),
    }[kind]
    now, then, by_growth = shares(counter), shares(counter, before), growth(counter, before)
    return table(
        f"Against {before} before: {kind}",
        f"Share of all CPU {doing}, in the range shown and in as long a one {before} before. The "
        "functions are those whose share has grown most.",
        FUNCTION.split(", "),
        {
            "Growth": (top(by_growth, FUNCTION, by_growth), "percentunit"),
            "Share now": (top(now, FUNCTION, by_growth), "percentunit"),
            "Share then": (top(f"({then} or 0 * {now})", FUNCTION, by_growth), "percentunit"),
        },
        width=12,
    )


def course() -> Json:
    """How the share of what has grown most developed."""

    def share(before: str = "") -> str:
        part = total(per_second(SELF, CPU, before), FUNCTION)
        return f"{part} / scalar({total(per_second(OBSERVED, CPU, before))})"

    leaders = growth(SELF, "$before")
    return graph(
        "Course of the shares",
        "Share of all CPU in the function itself, of those whose share has grown most since the "
        "chosen time before. Dashed: the same at that time.",
        {FUNCTION_LEGEND: top(share(), FUNCTION, leaders)},
        reference={f"{FUNCTION_LEGEND}: before": top(share("$before"), FUNCTION, leaders)},
        unit="percentunit",
    ) | {"gridPos": {"w": 24, "h": 11}}


DASHBOARD = dashboard(
    "ox-otel-regressions",
    "ox_otel: regressions",
    "Functions whose share of the CPU has grown most against the last day, week or any time before.",
    [
        *process_choices(),
        offset_choice("before", ["1h", "1d", "7d"], "1d"),
        one_of("top", ["5", "10", "20", "50"], "10"),
    ],
    {
        "Against the last day": [grown("self", "1d"), grown("inclusive", "1d")],
        "Against the last week": [grown("self", "7d"), grown("inclusive", "7d")],
        "Against the chosen time": [course()],
    },
)
