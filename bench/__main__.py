"""Measure ox_otel and its peers: `python -m bench [PART ...]`, all parts by default."""

import argparse
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version

from bench import batch, cost, imports, memory, scrape, ticks, truth
from bench.profilers import PROFILERS

PARTS = {
    "truth": truth.section,
    "ticks": ticks.section,
    "cost": cost.section,
    "scrape": scrape.section,
    "memory": memory.section,
    "import": imports.section,
    "batch": batch.section,
}

KEPT = "bench"
"""Where the results of a whole and full run are checked in."""


def main() -> None:
    """Run the parts that the command line names; print the results and write them down."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=str([*PARTS])
    )
    parser.add_argument("--quick", action="store_true", default=os.environ.get("BENCH") == "quick")
    parser.add_argument("--out", default="build/bench", help="folder for results.md and plots")
    arguments = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("the benchmark reads the CPU clocks of threads as Linux has them")
    os.makedirs(arguments.out, exist_ok=True)
    sections = [_head("BENCH=quick make bench" if arguments.quick else "make bench")]
    for part in arguments.parts or PARTS:
        sections.append(PARTS[part](arguments.out, quick=arguments.quick))
        print(sections[-1], flush=True)
    path = os.path.join(arguments.out, "results.md")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n\n".join(sections) + "\n")
    if not arguments.parts and not arguments.quick:
        for name in sorted(os.listdir(arguments.out)):
            if name.endswith((".md", ".svg")):
                shutil.copy(os.path.join(arguments.out, name), KEPT)


def _head(command: str) -> str:
    """Return by what, on what and with what this was measured."""
    machine = (
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()},"
        f" {platform.python_implementation()} {platform.python_version()},"
        f" load {os.getloadavg()[0]:.1f} at the start"
    )
    versions = ", ".join(_versions())
    return f"# Benchmark\n\nMade by `{command}`: {machine}.\n\n{versions}."


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _versions() -> list[str]:
    """Return what is compared, with its version or the fact that it is missing."""
    names = dict.fromkeys([*(p.distribution for p in PROFILERS.values()), "prometheus-client"])
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} **not installed**")
    return found


if __name__ == "__main__":
    main()
