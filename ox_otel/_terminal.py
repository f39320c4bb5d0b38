"""Views of a running service in the terminal: `ox-otel top URL` and `ox-otel flame URL`."""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ox_otel._scraping import NoAnswer, Scrape, Seconds, fetch, scrape, used
from ox_otel.recorders import Function

COLUMNS = {"self-cpu": "self cpu %", "cpu": "cpu %", "self-wait": "self wait", "wait": "wait"}
"""What `top` sorts by, and shows."""

_HEADING_LINES = 5  # of the screen: two about the service, three of the table


def main(arguments: Sequence[str]) -> None:
    """Show what *arguments*, those of the command line, ask for."""
    options = _parser().parse_args(arguments)
    try:
        if options.view == "top":
            _top(options.url, options.interval, options.count, options.sort, options.limit)
        else:
            _flame(options.url, options.seconds, options.time, options.output)
    except (NoAnswer, OSError) as error:  # the latter of the file to write
        sys.exit(f"ox-otel {options.view}: {error}")
    except KeyboardInterrupt:
        pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ox-otel", description="Look at a profiled service.")
    views = parser.add_subparsers(dest="view", required=True)
    url = "address of the service: http://host:port or unix:/path (OX_OTEL_TOKEN is sent if set)"

    top = views.add_parser("top", help="which functions use CPU or wait, live")
    top.add_argument("url", metavar="URL", help=f"{url}; for `top` that of any metrics with ours")
    top.add_argument(
        "--interval", metavar="SECONDS", type=_positive, default=2.0, help="between two looks (2)"
    )
    top.add_argument(
        "--count", metavar="N", type=_natural, default=0, help="end after N tables (0: never)"
    )
    top.add_argument("--sort", choices=COLUMNS, default="self-cpu", help="hottest by this first")
    top.add_argument(
        "--limit", metavar="N", type=_natural, default=0, help="functions (0: as many as fit)"
    )

    flame = views.add_parser("flame", help="write the flame graph of some seconds to a file")
    flame.add_argument("url", metavar="URL", help=url)
    flame.add_argument("-o", "--output", metavar="FILE", default="flame.html", help="(flame.html)")
    flame.add_argument(
        "--seconds", metavar="N", type=_positive, default=10.0, help="to look at (10)"
    )
    flame.add_argument("--time", choices=["cpu", "wait", "wall"], default="cpu", help="(cpu)")
    return parser


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e6:  # not a number is neither
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return number


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no whole number")
    return int(text)


def _top(url: str, interval: float, count: int, order: str, limit: int) -> None:
    """Show what functions use, table by table: on a terminal in its place, else one by one."""
    console = Console(highlight=False)
    before = scrape(url)
    shown = 0
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            after = scrape(url)
            rows = limit or max(console.height - _HEADING_LINES, 1)
            picture = Group(_heading(url, before, after), _table(used(before, after), order, rows))
            if console.is_terminal:
                live.update(picture, refresh=True)
            else:
                console.print(picture)
            before = after
            shown += 1
            if shown == count:
                return


def _heading(url: str, before: Scrape, after: Scrape) -> Text:
    """Return two lines about the profiler."""
    elapsed = max(after.at - before.at, 1e-9)

    def rate(name: str) -> float:
        return max(after.totals.get(name, 0.0) - before.totals.get(name, 0.0), 0.0) / elapsed

    samples = rate("samples_total")
    running = "sampling" if after.totals.get("running", 0.0) else "not sampling"
    about = after.about
    parts = [running, *[f"{key} {about[key]}" for key in ("engine", "python") if key in about]]
    return Text(
        f"{url}  {', '.join(parts)}\n"
        f"{samples:.1f} samples/s, profiler {100 * rate('overhead_seconds_total'):.2f} % of a core,"
        f" {after.totals.get('series', 0.0):.0f} series",
        no_wrap=True,
        overflow="ellipsis",
    )


def _table(functions: Mapping[Function, Seconds], order: str, rows: int) -> Table:
    """Return the *rows* hottest functions; CPU in percent of a core, waits in threads."""
    place = list(COLUMNS).index(order)
    busy = [item for item in functions.items() if any(item[1])]
    busy.sort(key=lambda item: (item[1][place], item[1]), reverse=True)
    table = Table(box=None, header_style="bold", pad_edge=False, expand=True)
    for name, title in COLUMNS.items():
        table.add_column(
            title, justify="right", no_wrap=True, style="bold" if name == order else ""
        )
    table.add_column(f"function ({min(rows, len(busy))} of {len(busy)})", ratio=1, no_wrap=True)
    for function, seconds in busy[:rows]:
        table.add_row(
            f"{100 * seconds.self_cpu:.1f}",
            f"{100 * seconds.cpu:.1f}",
            f"{seconds.self_wait:.2f}",
            f"{seconds.wait:.2f}",
            Text(str(function)),  # as text: a name may look like markup
        )
    return table


def _flame(url: str, seconds: float, time_of: str, path: str) -> None:
    """Have the service capture for some *seconds*, and write its flame graph to *path*."""
    is_new = not os.path.lexists(path)
    with open(path, "ab"):  # whether it can be written is better known before than after
        pass
    try:
        page = _captured(url, seconds, time_of)
    except BaseException:
        if is_new:
            os.unlink(path)
        raise
    with open(path, "wb") as file:
        file.write(page)
    Console().print(path, markup=False, highlight=False, soft_wrap=True)


def _captured(url: str, seconds: float, time_of: str) -> bytes:
    """Return the flame graph of some *seconds*, and show how far it is."""
    root = url.removesuffix("/").removesuffix("/metrics")
    query = f"/profile?format=html&seconds={seconds:g}&time={time_of}"
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"capturing {seconds:g} s of {time_of}", total=seconds)
        began = time.monotonic()
        return fetch(root, query, lambda: progress.update(task, completed=time.monotonic() - began))
