"""The dashboard `overview`: which functions and modules use CPU, and which wait."""

from panels import (
    EVERYTHING_ELSE,
    Json,
    dashboard,
    graph,
    label_choice,
    one_of,
    stat,
    table,
    text_choice,
)
from queries import (
    CODE,
    FUNCTION,
    FUNCTION_LEGEND,
    HITS,
    INCLUSIVE,
    OBSERVED,
    OVERHEAD,
    PROCESS,
    PROCESS_LEGEND,
    PROCESSES,
    SAMPLES,
    SELF,
    SELF_HITS,
    STACKS,
    in_range,
    per_second,
    process_choices,
    top,
    total,
    widest,
)


def summary() -> list[Json]:
    """How much is going on, and where."""
    cpu = per_second(OBSERVED, f'{PROCESSES}, state="cpu"')
    wait = per_second(OBSERVED, f'{PROCESSES}, state="wait"')
    return [
        stat(
            "Processes sampled",
            "Processes whose profiler is running, not paused or suspended.",
            f"sum(ox_profile_running{{{PROCESSES}}})",
        ),
        stat("CPU", "Cores busy, all threads of the processes together.", total(cpu)),
        stat("Waiting", "Threads that wait: for I/O, a lock, a timer, the GIL.", total(wait)),
        stat(
            "Highest cost of profiling",
            "CPU that profiling takes, as a fraction of one core, in the process where it takes "
            "most. Orange above 1 %, the default budget.",
            f"max({total(per_second(OVERHEAD), PROCESS)})",
            unit="percentunit",
            limit=0.01,
        ),
        graph(
            "CPU by process",
            "Cores busy, all threads of the process together.",
            {PROCESS_LEGEND: total(cpu, PROCESS)},
            axis="cores",
            stacked=True,
        ),
        graph(
            "Waiting by process",
            "Threads of the process that wait: for I/O, a lock, a timer, the GIL.",
            {PROCESS_LEGEND: total(wait, PROCESS)},
            axis="threads",
            stacked=True,
        ),
    ]


def time_by(noun: str, state: str) -> list[Json]:
    """Where the processes spend the time of a state, `cpu` or `wait`, by function or module."""
    title, axis, doing = {
        "cpu": ("CPU", "cores", "Cores busy in"),
        "wait": ("Waiting", "threads", "Threads that wait in"),
    }[state]
    by, legend, inclusive, inclusive_note = {
        "function": (
            FUNCTION,
            FUNCTION_LEGEND,
            total,
            "Not stacked, because a caller contains what it calls.",
        ),
        "module": (
            "module",
            "{{module}}",
            widest,
            "A lower bound, that of its widest function: one stack may hold many of a module.",
        ),
    }[noun]
    code, all_code = f'{CODE}, state="{state}"', f'{PROCESSES}, state="{state}"'
    self_rate = total(per_second(SELF, code), by)
    self_total = total(in_range(SELF, code), by)
    inclusive_rate = inclusive(per_second(INCLUSIVE, code), by)
    inclusive_total = inclusive(in_range(INCLUSIVE, code), by)
    observed = f"scalar({total(in_range(OBSERVED, all_code))})"
    top_self = top(self_rate, by, self_total)
    rest = f"clamp_min({total(self_rate)} - {total(top_self)}, 0)"

    def row(values: str) -> str:
        return top(values, by, self_total, inclusive_total)

    return [
        graph(
            f"{title} by {noun}: self",
            f"{doing} the {noun} itself, not in what it calls. Stacked: the upper edge is all of "
            "the chosen code.",
            {legend: top_self, EVERYTHING_ELSE: rest},
            axis=axis,
            stacked=True,
        ),
        graph(
            f"{title} by {noun}: inclusive",
            f"{doing} the {noun} or in what it calls. {inclusive_note}",
            {legend: top(inclusive_rate, by, inclusive_total)},
            axis=axis,
        ),
        table(
            f"{title} by {noun}: the range shown",
            f"Thread-seconds, and their share of all that were observed in this state. The {noun}s "
            "are those that lead by self or by inclusive time.",
            by.split(", "),
            {
                "Self": (row(self_total), "s"),
                "Self share": (row(f"{self_total} / {observed}"), "percentunit"),
                "Inclusive": (row(inclusive_total), "s"),
                "Inclusive share": (row(f"{inclusive_total} / {observed}"), "percentunit"),
            },
        ),
    ]


def hits() -> list[Json]:
    """The raw counts that seconds are estimated from."""
    by = FUNCTION
    self_rate = total(per_second(SELF_HITS, CODE), by)
    self_total = total(in_range(SELF_HITS, CODE), by)
    inclusive_total = total(in_range(HITS, CODE), by)
    stacks = f"scalar({total(in_range(STACKS))})"

    def row(values: str) -> str:
        return top(values, by, self_total, inclusive_total)

    return [
        graph(
            "Samples and stacks",
            "A sample looks at all threads at one instant, and sees one stack for each.",
            {"samples": total(per_second(SAMPLES)), "stacks": total(per_second(STACKS))},
            unit="cps",
        ),
        graph(
            "Share of self hits by function",
            "Share of the stacks that had the function at the top. Raw: a sampler that needs the "
            "GIL sees waiting functions too often. Judge time by seconds, not by hits.",
            {
                FUNCTION_LEGEND: top(
                    f"{self_rate} / scalar({total(per_second(STACKS))})", by, self_total
                )
            },
            unit="percentunit",
            stacked=True,
        ),
        table(
            "Hits by function: the range shown",
            "Stacks with the function at the top (self) or anywhere on them, and their share of "
            "all stacks. The functions are those that lead by either.",
            by.split(", "),
            {
                "Self hits": (row(self_total), "short"),
                "Self share": (row(f"{self_total} / {stacks}"), "percentunit"),
                "Hits": (row(inclusive_total), "short"),
                "Share": (row(f"{inclusive_total} / {stacks}"), "percentunit"),
            },
        ),
    ]


DASHBOARD = dashboard(
    "ox-otel",
    "ox_otel: where the time goes",
    "Which functions and modules of the profiled processes use CPU, and which wait.",
    [
        *process_choices(),
        label_choice("module", f"label_values({SELF}{{{PROCESSES}}}, module)", anything=".*"),
        text_choice("function", "Function (regular expression)", ".*"),
        one_of("top", ["5", "10", "20", "50"], "10"),
    ],
    {
        "Overview": summary(),
        "CPU by function": time_by("function", "cpu"),
        "CPU by module": time_by("module", "cpu"),
        "Waiting by function": time_by("function", "wait"),
        "Waiting by module": time_by("module", "wait"),
        "Hits": hits(),
    },
)
