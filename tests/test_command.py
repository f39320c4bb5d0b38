"""The command line: a program runs under it exactly as it does without, but is profiled."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from ox_otel import Settings

TELL = """
import json, sys
main = sys.modules["__main__"]
print(json.dumps({
    "argv": sys.argv,
    "path": sys.path,
    "name": __name__,
    "file": __file__,
    "package": __package__,
    "spec": __spec__ and [__spec__.name, __spec__.origin],
    "loader": type(__loader__).__name__,
    "doc": __doc__,
    "builtins": str(__builtins__),
    "globals are those of the module": main.__dict__ is globals(),
    "source of the code": sys._getframe().f_code.co_filename,
    "its name": sys._getframe().f_code.co_name,
}, indent=1))
"""

ARGUMENTS = ["-x", "--port", "5", "--", "-m", "mod", "--interval=1", "-h", "--", "", "a b"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a script, a module and a package, each of which tells how it is run."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "package").mkdir()
    for place in ("app.py", "sub/app.py", "package/__main__.py", "package/module.py"):
        (tmp_path / place).write_text(f'"""The doc."""\n{TELL}', encoding="utf-8")
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "link.py").symlink_to(tmp_path / "sub" / "app.py")
    return tmp_path


def python(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with no settings but those given as variables."""
    return run([sys.executable, *arguments], folder, environ)


def run(
    command: list[str], folder: Path, environ: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with no settings but those given as variables."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("OX_OTEL_")}
    return subprocess.run(
        command,
        cwd=folder,
        env=others | environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "program",
    [
        ["app.py"],
        ["sub/app.py"],
        ["link.py"],
        ["-m", "app"],
        ["-m", "package"],
        ["-m", "package.module"],
    ],
    ids=" ".join,
)
def test_a_program_sees_no_difference(folder: Path, program: list[str]) -> None:
    """Arguments, path and everything about `__main__` are as with plain Python."""
    plain = python(folder, *program, *ARGUMENTS)
    profiled = python(folder, "-m", "ox_otel", "--interval", "0.5", *program, *ARGUMENTS)
    assert (0, "") == (profiled.returncode, profiled.stderr)
    assert json.loads(plain.stdout) == json.loads(profiled.stdout)


@pytest.mark.parametrize("program", [["app.py"], ["-m", "app"]], ids=" ".join)
def test_a_safe_path_stays_safe(folder: Path, program: list[str]) -> None:
    """Where Python must not add a folder to the path, we do not either."""
    environ = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join([*sys.path, str(folder)])}
    plain = python(folder, *program, **environ)
    profiled = python(folder, "-m", "ox_otel", *program, **environ)
    assert json.loads(plain.stdout) == json.loads(profiled.stdout)


def test_options_end_at_two_dashes(folder: Path) -> None:
    """As with other commands, `--` says that the program comes next."""
    profiled = python(folder, "-m", "ox_otel", "--interval", "0.5", "--", "app.py", "--", "x")
    assert ["app.py", "--", "x"] == json.loads(profiled.stdout)["argv"]


def test_a_program_is_profiled(tmp_path: Path) -> None:
    """The profiler runs with the options given, which win over the environment."""
    (tmp_path / "app.py").write_text(
        "import ox_otel, urllib.request\n"
        "profiler = ox_otel.get()\n"
        "print(profiler.status().state, profiler.status().interval, profiler.status().series_limit)\n"
        "print(urllib.request.urlopen(profiler.url + '/metrics').status)\n"
    )
    options = ["--interval=0.5", "--port", "0"]
    environ = {"OX_OTEL_INTERVAL": "7", "OX_OTEL_MAX_SERIES": "500"}
    profiled = python(tmp_path, "-m", "ox_otel", *options, "app.py", **environ)
    assert ("running 0.5 500\n200\n", "") == (profiled.stdout, profiled.stderr)


ENDS = {
    "at the end": "",
    "exit": "raise SystemExit(3)",
    "exit with text": "raise SystemExit('enough')",
    "error": "raise ValueError('wrong')",
    "error in the source": "def",
    "exit at once": "import os; os._exit(4)",
    "signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "interrupt": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
}


@pytest.mark.parametrize("end", ENDS)
def test_how_a_program_ends(tmp_path: Path, end: str) -> None:
    """The exit status is the program's, and so is what it says at last."""
    (tmp_path / "app.py").write_text(ENDS[end])
    plain = python(tmp_path, "app.py")
    profiled = python(tmp_path, "-m", "ox_otel", "app.py")
    assert plain.returncode == profiled.returncode
    assert plain.stderr.splitlines()[-3:] == profiled.stderr.splitlines()[-3:]


