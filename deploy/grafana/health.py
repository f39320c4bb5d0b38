"""The dashboard `health`: how the profiler itself is, process by process."""

from panels import Json, dashboard, graph, heatmap, states, table
from queries import (
    OBSERVED,
    OVERHEAD,
    PROCESS,
    PROCESS_LEGEND,
    PROCESSES,
    SAMPLES,
    SELF,
    per_second,
    process_choices,
    share,
    total,
)


def health() -> list[Json]:
    """How the profiler itself is, process by process."""
    running = f"ox_profile_running{{{PROCESSES}}}"
    interval = f"ox_profile_interval_seconds{{{PROCESSES}}}"
    ticking = f'max by ({PROCESS}) (ox_profile_info{{{PROCESSES}, engine="ticks"}})'
    intervals = total(f"{running} / {interval}", PROCESS)
    # with ticks a sample comes each five intervals
    asked_for = f"{intervals} / (1 + 4 * ({ticking} or 0 * {intervals}))"
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
            "Samples per second. Dashed: what the interval asks for, with the engine ticks one each "
            "five intervals; fewer are taken of a process that is idle.",
            {PROCESS_LEGEND: total(per_second(SAMPLES), PROCESS)},
            reference={f"{PROCESS_LEGEND}: asked for": asked_for},
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
            "How much later than asked samples were taken: with the engine threads most often for "
            "want of the GIL, with ticks for want of a core. Long delays do not tell who has them.",
            total(per_second("ox_profile_wakeup_delay_seconds_bucket"), "le"),
            unit="s",
        ),
        graph(
            "CPU under __unplaced__",
            "Share of the CPU of which only the caller's module is known: the thread was not seen "
            "running while it used it. With the engine ticks next to nothing.",
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


DASHBOARD = dashboard(
    "ox-otel-health",
    "ox_otel: the profiler's own health",
    "Whether the profiler samples, what it costs, what it misses and what it cannot tell.",
    process_choices(),
    {"State, cost and limits": health()},
)
