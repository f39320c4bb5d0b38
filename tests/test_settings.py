"""Settings: what is accepted, what wins, and what is said where something is wrong."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ox_otel import Batch, ConfigError, CountingRecorder, Settings
from ox_otel._settings import Arguments, accepted, table, unknown_variables, variable

NAMES = [setting.name for setting in fields(Settings)]
TOKEN = "0123456789abcdef"  # noqa: S105
RECORDER = CountingRecorder()


def test_the_defaults() -> None:
    """Without arguments and variables, settings are what the contract says."""
    expected = {
        "enabled": True,
        "start_paused": False,
        "master": False,
        "engine": "auto",
        "interval": 0.02,
        "recorders": ("prometheus",),
        "max_series": 2000,
        "max_overhead": 0.01,
        "max_depth": 64,
        "include": (),
        "exclude": (),
        "tree": "cpu",
        "routes": True,
        "file_paths": False,
        "host": "127.0.0.1",
        "port": None,
        "token": None,
        "run_dir": None,
        "kill_file": None,
    }
    assert expected == vars(Settings.from_env({}))


ACCEPTED: list[tuple[str, str, Any]] = [
    ("enabled", "False", False),
    ("enabled", "on", True),
    ("start_paused", " yes ", True),
    ("start_paused", "0", False),
    ("master", "true", True),
    ("engine", "Threads", "threads"),
    ("engine", "ticks", "ticks"),
    ("interval", "0.001", 0.001),
    ("interval", "60", 60.0),
    ("interval", "5e-2", 0.05),
    ("recorders", "otel, my.package:Factory,", ("otel", "my.package:Factory")),
    ("max_series", "100", 100),
    ("max_series", "100000", 100_000),
    ("max_overhead", "1", 1.0),
    ("max_depth", "1000", 1000),
    ("include", "shop.*, lib", ("shop.*", "lib")),
    ("exclude", ",", ()),
    ("tree", "Wall", "wall"),
    ("tree", "off", "off"),
    ("routes", "off", False),
    ("file_paths", "on", True),
    ("host", "::1", "::1"),
    ("host", "münchen.example", "münchen.example"),
    ("port", "0", 0),
    ("port", "65535", 65_535),
    ("port", "9100-9115", range(9100, 9116)),
    ("port", "unix:/run/shop/{pid}.sock", "unix:/run/shop/{pid}.sock"),
    ("token", TOKEN, TOKEN),
    ("run_dir", "/run/shop", "/run/shop"),
    ("kill_file", "/run/off switch", "/run/off switch"),
]


@pytest.mark.parametrize(("name", "text", "expected"), ACCEPTED)
def test_a_value_as_variable_and_as_argument(name: str, text: str, expected: object) -> None:
    """A text means the same as a variable and as an argument."""
    assert expected == getattr(Settings.from_env({variable(name): text}), name)
    arguments: dict[str, Any] = {name: text}
    assert expected == getattr(Settings.from_env({}, **arguments), name)


def test_every_setting_is_tried() -> None:
    """The lists of values here leave no setting out."""
    assert set(NAMES) == {name for name, _, _ in ACCEPTED}
    assert NAMES == list(REFUSED)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("enabled", False, False),
        ("interval", 1, 1.0),
        ("recorders", ["prometheus", RECORDER], ("prometheus", RECORDER)),
        ("recorders", [], ()),
        ("include", ["shop.*"], ("shop.*",)),
        ("port", None, None),
        ("port", range(9100, 9116), range(9100, 9116)),
        ("kill_file", Path("/run/off"), "/run/off"),
    ],
)
def test_python_forms(name: str, value: object, expected: object) -> None:
    """Arguments may be what Python code would naturally use."""
    arguments: dict[str, Any] = {name: value}
    assert expected == getattr(Settings.from_env({}, **arguments), name)


@pytest.mark.parametrize("name", ["run_dir", "kill_file"])
def test_a_path_means_what_it_did_at_the_start(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path is that of the folder which the process works in now, not of one it may change to."""
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path / "it") == getattr(Settings.from_env({variable(name): "it"}), name)
    folder = tmp_path / "removed"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert "it" == getattr(Settings.from_env({variable(name): "it"}), name)


def test_an_argument_wins_over_the_environment() -> None:
    """Arguments win, also one that takes a variable's value back."""
    environ = {"OX_OTEL_INTERVAL": "1", "OX_OTEL_PORT": "9000", "OX_OTEL_MAX_DEPTH": "5"}
    settings = Settings.from_env(environ, interval=2, port=None)
    assert (2.0, None, 5) == (settings.interval, settings.port, settings.max_depth)


def test_an_argument_wins_over_a_variable_that_is_wrong() -> None:
    """A variable that is overruled is not looked at."""
    assert 1.0 == Settings.from_env({"OX_OTEL_INTERVAL": "soon"}, interval=1).interval


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_variable_is_not_set(name: str) -> None:
    """A variable that is set but empty leaves the default."""
    assert Settings() == Settings.from_env({variable(name): ""})


