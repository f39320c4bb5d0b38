"""The settings: one frozen object, read from arguments and `OX_OTEL_*` variables."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypedDict, Unpack

from ox_otel._values import (
    as_host,
    as_number,
    as_one_of,
    as_path,
    as_port,
    as_recorders,
    as_token,
    as_truth,
    as_whole,
    as_words,
)
from ox_otel.recorders import Recorder

PREFIX = "OX_OTEL_"


class Arguments(TypedDict, total=False):
    """The settings as keyword arguments, in the forms that Python code would use."""

    enabled: bool | str
    start_paused: bool | str
    master: bool | str
    engine: str
    interval: float | str
    recorders: str | Iterable[str | Recorder]
    max_series: int | str
    max_overhead: float | str
    max_depth: int | str
    include: str | Iterable[str]
    exclude: str | Iterable[str]
    tree: str
    routes: bool | str
    file_paths: bool | str
    host: str
    port: int | range | str | None
    token: str | None
    run_dir: str | os.PathLike[str] | None
    kill_file: str | os.PathLike[str] | None


class ConfigError(ValueError):
    """A setting is wrong; the message names the variable, its value and what is accepted."""


def _setting(default: Any, read: Callable[[Any], Any], accepts: str, meaning: str) -> Any:
    """Declare a setting; what it *accepts* and its *meaning* are the README's words."""
    metadata = {"read": read, "accepts": accepts, "meaning": meaning}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can be set: an argument wins over the environment, the environment over the default.

    Raises:
        ConfigError: a value is not accepted.
    """

    enabled: bool = _setting(
        True, as_truth, "true or false", "`false`: `install()` starts nothing at all"
    )
    start_paused: bool = _setting(
        False, as_truth, "true or false", "wait for `unpause()` before the first sample"
    )
    master: bool = _setting(
        False,
        as_truth,
        "true or false",
        "sample the master of gunicorn, Celery or uWSGI, too, once it has forked workers",
    )
    engine: str = _setting(
        "auto",
        as_one_of("auto", "threads", "ticks"),
        "auto, threads or ticks",
        "who tells what CPU is used for: samples of all threads, or the kernel's ticks on Linux; `auto` "
        "takes ticks where they can be had and are proven, `threads` interrupts no thread",
    )
    interval: float = _setting(
        0.02,
        as_number(0.001, 60),
        "seconds from 0.001 to 60",
        "mean time between two samples; with ticks, a thread has two in so much of its CPU, and "
        "samples come each five intervals, or as often as with `threads` while threads come and go",
    )
    recorders: tuple[str | Recorder, ...] = _setting(
        ("prometheus",),
        as_recorders,
        "prometheus, otel, otlp_profiles, package.module:factory, separated by commas",
        "who gets the figures; in Python also objects with a `record` method",
    )
    max_series: int = _setting(
        2000,
        as_whole(100, 100_000),
        "a whole number from 100 to 100000",
        "most series published; a function takes six, a node of the tree two",
    )
    max_overhead: float = _setting(
        0.01,
        as_number(0.0001, 1),
        "a fraction from 0.0001 to 1",
        "most CPU that profiling may use, as a fraction of one core",
    )
    max_depth: int = _setting(
        64,
        as_whole(1, 1000),
        "a whole number from 1 to 1000",
        "most frames of a stack looked at, from the top; callers beyond are not seen",
    )
    include: tuple[str, ...] = _setting(
        (),
        as_words,
        "globs of module names, separated by commas",
        "modules to show; others count for the function that called them (empty: all)",
    )
    exclude: tuple[str, ...] = _setting(
        (), as_words, "globs of module names, separated by commas", "modules not to show"
    )
    tree: str = _setting(
        "cpu",
        as_one_of("cpu", "wall", "off"),
        "cpu, wall or off",
        "time that the tree for flame graphs is of (`wall` is `cpu` and `wait`); it takes half of "
        "the series",
    )
    routes: bool = _setting(
        True,
        as_truth,
        "true or false",
        "count what requests cost, by route; `false`: middlewares, tags and spans do nothing, and "
        "functions have the series",
    )
    file_paths: bool = _setting(
        False,
        as_truth,
        "true or false",
        "tell OpenTelemetry the files of functions, too (`code.file.path`)",
    )
    host: str = _setting(
        "127.0.0.1", as_host, "an address or a host name", "where our own endpoint listens"
    )
    port: int | range | str | None = _setting(
        None,
        as_port,
        "a port (0: any free one), a range like 9100-9115, or unix:/path/{pid}.sock",
        "where our own endpoint listens (unset: there is none); each worker finds a place of its own "
        "in a range, or where `{pid}` stands for it",
    )
    token: str | None = _setting(
        None,
        as_token,
        "at least 16 ASCII characters without spaces",
        "bearer token for everything but `/metrics`; required where `OX_OTEL_HOST` is not loopback",
    )
    run_dir: str | None = _setting(
        None,
        as_path,
        "a path",
        "folder of the service, of mode 0700: what is wished of one of its processes over HTTP, all do",
    )
    kill_file: str | None = _setting(
        None, as_path, "a path", "sampling is suspended while this file exists, or nobody can tell"
    )

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if value is not setting.default:
                object.__setattr__(self, setting.name, _read(setting, value))

    def __repr__(self) -> str:
        shown = (f"{name}={_shown(name, value)}" for name, value in vars(self).items())
        return f"Settings({', '.join(shown)})"

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, **arguments: Unpack[Arguments]
    ) -> "Settings":
        """Return the settings of *environ* (default: the process's), overruled by *arguments*.

        A variable that is set but empty counts as not set.

        Raises:
            ConfigError: a value is not accepted, or an argument is unknown.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {
            setting.name: environ[variable(setting.name)]
            for setting in fields(cls)
            if environ.get(variable(setting.name))
        }
        names = [setting.name for setting in fields(cls)]
        for name, value in arguments.items():
            if name not in names:
                # without its value, which may be that of a misspelt `token`
                raise ConfigError(f"{name} is not a setting; accepted are {', '.join(names)}")
            values[name] = value
        return cls(**values)


def variable(name: str) -> str:
    """Return the environment variable of the setting *name*."""
    return PREFIX + name.upper()


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the variables in *environ* that look like settings and are none, sorted."""
    known = {variable(setting.name) for setting in fields(Settings)}
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)


def accepted(name: str, value: object) -> Any:
    """Return *value* as the setting *name* holds it.

    Raises:
        ConfigError: the value is not accepted.
    """
    return _read(Settings.__dataclass_fields__[name], value)


def table() -> str:
    """Return the settings as the table in the README."""
    lines = ["| variable | default | accepts | meaning |", "|---|---|---|---|"]
    for setting in fields(Settings):
        default = setting.default
        if isinstance(default, tuple):
            default = ",".join(default)
        text = {"None": "unset", "": "empty"}.get(str(default), str(default))
        text = text.lower() if isinstance(default, bool) else text
        words = setting.metadata
        lines.append(
            f"| `{variable(setting.name)}` | {text} | {words['accepts']} | {words['meaning']} |"
        )
    return "\n".join(lines)


def _read(setting: Field[Any], value: object) -> Any:
    try:
        return setting.metadata["read"](value)
    except (ValueError, TypeError, OverflowError):
        raise ConfigError(
            f"{variable(setting.name)} (argument {setting.name}): "
            f"{_shown(setting.name, value)} is not accepted; "
            f"accepted: {setting.metadata['accepts']}"
        ) from None


def _shown(name: str, value: object) -> str:
    """Return *value* for people; a token never shows."""
    if name == "token" and value is not None:
        return "(hidden)"
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
