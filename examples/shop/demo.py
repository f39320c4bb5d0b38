"""A shop under load, profiled: the page, and what a real Prometheus answers, beside the truth.

    make demo                      until Ctrl-C
    DEMO_SECONDS=30 make demo      exit status 0 only if the expected functions were found

Where there is no Prometheus, the figures come from the profiler's own endpoint.
"""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import answers
from children import Children, free_port
from view import Comparison

HERE = Path(__file__).parent
PROMETHEUS_YML = HERE.parents[1] / "deploy" / "prometheus" / "prometheus.yml"
WARM_UP = 5  # seconds of load before the comparison begins: by then, each series exists
REFRESH = 2 if sys.stdout.isatty() else 5  # seconds
CLEAR = "\033[H\033[2J" if sys.stdout.isatty() else ""

Ask = Callable[[float], answers.Seconds]  # what has each function used in the last so many seconds?


def start_shop(children: Children, clients: int) -> tuple[str, str]:
    """Start the shop and its customers; return the URLs of the shop and of the profiler in it."""
    port, profiler_port = free_port(), free_port()
    shop, profiler = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{profiler_port}"
    command: list[str | Path] = [sys.executable, HERE / "service.py", f"--port={port}"]
    command += ["--threaded"] if clients > 1 else []
    children.start("service", *command, OX_OTEL_HOST="127.0.0.1", OX_OTEL_PORT=str(profiler_port))
    children.wait_for("service", f"{shop}/truth")
    children.start("load", sys.executable, HERE / "load.py", shop, f"--clients={clients}")
    return shop, profiler


def start_prometheus(children: Children, program: str, shop: str) -> str:
    """Start Prometheus with the configuration in deploy/, aimed at the shop; return its URL."""
    target = shop.removeprefix("http://")
    settings = PROMETHEUS_YML.read_text()
    settings = re.sub(r"scrape_interval: \w+", "scrape_interval: 1s", settings)
    settings = re.sub(r"targets: \[.*\]", f'targets: ["{target}"]', settings)
    config, data = children.folder / "prometheus.yml", children.folder / "data"
    config.write_text(settings)
    address = f"127.0.0.1:{free_port()}"
    places = [f"--config.file={config}", f"--storage.tsdb.path={data}"]
    children.start("prometheus", program, *places, f"--web.listen-address={address}")
    children.wait_for("prometheus", f"http://{address}/-/ready")
    return f"http://{address}"


def profiler_since_now(profiler: str) -> Ask:
    """Return what asks the profiler's own endpoint, in place of Prometheus."""

    def used() -> answers.Seconds:
        try:
            return answers.ask_profiler(profiler)
        except OSError:  # switched off: it has seen nothing
            return answers.Seconds()

    before = used()
    return lambda _: used() - before


def compare(children: Children, shop: str, ask: Ask, deadline: float) -> Iterator[Comparison]:
    """Yield what the profile and the shop say about the time since now, again and again."""
    began = time.monotonic()
    before, kinds = answers.ask_shop(shop)
    while True:
        time.sleep(max(1, min(REFRESH, deadline - time.monotonic())))
        children.check()
        elapsed = time.monotonic() - began
        yield Comparison(ask(elapsed), answers.ask_shop(shop)[0] - before, kinds, elapsed)
        if time.monotonic() >= deadline:
            return


def health(profiler: str) -> tuple[str, str]:
    """Return the profiler's engine, and how it is and what it costs, in a line."""
    try:
        status = json.loads(answers.get(f"{profiler}/status"))
    except OSError:
        return "", f"does not answer at {profiler}"
    return status["engine"], (
        f"{status['state']}, engine {status['engine']}, {status['samples']} samples,"
        f" {status['overhead_ratio']:.2%} of a core,"
        f" {status['series']} of at most {status['series_limit']} series"
    )


def run(children: Children, seconds: float, clients: int) -> int:
    """Run the demo for so many seconds or until Ctrl-C; return its exit status."""
    deadline = time.monotonic() + seconds
    found, verdict = False, "demo: ended before there was a profile"
    try:
        shop, profiler = start_shop(children, clients)
        print(f"demo: see where the shop's time goes, live: {profiler}/", flush=True)
        program = shutil.which("prometheus")
        prometheus = start_prometheus(children, program, shop) if program else None
        print(
            f"demo: the shop has opened, the first figures come in {WARM_UP + REFRESH} s",
            flush=True,
        )
        time.sleep(WARM_UP)
        if prometheus:
            source, ask = "Prometheus", partial(answers.ask_prometheus, prometheus)
            pictures = answers.graph_address(prometheus)
        else:
            source, ask = "the profiler", profiler_since_now(profiler)
            pictures = "not on this machine: the figures are from the profiler's own endpoint"
        for comparison in compare(children, shop, ask, deadline):
            found, verdict = comparison.verdict(source)
            engine, line = health(profiler)
            words = [
                f"page        {profiler}/",
                comparison.table(source, engine),
                f"profiler    {line}",
                f"shop        {shop}/recommend/7   {shop}/metrics",
                f"Prometheus  {pictures}",
            ]
            print(CLEAR, *words, sep="\n", end="\n\n", flush=True)
    except OSError:
        children.check()  # if one of them has ended, its last words say more
        raise
    except KeyboardInterrupt:
        found = True  # the user has seen enough
    print(verdict)
    return 0 if found else 1


def main() -> int:
    """Read the arguments, run the demo in a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=1, help="of the shop, a thread for each")
    parser.add_argument(
        "--seconds",
        type=float,
        default=os.environ.get("DEMO_SECONDS", "inf"),
        help="how long; without it as DEMO_SECONDS says, else until Ctrl-C",
    )
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with (
        tempfile.TemporaryDirectory(prefix="ox_otel_demo_") as name,
        Children(Path(name)) as children,
    ):
        return run(children, options.seconds, options.clients)


if __name__ == "__main__":
    sys.exit(main())
