"""The package as a whole: what it exports, imports and ships."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, files, metadata, version
from pathlib import Path
from types import ModuleType

import pytest

import ox_otel
from ox_otel import Profiler, Status
from ox_otel._page import FILES
from ox_otel._status import package_version

MODULES = [
    importlib.import_module(f"ox_otel.{found.name}")
    for found in pkgutil.iter_modules(ox_otel.__path__)
]


def public(module: ModuleType) -> list[str]:
    """Return the names in a module that it has for others."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]


def test_exports() -> None:
    """What `ox_otel` has to offer is in `__all__`, each name once, sorted."""
    assert sorted(set(public(ox_otel))) == ox_otel.__all__


def test_the_control_object() -> None:
    """The methods and figures that users rely on are there."""
    verbs = {"start", "pause", "unpause", "is_paused", "set_interval", "cancel"}
    assert verbs | {"status", "query", "show", "snapshot"} <= set(dir(Profiler))
    assert [
        "state",
        "reason",
        "engine",
        "interval",
        "samples",
        "missed",
        "errors",
        "overhead_ratio",
        "series",
        "series_limit",
        "last_sample_age",
        "pid",
    ] == [figure.name for figure in fields(Status)]


def documented(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Yield what others may use of a module: itself, and its public functions, classes, methods."""
    yield module.__name__, module
    for name in public(module):
        value = getattr(module, name)
        if getattr(value, "__module__", "") != module.__name__ or not callable(value):
            continue
        yield f"{module.__name__}.{name}", value
        for attribute, member in vars(value).items() if inspect.isclass(value) else ():
            member = getattr(member, "__func__", member)  # noqa: PLW2901 - of a class method
            if not attribute.startswith("_") and isinstance(member, property | type(documented)):
                yield f"{module.__name__}.{name}.{attribute}", member


def test_docstrings() -> None:
    """Every module, and everything in it that others may use, says what it is."""
    found = [pair for module in [ox_otel, *MODULES] for pair in documented(module)]
    assert len(found) > 100
    assert [] == [name for name, value in found if not inspect.getdoc(value)]


@pytest.mark.parametrize("statement", ["import ox_otel", "import ox_otel.testing"])
def test_imports(statement: str) -> None:
    """The core, and the suite for recorders, need the standard library alone."""
    # distributors of Python add private modules that it does not know of
    found = {name for name in imported(statement) if not name.startswith("_")}
    assert {"ox_otel"} == found - sys.stdlib_module_names


def test_dear_imports() -> None:
    """`import ox_otel` leaves out the parts of the standard library that cost much and serve later."""
    dear = {
        "argparse",
        "asyncio",
        "concurrent",
        "email",
        "http",
        "ipaddress",
        "json",
        "multiprocessing",
    }
    assert set() == dear & imported("import ox_otel")


def test_running_without_an_endpoint_needs_no_server() -> None:
    """Installed without a port, there is still no HTTP server in memory."""
    statement = "import ox_otel; ox_otel.install(recorders=''); ox_otel.uninstall()"
    assert set() == {"http", "socket", "json"} & imported(statement)


def imported(statement: str) -> set[str]:
    """Return the top-level modules that a statement brings into a bare interpreter."""
    script = (
        "import sys; before = set(sys.modules)\n"
        f"{statement}\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


def test_the_version() -> None:
    """The version is told once, in pyproject.toml; all else asks the installed distribution."""
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == version("ox-otel") == package_version()


def test_the_version_of_a_source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is installed, the version is not known, and that is no error."""

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    assert "unknown" == package_version.__wrapped__()  # past the cache


def test_what_is_shipped() -> None:
    """The distribution has every module, the mark that it is typed, and its licence."""
    shipped = {str(path) for path in files("ox-otel") or ()}
    expected = {f"ox_otel/{Path(str(module.__file__)).name}" for module in MODULES}
    expected |= {f"ox_otel/page/{name}" for name, _ in FILES.values()}
    assert expected | {"ox_otel/__init__.py", "ox_otel/py.typed"} <= shipped
    assert any(name.endswith("LICENSE") for name in shipped)
    assert "MIT" == metadata("ox-otel")["License-Expression"]
