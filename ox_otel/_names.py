"""From a frame to valid names: the only place where text of the host enters.

Every backend gets the text as it leaves this module, so it is made valid once, here: UTF-8, no
control characters, never empty, never longer than `MAX_LENGTH`.
"""

import re
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from types import CodeType
from typing import Any
from zlib import crc32

from ox_otel.recorders import OTHER, REST, UNPLACED, Function, Stack

MAX_LENGTH = 150
UNKNOWN = "unknown"

_BETWEEN = frozenset({"ox_otel._driving", "ox_otel._tag", "ox_otel.routes"})
"""Modules of ours whose functions call the host's: in its stacks they tell nothing."""

# C0, DEL, C1 and the two line separators of Unicode pass through Prometheus's escaping unchanged
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def valid(text: object) -> str:
    """Return *text* as a label value that every backend accepts, other types as `UNKNOWN`.

    Surrogates and control characters become backslash escapes. What is too long keeps its
    beginning and gets a checksum of the whole, so that two long names stay two.
    """
    # a subclass of str could bring methods of its own: no code of the host runs here
    if type(text) is not str or not text:
        return UNKNOWN
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    text = _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)
    if len(text) <= MAX_LENGTH:
        return text
    checksum = f"~{crc32(text.encode('utf-8')):08x}"
    return text[: MAX_LENGTH - len(checksum)] + checksum


def function_of(code: CodeType, module: object) -> Function:
    """Return the function whose code is *code* and whose globals call themselves *module*."""
    return function_called(code.co_qualname, module)


def function_called(qualified_name: object, module: object) -> Function:
    """Return the function of that name and module, whatever these are."""
    name = valid(qualified_name)
    # a function of the host that bears a name of ours must not count as ours
    if name.startswith("__") and name in (OTHER, UNPLACED):
        name += "()"
    return Function(valid(module), name)


def globals_of(module: object) -> dict[str, Any]:
    """Return the namespace of a module, empty for whatever else stands in `sys.modules`."""
    try:
        space = object.__getattribute__(module, "__dict__")
    except Exception:
        return {}
    return space if type(space) is dict else {}


def file_of(module: str) -> str | None:
    """Return the file that *module* has been loaded from, None where it is not known.

    A path that would have to be escaped or cut to be valid is none any more.
    """
    path = dict.get(globals_of(sys.modules.get(module)), "__file__")
    # another type could bring methods of the host's own
    return path if type(path) is str and valid(path) == path else None


class Names:
    """The functions of the code objects seen so far.

    An entry holds its code object, so that the id of a known code object cannot be reused: as
    long as nothing is forgotten, ids stand for code objects. (Hashing a code object hashes its
    bytecode, which is several times dearer than walking the frame.)

    Frames of modules that *include* and *exclude* leave out are taken off the stack: their time
    counts for the function that called them, or for `OTHER` where there is none. So are our own
    that stand between two of the host's.
    """

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        self._include = include
        self._exclude = exclude
        self.known: dict[int, tuple[CodeType | None, Function]] = {}

    def add(self, code: CodeType, module: object) -> None:
        """Make *code* known as code of *module*."""
        self.known[id(code)] = code, function_of(code, module)

    def add_name(self, qualified_name: str, module: str) -> int:
        """Make a function known whose code object is not to be had; return an id for it."""
        key = -1 - len(self.known)  # no code object has a negative id
        self.known[key] = None, function_called(qualified_name, module)
        return key

    def stack(self, ids: Sequence[int]) -> Stack:
        """Return the functions of the known code objects with these *ids*, given leaf first."""
        functions = (self.known[i][1] for i in reversed(ids))
        # by way of a list: a tuple made of a generator is cut to size from a larger one, so that
        # each leaves one more behind in CPython's free lists, up to 2000 of every size
        shown = [function for function in functions if self._shows(function.module)]
        return tuple(shown) or (REST,)

    def forget(self) -> None:
        """Let go of all code objects: from now on their ids mean nothing."""
        self.known = {}

    def _shows(self, module: str) -> bool:
        if module in _BETWEEN:
            return False
        included = not self._include or any(fnmatchcase(module, g) for g in self._include)
        return included and not any(fnmatchcase(module, g) for g in self._exclude)
