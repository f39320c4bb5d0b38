"""How the queries of the dashboards are put together: metrics, matchers, rates, sums, shares."""

from panels import Json, datasource, label_choice

# --- Metrics, matchers and labels -----------------------------------------------------------------

SELF = "ox_profile_self_seconds_total"
INCLUSIVE = "ox_profile_seconds_total"
OBSERVED = "ox_profile_observed_seconds_total"
SELF_HITS = "ox_profile_self_hits_total"
HITS = "ox_profile_hits_total"
SAMPLES = "ox_profile_samples_total"
STACKS = "ox_profile_stacks_total"
OVERHEAD = "ox_profile_overhead_seconds_total"
TREE = "ox_profile_tree_seconds_total"
TREE_SELF = "ox_profile_tree_self_seconds_total"
ROUTE_CPU = "ox_profile_route_cpu_seconds_total"
ROUTE_WAIT = "ox_profile_route_wait_seconds_total"
ROUTE_REQUESTS = "ox_profile_route_requests_total"

# What the reader has chosen to see, with the variables at the top of the dashboard.
PROCESSES = 'job=~"$job", instance=~"$instance"'
CODE = f'{PROCESSES}, module=~"$module", function=~"$function"'

PROCESS = "job, instance"
PROCESS_LEGEND = "{{job}} {{instance}}"

FUNCTION = "module, function"
FUNCTION_LEGEND = "{{module}}.{{function}}"


def process_choices() -> list[Json]:
    """The variables that every dashboard begins with."""
    return [
        datasource(),
        label_choice("job", "label_values(ox_profile_running, job)"),
        label_choice("instance", 'label_values(ox_profile_running{job=~"$job"}, instance)'),
    ]


# --- Queries --------------------------------------------------------------------------------------


def per_second(counter: str, matchers: str = PROCESSES, before: str = "") -> str:
    """How fast the counter grows, at each point of a graph, or the time `before` earlier."""
    offset = f" offset {before}" if before else ""
    return f"rate({counter}{{{matchers}}}[$__rate_interval]{offset})"


def in_range(counter: str, matchers: str = PROCESSES, before: str = "") -> str:
    """How much the counter grew in the whole range shown: one number, at each point of a graph.

    Or in as long a range that lies the time `before` earlier.
    """
    offset = f" offset {before}" if before else ""
    return f"increase({counter}{{{matchers}}}[$__range]{offset} @ end())"


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
