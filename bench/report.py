"""Figures as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from statistics import median

from bench.alone import Case
from bench.profilers import PROFILERS

NONE = "-"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, its first column to the left, the others to the right."""
    rules = [":--", *["--:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rules, *rows))


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return the median of *values*, and from where to where they go if there are several."""
    if not values:
        return NONE
    low, middle, high = (f"{f(values):.{digits}f}" for f in (min, median, max))
    return middle if low == high else f"{middle} ({low} to {high})"


def promises(rows: Iterable[tuple[str, Sequence[float], float]]) -> str:
    """Return a table of what was promised: in words, as measured, and the limit for the median."""
    return table(
        ["promise", "measured", "at most", "kept"],
        [
            [
                what,
                spread(values, 2),
                f"{limit:g}",
                NONE if not values else "yes" if median(values) <= limit else "**no**",
            ]
            for what, values, limit in rows
        ],
    )


def absent(profilers: Iterable[str]) -> dict[str, str]:
    """Return those of *profilers* that are not installed here, each with the reason."""
    reasons = {}
    for name in profilers:
        try:
            version(PROFILERS[name].distribution)
        except PackageNotFoundError:
            reasons[name] = f"{PROFILERS[name].distribution} is not installed on this interpreter"
    return reasons


def failed(failures: Mapping[Case, str], missing: Mapping[str, str]) -> str:
    """Return what could not be measured, and why, as a list; empty if all could."""
    reasons = [f"- {name}: {reason}" for name, reason in missing.items()]
    reasons += [f"- {case}: {reason}" for case, reason in failures.items()]
    return "\n".join(["", "Not measured:", "", *reasons]) if reasons else ""
