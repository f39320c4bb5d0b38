"""Code objects that a tick has seen and Python does not hold: whose are they?

A tick can only write down what stands in memory: an address, which means nothing once the code
object has been freed, and text. Here the text becomes a function. Where the code object itself can
be found again it is held from now on, so that the next tick need not read its text.
"""

import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from types import CodeType, FunctionType, MappingProxyType
from typing import Any

from ox_otel._looks import Stranger
from ox_otel._names import UNKNOWN, Names, globals_of
from ox_otel._ticks import know

_namespace_of = type.__dict__["__dict__"].__get__  # not `vars`, which a metaclass may replace


class Strangers:
    """Finds the ids by which functions stand in *names*, and tells the ticks what is held there."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._introduced = 0  # of the names, how many the ticks have been told of
        self._ids: dict[tuple[str, str, int], int] = {}  # by qualified name, file and first line
        self._sought: set[Stranger] = set()
        self._modules: dict[str, str] = {}  # by file

    def introduce(self) -> None:
        """Tell the ticks of all code objects that have become known since the last time."""
        known = self._names.known
        if len(known) == self._introduced:
            return
        addresses = []
        for key, (code, _) in islice(known.items(), self._introduced, None):
            if code is not None:
                self._ids[code.co_qualname, code.co_filename, code.co_firstlineno] = key
                addresses.append(key)
        self._introduced = len(known)
        know(addresses)

    def id_of(self, stranger: Stranger) -> int:
        """Return the id of the function that a stranger is of, known from now on."""
        found = self._ids.get(stranger[1:])
        if stranger not in self._sought:
            self._sought.add(stranger)
            if code := self._search(*stranger):
                self._names.add(code, self._module_of(code.co_filename))
                self.introduce()
                return id(code)
        if found is None:
            _, name, file, _ = stranger
            found = self._names.add_name(name, self._module_of(file))
            self._ids[stranger[1:]] = found
        return found

    def forget(self) -> None:
        """Forget all: ids mean nothing any more."""
        self._introduced = 0
        self._ids = {}
        self._sought = set()
        self._modules = {}

    def _search(self, address: int, name: str, file: str, line: int) -> CodeType | None:
        """Return the code object at *address* if it can be reached by its name in its module."""
        module = sys.modules.get(self._module_of(file))
        for code in _reached(globals_of(module), name.split(".")):
            if id(code) == address and (code.co_filename, code.co_firstlineno) == (file, line):
                return code
        return None

    def _module_of(self, file: str) -> str:
        """Return the name of the module that has been loaded from *file*."""
        if file not in self._modules:
            for module in list(sys.modules.values()):
                space = globals_of(module)
                path, name = (dict.get(space, key) for key in ("__file__", "__name__"))
                # another type could bring methods of the host's own
                if type(path) is str and type(name) is str:
                    self._modules.setdefault(path, name)
            frozen = file[8:-1] if file.startswith("<frozen ") else UNKNOWN
            self._modules.setdefault(file, frozen)
        return self._modules[file]


def _reached(
    space: Mapping[str, Any] | MappingProxyType[str, Any], path: list[str]
) -> Iterator[CodeType]:
    """Yield the code objects that are reached from *space* by the parts of a qualified name."""
    found = _unwrapped(space.get(path[0]))
    if isinstance(found, FunctionType):
        yield from _inner(found.__code__, path[1:])
    elif isinstance(found, type) and len(path) > 1:
        yield from _reached(_namespace_of(found), path[1:])


def _unwrapped(found: Any) -> Any:
    """Return the function in a method of a class or in the common decorators."""
    if type(found) in (staticmethod, classmethod):
        found = found.__func__
    elif type(found) is property:
        found = found.fget
    while type(found) is FunctionType and "__wrapped__" in found.__dict__:
        found = found.__dict__["__wrapped__"]
    return found


def _inner(code: CodeType, path: list[str]) -> Iterator[CodeType]:
    """Yield the code objects that *path* leads to within a function: `<locals>`, a name, ..."""
    if not path:
        yield code
    elif len(path) > 1:
        for constant in code.co_consts:
            if type(constant) is CodeType and constant.co_name == path[1]:
                # the body of a class has its functions among its constants without a `<locals>`
                rest = path[2:]
                yield from _inner(
                    constant, rest if not rest or rest[0] == "<locals>" else ["", *rest]
                )
