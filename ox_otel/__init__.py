"""Always-on statistical profiler: which functions burn CPU or wait, as Prometheus counters.

    import ox_otel
    ox_otel.install()

`install` reads `OX_OTEL_*` and keyword arguments (see `Settings`) and returns the `Profiler`, the
object that controls it. Whoever wants the figures elsewhere writes a `Recorder`.
"""

from ox_otel._capture import CaptureError, TooManyCapturesError
from ox_otel._install import get, install, uninstall
from ox_otel._profiler import Profiler
from ox_otel._settings import ConfigError, Settings
from ox_otel._status import Status
from ox_otel._tag import tag, tagged
from ox_otel.profiles import Profile
from ox_otel.recorders import (
    Answer,
    Batch,
    CountingRecorder,
    Exemplar,
    Function,
    Node,
    Record,
    Recorder,
    RouteUsage,
    Usage,
)

__all__ = [
    "Answer",
    "Batch",
    "CaptureError",
    "ConfigError",
    "CountingRecorder",
    "Exemplar",
    "Function",
    "Node",
    "Profile",
    "Profiler",
    "Record",
    "Recorder",
    "RouteUsage",
    "Settings",
    "Status",
    "TooManyCapturesError",
    "Usage",
    "get",
    "install",
    "tag",
    "tagged",
    "uninstall",
]
