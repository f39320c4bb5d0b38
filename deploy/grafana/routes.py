"""The dashboard `routes`: what requests cost, by the route that they take."""

from panels import EVERYTHING_ELSE, Json, dashboard, graph, one_of, table
from queries import (
    OBSERVED,
    PROCESSES,
    ROUTE_CPU,
    ROUTE_REQUESTS,
    ROUTE_WAIT,
    in_range,
    per_second,
    process_choices,
    top,
    total,
)


def routes() -> list[Json]:
    """What requests cost, in all and each."""
    by, legend = "route", "{{route}}"
    cpu, cpu_total = total(per_second(ROUTE_CPU), by), total(in_range(ROUTE_CPU), by)
    wait, wait_total = total(per_second(ROUTE_WAIT), by), total(in_range(ROUTE_WAIT), by)
    requests = f"({total(per_second(ROUTE_REQUESTS), by)} > 0)"
    requests_total = f"({total(in_range(ROUTE_REQUESTS), by)} > 0)"
    observed = f'{PROCESSES}, state="cpu"'
    top_cpu = top(cpu, by, cpu_total)

    def row(values: str) -> str:
        return top(values, by, cpu_total)

    return [
        graph(
            "CPU by route",
            "Cores busy for requests of the route. Stacked: the upper edge is all requests. "
            "Dashed: all CPU of the processes, what is for no request included.",
            {
                legend: top_cpu,
                EVERYTHING_ELSE: f"clamp_min({total(cpu)} - {total(top_cpu)}, 0)",
            },
            reference={"all CPU": total(per_second(OBSERVED, observed))},
            axis="cores",
            stacked=True,
        ),
        graph(
            "CPU per request and route",
            "CPU that a request of the route takes, on average.",
            {legend: top(f"{cpu} / {requests}", by, cpu_total)},
            unit="s",
        ),
        graph(
            "Wait per request and route",
            "Time that a request of the route takes and uses no CPU in, on average: for I/O, a "
            "lock, a timer, the GIL, its turn on the event loop.",
            {legend: top(f"{wait} / {requests}", by, cpu_total)},
            unit="s",
        ),
        graph(
            "Requests by route",
            "Requests of the route that end, per second.",
            {legend: top(total(per_second(ROUTE_REQUESTS), by), by, cpu_total)},
            unit="reqps",
        ),
        table(
            "Routes: the range shown",
            "The routes that took most CPU: all of it, its share of what requests took, and CPU "
            "and wait of a request on average.",
            [by],
            {
                "CPU": (row(cpu_total), "s"),
                "CPU share": (row(f"{cpu_total} / scalar({total(cpu_total)})"), "percentunit"),
                "CPU per request": (row(f"{cpu_total} / {requests_total}"), "s"),
                "Wait per request": (row(f"{wait_total} / {requests_total}"), "s"),
                "Requests": (row(total(in_range(ROUTE_REQUESTS), by)), "short"),
            },
        ),
    ]


DASHBOARD = dashboard(
    "ox-otel-routes",
    "ox_otel: cost by route",
    "What the requests of profiled processes cost, by the template of the route that they take.",
    [*process_choices(), one_of("top", ["5", "10", "20", "50"], "10")],
    {"Routes": routes()},
)
