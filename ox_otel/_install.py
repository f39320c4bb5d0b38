"""The one module that knows all the others: settings in, a running profiler out."""

import logging
import os
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from typing import NamedTuple, Unpack

from ox_otel._native import allocate_lock
from ox_otel._profiler import Profiler
from ox_otel._settings import Arguments, ConfigError, Settings, unknown_variables
from ox_otel.recorders import Recorder

_log = logging.getLogger("ox_otel")


class _Installed(NamedTuple):
    pid: int
    profiler: Profiler
    undo: ExitStack


_lock = allocate_lock()
_installed: _Installed | None = None


def install(**settings: Unpack[Arguments]) -> Profiler:
    """Profile this process, as `OX_OTEL_*` and the arguments, which win, have it.

    A second call changes nothing and returns the same profiler.

    Raises:
        ConfigError: a setting is wrong, or a recorder cannot be had.
    """
    global _installed  # noqa: PLW0603 - one profiler a process is the point
    with _lock:
        profiler = get()
        if profiler is None:
            profiler, undo = _assemble(Settings.from_env(os.environ, **settings))
            _installed = _Installed(os.getpid(), profiler, undo)
        return profiler


def get() -> Profiler | None:
    """Return the profiler of this process, None where none is installed."""
    if _installed is None or _installed.pid != os.getpid():
        return None
    return _installed.profiler


def uninstall() -> None:
    """Take the profiler away again: no thread, collector or socket remains."""
    global _installed  # noqa: PLW0603
    with _lock:
        if _installed is not None:
            _installed.undo.close()
            _installed = None


def _assemble(settings: Settings) -> tuple[Profiler, ExitStack]:
    """Return a started profiler and what undoes it; after an error nothing remains."""
    for name in unknown_variables(os.environ):
        _log.warning("ox_otel: %s is not a setting of this version", name)
    profiler = Profiler(settings)
    with ExitStack() as undo:
        undo.callback(profiler.cancel)
        if settings.enabled:
            for choice in settings.recorders:
                profiler.add_recorder(_recorder(choice, profiler, undo))
            if settings.port is not None:
                _serve(profiler, settings, undo)
            profiler.start()
        return profiler, undo.pop_all()


def _recorder(choice: str | Recorder, profiler: Profiler, undo: ExitStack) -> Recorder:
    """Return the recorder that one part of the setting `recorders` names or is."""
    try:
        if choice == "prometheus":
            from ox_otel.prometheus import PrometheusRecorder

            prometheus = PrometheusRecorder(profiler)
            undo.callback(prometheus.close)
            return prometheus
        if choice == "otel":
            from ox_otel.otel import OtelRecorder

            otel = OtelRecorder(profiler)
            undo.callback(otel.close)
            return otel
        if not isinstance(choice, str):
            return choice
        module, _, factory = choice.partition(":")
        made = getattr(import_module(module), factory)()
    except Exception as error:
        raise ConfigError(
            f"OX_OTEL_RECORDERS (argument recorders): {choice!r} cannot be had: {error}"
        ) from error
    if not isinstance(made, Recorder):
        raise ConfigError(
            f"OX_OTEL_RECORDERS (argument recorders): {choice!r} made {made!r}, "
            "which has no method `record`"
        )
    return made


def _serve(profiler: Profiler, settings: Settings, undo: ExitStack) -> None:
    """Open our own endpoint; where that fails, the host goes on without."""
    # here, because the standard library's HTTP server is dear to import
    from ox_otel._endpoint import Endpoint, is_loopback
    from ox_otel.http import Site, respond

    site = Site(profiler, None, settings.token, is_loopback(settings.host))
    if "prometheus" in settings.recorders:
        from ox_otel.prometheus import expose

        site = site._replace(expose=expose)
    try:
        endpoint = Endpoint(
            settings.host, settings.port or 0, partial(respond, site=site), profiler.charge
        )
    except (OSError, RuntimeError, MemoryError) as error:
        _log.warning("ox_otel: no endpoint at %s:%s: %s", settings.host, settings.port, error)
        return
    profiler.url = endpoint.url
    undo.callback(endpoint.close)
