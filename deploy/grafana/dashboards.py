"""Write the Grafana dashboards, JSON files in the folder `dashboards`.

    python deploy/grafana/dashboards.py           # write them
    python deploy/grafana/dashboards.py --check   # exit status 1 if one on disk is out of date

Here stands what they show: how queries are put together, then row by row the panels. How Grafana
wants to be told of them stands in `panels`.
"""

import argparse
import json
import sys
from pathlib import Path

from panels import (
    EVERYTHING_ELSE,
    Json,
    dashboard,
    datasource,
    graph,
    heatmap,
    label_choice,
    one_of,
    stat,
    states,
    table,
    text_choice,
)

FOLDER = Path(__file__).parent / "dashboards"

# --- Metrics, matchers and labels -----------------------------------------------------------------

SELF = "ox_profile_self_seconds_total"
INCLUSIVE = "ox_profile_seconds_total"
OBSERVED = "ox_profile_observed_seconds_total"
SELF_HITS = "ox_profile_self_hits_total"
HITS = "ox_profile_hits_total"
SAMPLES = "ox_profile_samples_total"
STACKS = "ox_profile_stacks_total"
OVERHEAD = "ox_profile_overhead_seconds_total"

# What the reader has chosen to see, with the variables at the top of the dashboard.
PROCESSES = 'job=~"$job", instance=~"$instance"'
CODE = f'{PROCESSES}, module=~"$module", function=~"$function"'

PROCESS = "job, instance"
PROCESS_LEGEND = "{{job}} {{instance}}"

VARIABLES = [
    datasource(),
    label_choice("job", "label_values(ox_profile_running, job)"),
    label_choice("instance", 'label_values(ox_profile_running{job=~"$job"}, instance)'),
    label_choice("module", f"label_values({SELF}{{{PROCESSES}}}, module)", anything=".*"),
    text_choice("function", "Function (regular expression)", ".*"),
    one_of("top", ["5", "10", "20", "50"], "10"),
]

# --- Queries --------------------------------------------------------------------------------------


def per_second(counter: str, matchers: str = PROCESSES) -> str:
    """How fast the counter grows, at each point of a graph."""
    return f"rate({counter}{{{matchers}}}[$__rate_interval])"


def in_range(counter: str, matchers: str = PROCESSES) -> str:
    """How much the counter grew in the whole range shown: one number, at each point of a graph."""
    return f"increase({counter}{{{matchers}}}[$__range] @ end())"


def total(series: str, by: str = "") -> str:
    """One sum of the series, or one for each value of the labels `by`."""
    return f"sum by ({by}) ({series})" if by else f"sum({series})"


def widest(series: str, by: str) -> str:
    """Inclusive time of modules, from below: that of a module's widest function in each process.

    The functions of a module stand on the same stacks: a sum would count these many times over.
    """
    return f"sum by ({by}) (max by ({PROCESS}, {by}) ({series}))"


def top(values: str, by: str, *totals: str) -> str:
    """The values with one of the $top largest totals over the range shown.

    `topk` of the values themselves would choose anew at each point, and draw scraps of lines.
    """
    chosen = " or ".join(f"topk($top, {of_range})" for of_range in totals)
    return f"{values} and on ({by}) ({chosen})"


def share(part: str, whole: str, by: str) -> str:
    """The part of the whole, between 0 and 1; 0 where the part has no series."""
    return f"({total(part, by)} or 0 * {total(whole, by)}) / {total(whole, by)}"


# --- Rows: panels ---------------------------------------------------------------------------------


