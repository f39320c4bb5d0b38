"""Write the Grafana dashboards, JSON files in the folder `dashboards`.

    python deploy/grafana/dashboards.py           # write them
    python deploy/grafana/dashboards.py --check   # exit status 1 if one on disk is out of date

What they show stands in a module for each; how queries are put together in `queries`; how Grafana
wants to be told of panels in `panels`.
"""

import argparse
import json
import sys
from pathlib import Path

import flame
import health
import overview
import regressions
import routes

FOLDER = Path(__file__).parent / "dashboards"

DASHBOARDS = {
    f"{module.__name__}.json": module.DASHBOARD
    for module in (overview, flame, regressions, routes, health)
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
