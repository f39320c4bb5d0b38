"""From what was given to what a setting holds: one reader for each kind of value.

A reader takes text, as the environment has it, or the value itself, as Python code gives it.

Raises:
    ValueError, TypeError or OverflowError: the value is not accepted.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeGuard, cast

from ox_otel.recorders import Recorder

OURS = ("prometheus", "otel", "otlp_profiles")
"""The recorders that are part of this package, by name."""

Port = int | range | str
"""A port, ports to choose from, or `unix:` with a path in which `{pid}` is the process."""


def as_truth(value: object) -> bool:
    """Return a yes or no, given as such or as a word for it."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise TypeError
    word = value.strip().lower()
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off"):
        return False
    raise ValueError


def as_one_of(*words: str) -> Callable[[object], str]:
    """Return a reader of one of *words*, in any case."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value.strip().lower() not in words:
            raise ValueError
        return value.strip().lower()

    return read


def as_number(lowest: float, highest: float) -> Callable[[object], float]:
    """Return a reader of a number in a range."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise TypeError
        number = float(value)
        if not lowest <= number <= highest:  # as NaN is not, whatever the range
            raise ValueError
        return number

    return read


def as_whole(lowest: int, highest: int) -> Callable[[object], int]:
    """Return a reader of a whole number in a range."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise TypeError
        number = int(value)
        if not lowest <= number <= highest:
            raise ValueError
        return number

    return read


def each_has_its_own(port: Port) -> bool:
    """Return whether every process can listen there, at a place of its own."""
    return isinstance(port, range) or (isinstance(port, str) and "{pid}" in port)


def as_port(value: object) -> Port:
    """Return a port, ports of which one is to be chosen, or `unix:` and an absolute path."""
    if isinstance(value, str) and value.startswith("unix:/"):
        return as_text(value)
    if isinstance(value, range):
        first, last = value.start, value.stop - 1
    elif isinstance(value, str) and "-" in value:
        first, last = map(as_whole(1, 65535), value.split("-"))
    else:
        return as_whole(0, 65535)(value)
    if not 1 <= first < last <= 65535:
        raise ValueError
    return range(first, last + 1)


def as_words(value: object) -> tuple[str, ...]:
    """Return words, given as such or with commas between them."""
    parts = value.split(",") if isinstance(value, str) else list(cast("Iterable[Any]", value))
    if not all(isinstance(part, str) for part in parts):
        raise TypeError
    return tuple(part.strip() for part in parts if part.strip())


def as_recorders(value: object) -> tuple[str | Recorder, ...]:
    """Return names of recorders, given with commas between them, and recorders."""
    parts = value.split(",") if isinstance(value, str) else list(cast("Iterable[Any]", value))
    found: list[str | Recorder] = []
    for part in parts:
        if isinstance(part, str):
            name = part.strip()
            module, colon, factory = name.partition(":")
            if name not in ("", *OURS) and not (module and colon and factory):
                raise ValueError
            found += [name] if name else []
        elif is_recorder(part):
            found.append(part)
        else:
            raise TypeError
    return tuple(found)


def is_recorder(value: object) -> TypeGuard[Recorder]:
    """Return whether *value* can record (a class cannot, its instances may)."""
    return isinstance(value, Recorder) and not isinstance(value, type)


def as_text(value: object) -> str:
    """Return text that can be printed and is not empty."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError
    return value


def as_host(value: object) -> str:
    """Return an address or a host name."""
    host = as_text(value)
    host.encode("idna")  # or it cannot be looked up
    return host


def as_path(value: object) -> str:
    """Return the path of a file, whatever folder the process will work in later."""
    path = os.fspath(cast("str", value))
    if not path or "\0" in path:
        raise ValueError
    with suppress(OSError):  # the present one has been removed
        path = os.path.abspath(path)
    return path


def as_token(value: object) -> str:
    """Return a token that is long enough to be one, and can stand in a header."""
    token = as_text(value)
    if len(token) < 16 or not token.isascii() or " " in token:
        raise ValueError
    return token
