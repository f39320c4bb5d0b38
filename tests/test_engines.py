"""Which engine samples, and what is said where it is not the one that was wanted."""

import subprocess
import sys

import pytest

from ox_otel._engines import engine_for
from ox_otel._names import Names

WITHOUT_THE_EXTENSION = """
import sys

class Hidden:
    def find_spec(name, *_):
        if name == "ox_otel._ticks":
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, Hidden)
import ox_otel
profiler = ox_otel.install(engine="ticks")
print(profiler.status().engine, profiler.status().reason, sep=": ")
ox_otel.uninstall()
"""


def test_an_installation_without_ticks() -> None:
    """The portable engine samples, and the reason, which answers hold, has no path of the host."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTENSION], capture_output=True, text=True, timeout=60
    )

    expected = "threads: the engine ticks is not in this installation\n"
    assert (0, expected) == (done.returncode, done.stdout)


def test_off_linux_nobody_misses_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """There `auto` is threads, which is as asked; who asks for ticks by name is told."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setitem(sys.modules, "ox_otel._probe", None)  # it cannot be had there
    found = []
    for wanted in ("auto", "ticks"):
        engine, reason = engine_for(wanted, Names(), 64, lambda _: None, lambda: 0.02)
        found.append((engine.name, reason))

    missing = "the engine ticks is not in this installation"
    assert [("threads", ""), ("threads", missing)] == found
