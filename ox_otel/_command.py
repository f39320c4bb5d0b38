"""The command line: run a program unchanged, profiled."""

import argparse
import builtins
import io
import os
import runpy
import sys
from dataclasses import fields
from types import ModuleType

from ox_otel._install import install
from ox_otel._settings import ConfigError, Settings


def main() -> None:
    """Install the profiler as the options say, then run the program as Python would."""
    parser = _parser()
    options = vars(parser.parse_args())
    program, module = options.pop("program"), options.pop("module")
    if not (program or module):
        parser.error("no program given: app.py or -m module is needed")
    try:
        install(**options)
    except ConfigError as error:
        parser.error(str(error))
    if module:
        _run_module(*module)
    else:
        _run_script(*program)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ox-otel",
        usage="%(prog)s [options] (app.py | -m module) [arguments of the program]",
        description="Run a program unchanged, profiled.",
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


def _run_module(name: str, *arguments: str) -> None:
    if not sys.flags.safe_path:
        sys.path[0] = os.getcwd()
    sys.argv = [name, *arguments]  # runpy puts the module's file in the place of the name
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _run_script(path: str, *arguments: str) -> None:
    # not runpy.run_path: it takes the module `__main__` away again when the script ends, while
    # threads of the script may still need it
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    sys.argv = [path, *arguments]
    main_module = ModuleType("__main__")
    main_module.__dict__.update(__file__=path, __builtins__=builtins)
    sys.modules["__main__"] = main_module
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec")
    exec(code, main_module.__dict__)  # noqa: S102 - that is the task
