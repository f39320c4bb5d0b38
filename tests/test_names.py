"""Names: whatever the host calls its things, every backend can take it (invariant 6)."""

import subprocess
import sys
from types import CodeType, ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ox_otel import _driving, _tag, routes
from ox_otel._names import MAX_LENGTH, UNKNOWN, Names, file_of, function_of, valid
from ox_otel.recorders import OTHER, REST, UNPLACED, Function


def code_named(name: str) -> CodeType:
    """Return code of a function with that qualified name."""
    return (lambda: None).__code__.replace(co_qualname=name)


# half of them rare ones that do harm, which chance alone would hardly ever find
characters = st.characters() | st.sampled_from("\ud800\udfff\0\n\x85\u2028")
texts = st.lists(characters, max_size=50).map("".join)


@given(texts, st.integers(1, 10))
def test_any_text_becomes_valid(text: str, times: int) -> None:
    """The result is UTF-8 without control characters, neither empty nor too long."""
    text *= times
    for made in (valid(text), *function_of(code_named(text), text)):
        assert made == made.encode("utf-8").decode("utf-8")
        assert 1 <= len(made) <= MAX_LENGTH
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029" for c in made)


def test_stacks_leave_no_memory_behind() -> None:
    """Of a thousand stacks named and dropped, nothing stays allocated."""
    program = """
import sys
from ox_otel._names import Names

codes = [(lambda: None).__code__.replace(co_qualname=f"f{n}") for n in range(8)]
names = Names()
for code in codes:
    names.add(code, "m")

def allocated_after(count):
    for _ in range(count):
        names.stack([id(code) for code in codes])
    return sys.getallocatedblocks()

print(-allocated_after(10) + allocated_after(1000))
"""
    # a process of its own, in which nobody else has filled the interpreter's free lists
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert int(run.stdout) < 100


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=99))
def test_good_text_stays_as_it_is(text: str) -> None:
    """What needs no change gets none; quotes and backslashes are the backends' business."""
    assert text == valid(text)


def test_control_characters_and_surrogates_can_be_read() -> None:
    """What cannot be shown is escaped, not dropped, so that two names stay two."""
    assert r"a\nb\x00\u2028\ud800" == valid("a\nb\x00\u2028\ud800")


def test_two_long_names_stay_two() -> None:
    """Names that differ only far behind differ in their hash."""
    first, second = valid("x" * 10_000 + "1"), valid("x" * 10_000 + "2")

    assert MAX_LENGTH == len(first) == len(second)
    assert first != second


class Text(str):
    """Text with a mind of its own."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        """Betray that somebody has called."""
        sys.exit("code of the host has run")


@pytest.mark.parametrize(
    "text",
    [None, 7, b"bytes", ["list"], object(), Text("subclass"), ""],
    ids=lambda text: type(text).__name__,
)
def test_what_is_not_text_is_unknown(text: object) -> None:
    """Neither other types nor subclasses of str are looked into."""
    assert UNKNOWN == valid(text)


@pytest.mark.parametrize("name", [OTHER, UNPLACED])
def test_names_of_ours_are_not_taken(name: str) -> None:
    """A function of the host that is called like one of ours shows as something else."""
    assert Function("m", f"{name}()") == function_of(code_named(name), "m")


def test_methods_show_their_class() -> None:
    """The name of a function is the qualified one."""
    code = Shop.method.__code__

    assert Function("m", "Shop.method") == function_of(code, "m")


class Shop:
    """A class to be seen in a qualified name."""

    def method(self) -> None:
        """Do nothing."""


class Path(str):
    """Text that is not the interpreter's own."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/srv/shop/cart.py", "/srv/shop/cart.py"),
        ("/srv/магазин.py", "/srv/магазин.py"),
        (f"/srv/{'long/' * 40}cart.py", None),
        ("/srv/shop\udcff.py", None),
        (Path("/srv/shop/cart.py"), None),
        (None, None),
    ],
)
def test_the_file_of_a_module(
    path: str | None, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told as it is or, where that cannot be, not at all."""
    module = ModuleType("shop.cart")
    module.__file__ = path
    monkeypatch.setitem(sys.modules, "shop.cart", module)
    assert told == file_of("shop.cart")


def test_what_is_no_module_has_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in `sys.modules`, none of its code runs."""
    ran: list[str] = []

    class Odd:
        def __getattribute__(self, name: str) -> str:
            ran.append(name)
            return ""

    monkeypatch.setitem(sys.modules, "odd", Odd())  # type: ignore[arg-type]
    assert [None, None] == [file_of("odd"), file_of("not.there")]
    assert [] == ran


def stack(names: Names, *modules: str) -> tuple[Function, ...]:
    """Return the stack of one function `f` for each of *modules*, outermost first."""
    codes = [code_named("f") for _ in modules]
    for code, module in zip(codes, modules, strict=True):
        names.add(code, module)
    return names.stack([id(code) for code in reversed(codes)])


def test_excluded_modules_are_taken_off_the_stack() -> None:
    """Their time counts for the function that called them."""
    names = Names(exclude=["lib.*"])

    assert (Function("app", "f"), Function("app", "f")) == stack(names, "app", "app", "lib.inner")


def test_what_measures_requests_is_taken_off_the_stack() -> None:
    """What we put between two functions of the host does not show."""
    ours = routes.__name__, _tag.__name__, _driving.__name__
    assert (Function("app", "f"), Function("app.views", "f")) == stack(
        Names(), "app", *ours, "app.views", *ours
    )


def test_only_included_modules_are_shown() -> None:
    """With a list of modules to include the others count for their callers."""
    names = Names(include=["app", "app.*"], exclude=["app.noise"])

    assert (Function("app.views", "f"),) == stack(names, "lib", "app.views", "app.noise", "lib")


def test_a_stack_of_nothing_to_show_is_other() -> None:
    """Where no frame is left, the time is not lost."""
    assert (REST,) == stack(Names(include=["nothing"]), "app", "lib")