LATER = """
import pickle, threading, time, ox_otel

class Thing:
    pass

def later():
    threading.main_thread().join()
    print(type(pickle.loads(pickle.dumps(Thing()))) is Thing, ox_otel.get().status().state)

threading.Thread(target=later).start()
"""


@pytest.mark.parametrize("program", [["app.py"], ["-m", "app"]], ids=" ".join)
def test_threads_that_outlive_the_program(tmp_path: Path, program: list[str]) -> None:
    """When the program's text has ended, its threads still have its `__main__` and the profiler."""
    (tmp_path / "app.py").write_text(LATER)
    profiled = python(tmp_path, "-m", "ox_otel", *program)
    assert ("True running\n", "") == (profiled.stdout, profiled.stderr)


POOL = """
import multiprocessing

def square(number):
    return number * number

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(square, [1, 2, 3]))
"""


@pytest.mark.parametrize("program", [["app.py"], ["-m", "app"]], ids=" ".join)
def test_children_find_the_program(tmp_path: Path, program: list[str]) -> None:
    """Functions of `__main__` can be sent to children that multiprocessing spawns."""
    (tmp_path / "app.py").write_text(POOL)
    profiled = python(tmp_path, "-m", "ox_otel", *program)
    assert ("[1, 4, 9]\n", "") == (profiled.stdout, profiled.stderr)


def test_a_recorder_of_the_program(tmp_path: Path) -> None:
    """A recorder may stand beside the script, wherever the command is given."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mine.py").write_text("from ox_otel import CountingRecorder as make")
    (tmp_path / "sub" / "app.py").write_text("import sys; print('mine' in sys.modules)")
    profiled = python(tmp_path, "-m", "ox_otel", "--recorders", "mine:make", "sub/app.py")
    assert ("True\n", "") == (profiled.stdout, profiled.stderr)


WRONG = {
    "a value": (["--interval", "soon", "app.py"], "'soon' is not accepted; accepted: seconds from"),
    "a recorder": (["--recorders", "no:where", "app.py"], "No module named 'no'"),
    "an option": (["--bogus", "app.py"], "unrecognized arguments"),
    "an abbreviation": (["--inter", "1", "app.py"], "unrecognized arguments"),
    "no value": (["--interval"], "expected one argument"),
    "no program": (["--interval", "1"], "no program given"),
    "nothing": ([], "no program given"),
    "no module": (["-m"], "no program given"),
    "a missing script": (["missing.py"], "No such file or directory: "),
    "a missing module": (["-m", "missing"], "there is no module missing to run"),
    "a missing package": (["-m", "missing.module"], "No module named 'missing'"),
    "a module in C": (["-m", "sys"], "there is no module sys to run"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_command(tmp_path: Path, what: str) -> None:
    """What is wrong is said in one line after the usage, with exit status 2, and nothing is run."""
    (tmp_path / "app.py").write_text("print('I ran')")
    arguments, message = WRONG[what]
    profiled = python(tmp_path, "-m", "ox_otel", *arguments)
    assert (2, "") == (profiled.returncode, profiled.stdout)
    usage, *_, last = profiled.stderr.splitlines()
    assert usage.startswith("usage: ox-otel [options] (app.py | -m module)")
    assert last.startswith("ox-otel: error: ")
    assert message in last
    assert "Traceback" not in profiled.stderr


def test_help(tmp_path: Path) -> None:
    """The help names every setting."""
    shown = python(tmp_path, "-m", "ox_otel", "--help")
    assert (0, "") == (shown.returncode, shown.stderr)
    for setting in fields(Settings):
        assert f"--{setting.name.replace('_', '-')} VALUE" in shown.stdout


def test_the_script(folder: Path) -> None:
    """`ox-otel` is the same as `python -m ox_otel`."""
    script = Path(sys.executable).with_name("ox-otel")
    assert script.exists(), "the package is not installed"
    for program in (["sub/app.py"], ["-m", "package"]):
        by_script = run([str(script), *program, *ARGUMENTS], folder, {})
        by_module = python(folder, "-m", "ox_otel", *program, *ARGUMENTS)
        assert (0, "") == (by_script.returncode, by_script.stderr)
        assert by_module.stdout == by_script.stdout
