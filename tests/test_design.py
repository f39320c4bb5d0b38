"""The table of scenarios in DESIGN.md: none is left out, and the tests that it names are there."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
SCENARIOS = 56

AWAITED = {15, 16, 21, *range(23, 28), 29, *range(37, 40), 42, 44, 53}
"""Scenarios whose guards are not in this version yet."""


def rows() -> list[list[str]]:
    """Return the cells of each row of the table."""
    design = (TESTS.parent / "DESIGN.md").read_text(encoding="utf-8")
    _, _, section = design.partition("\n## Scenarios\n")
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("| S")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_scenario_stands_in_the_table_once() -> None:
    """Scenarios are all there, in their order, each with what happens and what keeps it away."""
    wanted = [number for number in range(1, SCENARIOS + 1) if number not in AWAITED]
    assert [f"S{number}" for number in wanted] == [row[0] for row in rows()]
    assert [] == [row for row in rows() if len(row) != 4 or not all(row)]


def test_the_tests_in_the_table_exist() -> None:
    """Each row names tests that there are, or says why the scenario does not apply."""
    there = {
        f"{file.stem}.{node.name}"
        for file in TESTS.rglob("test_*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    named = {row[0]: re.findall("`([^`]*)`", row[3]) for row in rows()}
    assert {} == {row: tests for row, tests in named.items() if not {*tests} <= there}
    assert [] == [row for row in rows() if not named[row[0]] and "does not apply" not in row[2]]
