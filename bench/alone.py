"""A measurement in a process of its own: what one leaves behind, no other sees."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

Case = tuple[Any, ...]

_LONGEST = 90.0  # seconds that a measurement may take


class FailedError(Exception):
    """A measurement that came to no result; its text says why."""


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what *function* of a module of ours returns in a new process.

    Arguments and result are what JSON can hold.

    Raises:
        FailedError: the process failed or took too long.
    """
    command = [sys.executable, "-m", "bench.alone", function.__module__, function.__name__]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    try:
        done = subprocess.run(
            [*command, json.dumps(arguments)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=_LONGEST,
        )
    except subprocess.TimeoutExpired:
        raise FailedError(f"no result in {_LONGEST:.0f} s") from None
    if done.returncode != 0:
        last_words = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise FailedError(last_words[0])
    return json.loads(done.stdout.splitlines()[-1])


def in_rounds(
    function: Callable[..., Any], cases: Iterable[Case], rounds: int
) -> tuple[dict[Case, list[Any]], dict[Case, str]]:
    """Return the results of *function* for each case, and of those that failed the reason.

    The cases take turns, so that whatever else the machine does meets all of them alike.
    """
    results: dict[Case, list[Any]] = {case: [] for case in cases}
    failures: dict[Case, str] = {}
    for turn in range(rounds):
        for case, found in results.items():
            if case in failures:
                continue
            try:
                found.append(alone(function, *case))
            except FailedError as failure:
                failures[case] = str(failure)
            outcome = failures.get(case, "done")
            print(f"{turn + 1}/{rounds} {function.__module__}{case}: {outcome}", file=sys.stderr)
    return results, failures


def main() -> None:
    """Run the function that the command line names and print its result as JSON."""
    module, function, arguments = sys.argv[1:]
    result = getattr(import_module(module), function)(*json.loads(arguments))
    print(f"\n{json.dumps(result)}", flush=True)
    os._exit(0)  # what profilers do at the end is not measured, nor waited for


if __name__ == "__main__":
    main()
