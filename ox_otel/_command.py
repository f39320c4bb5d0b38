"""The command line: run a program unchanged, profiled, or look at one that runs."""

import argparse
import builtins
import io
import os
import sys
from dataclasses import fields
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from types import CodeType, ModuleType
from typing import Any

from ox_otel._install import install
from ox_otel._settings import ConfigError, Settings

VIEWS = ("top", "flame")
"""What the command shows of a running service; a script of that name is run as `./top`."""


def main() -> None:
    """Run a program under the profiler, or show what one that runs elsewhere does."""
    if sys.argv[1:2] and sys.argv[1] in VIEWS:
        _look(sys.argv[1:])
    else:
        _run()


def _look(arguments: list[str]) -> None:
    """Show a view of a service in the terminal, if the library for that is there."""
    try:
        from ox_otel import _terminal
    except ModuleNotFoundError as error:
        sys.exit(f"ox-otel {arguments[0]}: {error}; pip install 'ox-otel[terminal]' brings it")
    _terminal.main(arguments)


def _run() -> None:
    """Install the profiler as the options say, then run the program as Python would."""
    parser = _parser()
    options = vars(parser.parse_args())
    module, program = options.pop("module"), options.pop("program")
    if module:
        program = module + program  # argparse ends the one at a `--` and begins the other
    elif program[:1] == ["--"]:
        del program[0]
    if not program:
        parser.error("no program given: app.py or -m module is needed")
    # before `install`, for the recorders that the program brings with it
    if not sys.flags.safe_path:
        sys.path[0] = os.getcwd() if module else os.path.dirname(os.path.realpath(program[0]))
    sys.argv = program
    try:
        install(**options)
        main_module, code = (_module if module else _script)(program[0])
    except (ConfigError, ImportError, OSError) as error:
        parser.error(str(error))
    # for good, unlike runpy: threads of the program may need its `__main__` when its end is reached
    sys.modules["__main__"] = main_module
    exec(code, main_module.__dict__)  # noqa: S102 - that is the task


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ox-otel",
        usage="%(prog)s [options] (app.py | -m module) [arguments of the program]\n"
        "       %(prog)s (top | flame) [--help] URL",
        description="Run a program unchanged, profiled; or look at one that runs.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for setting in fields(Settings):
        words = setting.metadata
        parser.add_argument(
            f"--{setting.name.replace('_', '-')}",
            metavar="VALUE",
            # a percent sign would be a format to argparse
            help=f"{words['meaning']} ({words['accepts']})".replace("%", "%%"),
        )
    rest = argparse.REMAINDER
    parser.add_argument("-m", dest="module", nargs=rest, default=[], help="module to run")
    parser.add_argument("program", nargs=rest, default=[], help="script to run")
    return parser


def _module(name: str) -> tuple[ModuleType, CodeType]:
    """Return the module `__main__` for `-m name`, and the code to run in it."""
    spec: Any = find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:  # a package
        spec = find_spec(f"{name}.__main__")
    code = None if spec is None else spec.loader.get_code(spec.name)
    if code is None:
        raise ImportError(f"there is no module {name} to run")
    sys.argv[0] = spec.origin
    main_module = _main_module(
        __file__=spec.origin, __spec__=spec, __loader__=spec.loader, __package__=spec.parent
    )
    return main_module, code


def _script(path: str) -> tuple[ModuleType, CodeType]:
    """Return the module `__main__` for the script at *path*, and the code to run in it."""
    path = os.path.abspath(path)
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    return _main_module(__file__=path, __loader__=SourceFileLoader("__main__", path)), code


def _main_module(**attributes: object) -> ModuleType:
    module = ModuleType("__main__")
    module.__dict__.update(attributes, __builtins__=builtins)
    return module
