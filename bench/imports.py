"""What does an import cost, and what does it bring along?"""

import subprocess
import sys

from bench.alone import in_rounds
from bench.report import NONE, failed, spread, table

MODULES = (
    "ox_otel",
    "ox_otel.prometheus",
    "prometheus_client",
    "ox_profile.core.launchers",
    "pyinstrument",
    "sentry_sdk.profiler",
    "pyroscope",
    "ddtrace.profiling",
)

PROGRAM = """
import sys, time
began = time.process_time()
import {module}
print(1000 * (time.process_time() - began))
tops = {{name.partition(".")[0] for name in sys.modules}} - set(sys.stdlib_module_names)
tops = {{name for name in tops if not name.startswith("__")}}  # what pip or the program brings
print(len(tops - {{"{module}".partition(".")[0]}}))
"""


def measure(module: str) -> list[float]:
    """Return the CPU milliseconds of importing *module* and the number of foreign packages."""
    # an interpreter of its own: this one has already imported what many modules need
    command = [sys.executable, "-c", PROGRAM.format(module=module)]
    subprocess.run(command, check=True, capture_output=True)  # so that it is compiled
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(line) for line in done.stdout.split()]


def section(_folder: str, *, quick: bool) -> str:
    """Return the results as Markdown."""
    rounds = 3 if quick else 9
    results, failures = in_rounds(measure, [(module,) for module in MODULES], rounds)
    return "\n".join(
        [
            "## Import",
            "",
            "CPU of the import in a new interpreter, compiled before.",
            "",
            table(
                ["module", "ms", "packages of others"],
                [
                    [
                        f"`{module}`",
                        spread([ms for ms, _ in found]),
                        str(max(int(others) for _, others in found)) if found else NONE,
                    ]
                    for (module,), found in results.items()
                ],
            ),
            failed(failures, {}),
        ]
    )