def test_the_process_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an environment given, it is that of the process."""
    monkeypatch.setenv("OX_OTEL_INTERVAL", "3")
    assert 3.0 == Settings.from_env().interval


REFUSED: dict[str, list[Any]] = {
    "enabled": ["maybe", "", 1, None, b"true"],
    "start_paused": ["2", 0.0],
    "master": ["gunicorn", 1],
    "engine": ["", "gpu", None, b"auto", ["auto"]],
    "interval": [
        *("", "soon", "nan", "inf", "-inf", "-1", "0", "0.0009", "61", "1e999"),
        *(True, None, b"1", [1], 1j, float("nan"), 10**400),
    ],
    "recorders": [
        *("statsd", "prometheus,x", ":make", "module:", "a.b"),
        *(b"prometheus", None, 5, [None], [object()]),
        *([CountingRecorder], CountingRecorder, RECORDER),
    ],
    "max_series": ["99", "100001", "1e3", 200.0, True, b"200", "9" * 5000],
    "max_overhead": ["0", "nan", "1.01", False],
    "max_depth": ["0", "-5", "1001", True],
    "include": [5, None, b"shop", [b"shop"]],
    "exclude": [5, [None]],
    "tree": ["", "wait", "on", None, True],
    "routes": ["/users", 1],
    "file_paths": ["/srv", 1],
    "host": ["", "a\nb", "a..b", "x" * 70, "\u200d", 127, None],
    "port": [
        *("-1", "65536", "http", True, 80.5, 10**100, "0-5", "9-8", "5-5", "1-65536", "1-2-3", "-"),
        *("unix:", "unix:relative", "unix:/a\0b", range(0), range(9, 3), range(1, 70_000)),
    ],
    "token": ["", "short", "with a space in it", "ключ" * 4, "\udcff" * 16, "a\n" * 16, 5],
    "run_dir": ["", "a\0b", 5, b"/run/shop"],
    "kill_file": ["", "a\0b", 5, b"/run/off"],
}


@pytest.mark.parametrize("name", NAMES)
def test_a_value_that_is_not_accepted(name: str) -> None:
    """The error names the variable, the value and what would be accepted."""
    accepts = Settings.__dataclass_fields__[name].metadata["accepts"]
    for value in REFUSED[name]:
        arguments: dict[str, Any] = {name: value}
        with pytest.raises(ConfigError) as caught:
            Settings.from_env({}, **arguments)
        shown = "(hidden)" if name == "token" else repr(value)
        shown = shown if len(shown) <= 100 else shown[:97] + "..."
        assert str(caught.value) == (
            f"{variable(name)} (argument {name}): {shown} is not accepted; accepted: {accepts}"
        )


def test_an_unknown_argument() -> None:
    """A misspelt argument is an error that lists the names, and does not show its value."""
    misspelt: dict[str, Any] = {"tokn": TOKEN}
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({}, **misspelt)
    assert f"tokn is not a setting; accepted are {', '.join(NAMES)}" == str(caught.value)


def test_a_token_never_shows() -> None:
    """Neither the settings nor an error about it show the token."""
    assert TOKEN not in repr(Settings(token=TOKEN))
    with pytest.raises(ConfigError) as caught:
        Settings(token=f"{TOKEN} and a space")
    assert TOKEN not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_long_value_is_cut() -> None:
    """An error stays readable, however long the value."""
    with pytest.raises(ConfigError) as caught:
        Settings(interval="x" * 100_000)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 300


def test_one_setting_at_run_time() -> None:
    """A single value is checked like that of an argument."""
    assert 0.5 == accepted("interval", "0.5")
    with pytest.raises(ConfigError, match="OX_OTEL_INTERVAL"):
        accepted("interval", "nan")


def test_unknown_variables() -> None:
    """What begins like our variables and is none is found, and nothing else."""
    environ = {"OX_OTEL_TOKN": "x", "OX_OTEL_PORT": "1", "OX_OTEL_A": "", "PATH": "", "OX_": ""}
    assert ["OX_OTEL_A", "OX_OTEL_TOKN"] == unknown_variables(environ)


def test_a_recorder_is_whatever_records() -> None:
    """An object of any class serves, as long as it has the method."""

    class Mine:
        def record(self, batch: Batch) -> None: ...

    mine = Mine()
    assert (mine,) == Settings(recorders=[mine]).recorders  # type: ignore[arg-type]


def test_arguments_are_the_settings() -> None:
    """The keyword arguments of `install` are exactly the settings."""
    assert NAMES == list(Arguments.__annotations__)


def test_the_table_in_the_readme() -> None:
    """The README's table of settings is the one made from the code."""
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    shown = re.findall("<!-- settings -->\n(.*?)\n<!-- /settings -->", readme, re.DOTALL)
    assert [table()] == [text.strip() for text in shown]


def test_the_table_is_a_table() -> None:
    """Every row has as many cells as the head, and every variable a row."""
    head, rule, *rows = table().splitlines()
    assert {head.count("|")} == {line.count("|") for line in (rule, *rows)}
    assert [f"`{variable(name)}`" for name in NAMES] == [row.split(" ")[1] for row in rows]


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@given(st.dictionaries(st.sampled_from([variable(name) for name in NAMES]), text))
def test_any_environment(environ: dict[str, str]) -> None:
    """Whatever variables hold, there are settings or a ConfigError, nothing else."""
    try:
        settings = Settings.from_env(environ)
    except ConfigError as error:
        assert any(name in str(error) for name in environ)  # noqa: PT017 - either is right
    else:
        assert 0.001 <= settings.interval <= 60
        assert 100 <= settings.max_series <= 100_000