def overview() -> list[Json]:
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
            "module, function",
            "{{module}}.{{function}}",
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
    by = "module, function"
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
                "{{module}}.{{function}}": top(
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


def health() -> list[Json]:
    """How the profiler itself is, process by process."""
    running = f"ox_profile_running{{{PROCESSES}}}"
    interval = f"ox_profile_interval_seconds{{{PROCESSES}}}"
    unplaced = per_second(SELF, f'{PROCESSES}, function="__unplaced__", state="cpu"')
    overflow = per_second(SELF, f'{PROCESSES}, function="__other__"')
    cpu = per_second(OBSERVED, f'{PROCESSES}, state="cpu"')
    errors = per_second("ox_profile_errors_total")
    return [
        states(
            "State",
            "Whether the profiler takes samples. If not, it is paused, suspended, stopped or "
            "failed: its status says which of them, and why.",
            {PROCESS_LEGEND: f"min by ({PROCESS}) ({running})"},
            {"0": ("not running", "orange"), "1": ("running", "green")},
        ),
        table(
            "Versions and engines",
            "The version of ox_otel, its engine and the version of Python, and how many processes "
            "have them.",
            ["version", "engine", "python"],
            {
                "Processes": (
                    f"count by (version, engine, python) (ox_profile_info{{{PROCESSES}}})",
                    "none",
                )
            },
            width=12,
        ),
        graph(
            "Samples",
            "Samples per second. Dashed: what the interval asks for; fewer are taken of a process "
            "that is idle.",
            {PROCESS_LEGEND: total(per_second(SAMPLES), PROCESS)},
            reference={f"{PROCESS_LEGEND}: asked for": total(f"{running} / {interval}", PROCESS)},
            unit="cps",
        ),
        graph(
            "Missed samples",
            "Samples per second that came too late to be taken.",
            {PROCESS_LEGEND: total(per_second("ox_profile_missed_samples_total"), PROCESS)},
            unit="cps",
        ),
        graph(
            "Cost of profiling",
            "CPU that profiling takes, as a fraction of one core. Dashed: 1 %, the default budget.",
            {PROCESS_LEGEND: total(per_second(OVERHEAD), PROCESS)},
            limit=0.01,
            unit="percentunit",
        ),
        graph(
            "Series",
            "Series published. Dashed: the limit; what is beyond counts under __other__.",
            {PROCESS_LEGEND: total(f"ox_profile_series{{{PROCESSES}}}", PROCESS)},
            reference={
                f"{PROCESS_LEGEND}: limit": total(
                    f"ox_profile_series_limit{{{PROCESSES}}}", PROCESS
                )
            },
            unit="short",
        ),
        graph(
            "Errors by kind",
            "Errors of the profiler per minute. They do not reach the program, but should be 0.",
            {"{{kind}}": f"60 * {total(errors, 'kind')}"},
            unit="cpm",
        ),
        heatmap(
            "Wake-up delay",
            "How much later than asked the sampler ran, most often because it waited for the GIL "
            "or for a core. Long delays prove that something holds these; not what does.",
            total(per_second("ox_profile_wakeup_delay_seconds_bucket"), "le"),
            unit="s",
        ),
        graph(
            "CPU under __unplaced__",
            "Share of the CPU of which only the caller's module is known: the thread was not seen "
            "running while it used it.",
            {PROCESS_LEGEND: share(unplaced, cpu, PROCESS)},
            unit="percentunit",
        ),
        graph(
            "Time under __other__",
            "Share of the time, of both states, of functions that have no series of their own.",
            {PROCESS_LEGEND: share(overflow, per_second(OBSERVED), PROCESS)},
            unit="percentunit",
        ),
    ]


DASHBOARDS = {
    "ox_otel.json": dashboard(
        "ox-otel",
        "ox_otel: where the time goes",
        "Which functions and modules of the profiled processes use CPU, and which wait.",
        VARIABLES,
        {
            "Overview": overview(),
            "CPU by function": time_by("function", "cpu"),
            "CPU by module": time_by("module", "cpu"),
            "Waiting by function": time_by("function", "wait"),
            "Waiting by module": time_by("module", "wait"),
            "Hits": hits(),
            "The profiler's own health": health(),
        },
    )
}


def main() -> int:
    """Write the dashboards, or compare them with those on disk; return the exit status."""
    parser = argparse.ArgumentParser(description="Write the Grafana dashboards.")
    parser.add_argument("--check", action="store_true", help="only tell what is out of date")
    check = parser.parse_args().check
    outdated = 0
    for name, content in DASHBOARDS.items():
        path = FOLDER / name
        text = json.dumps(content, indent=2) + "\n"
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"{path} is out of date: run python {__file__}", file=sys.stderr)
            outdated = 1
    return outdated


if __name__ == "__main__":
    sys.exit(main())
