"""The start without code: what `opentelemetry-instrument` finds by our entry point and calls.

It runs before the program, in every process that starts anew. Whatever is wrong here is logged: an
exception would end the instrumentation of everything else.
"""

import os
import sys

from ox_otel._install import install, uninstall
from ox_otel._notices import warn


class OxOtelInstrumentor:
    """Profiles the process, by the recorder `otel` unless `OX_OTEL_RECORDERS` says otherwise.

    With `OTEL_SDK_DISABLED=true` it does nothing. It has the methods of a `BaseInstrumentor`, as
    far as they are called, and so needs no package for itself.
    """

    def instrument(self, **_: object) -> None:
        """Start to profile; what an instrumentor is told otherwise does not matter here."""
        if _is_disabled() or _is_helper():
            return
        try:
            if os.environ.get("OX_OTEL_RECORDERS"):
                install()
            else:
                install(recorders="otel")
        except Exception as error:
            warn("ox_otel: not profiled: %s", error)

    def uninstrument(self, **_: object) -> None:
        """Take the profiler away again."""
        uninstall()


def _is_disabled() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _is_helper() -> bool:
    """Return whether this process only keeps books for `multiprocessing`."""
    return any("multiprocessing.resource_tracker" in word for word in sys.orig_argv)
