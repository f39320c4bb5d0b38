"""The one module that knows all the others: settings in, a running profiler out."""

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from importlib import import_module
from threading import RLock
from typing import TYPE_CHECKING, NamedTuple, Unpack

from ox_otel._ending import at_end, not_at_end
from ox_otel._fork import follow_forks, follow_uwsgi, notice_fork
from ox_otel._interpreter import risk
from ox_otel._native import get_ident
from ox_otel._notices import warn
from ox_otel._profiler import Profiler
from ox_otel._server_spans import SpanFollower
from ox_otel._settings import Arguments, ConfigError, Settings, unknown_variables
from ox_otel._values import each_has_its_own, is_recorder
from ox_otel.recorders import Recorder

if TYPE_CHECKING:  # it brings parts of the standard library with it that are dear to import
    from ox_otel.http import Exposure


class _Installed(NamedTuple):
    profiler: Profiler
    settings: Settings
    undo: ExitStack
    doors: ExitStack  # what is open to the outside
    ears: ExitStack  # what hears the service


_lock = RLock()  # the module of a recorder may call `install` itself
_installed: _Installed | None = None
_installing: int | None = None  # the thread that is at it; 0 if it is one of our parent's


def install(**settings: Unpack[Arguments]) -> Profiler:
    """Profile this process, as `OX_OTEL_*` and the arguments, which win, have it.

    A second call changes nothing and returns the same profiler.

    Raises:
        ConfigError: a setting is wrong, or a recorder cannot be had; nothing is installed then.
    """
    global _installed, _installing  # noqa: PLW0603
    notice_fork()
    with _lock:
        if _installing == 0:  # it will never end
            uninstall()
        profiler = get()
        if profiler is None:
            unknown = unknown_variables(os.environ)
            if unknown:
                warn("ox_otel: no settings of this version: %s", ", ".join(unknown))
            wanted = Settings.from_env(os.environ, **settings)
            if wanted.enabled and (fault := risk()):
                with suppress(RuntimeWarning):  # where warnings are errors, too, it is none
                    release = sys.version.split()[0]
                    warnings.warn(f"ox_otel: Python {release} {fault}", RuntimeWarning, 2)
            new = _Installed(Profiler(wanted), wanted, ExitStack(), ExitStack(), ExitStack())
            if _installed is not None:  # a signal handler has been faster
                return _installed.profiler
            _installing, _installed, profiler = get_ident(), new, new.profiler
            try:
                _assemble(new)
            except BaseException:
                uninstall()
                raise
            finally:
                _installing = None
        return profiler


def get() -> Profiler | None:
    """Return the profiler of this process, None where none is installed.

    A forked child has that of its parent, which has begun anew there.
    """
    return None if _installed is None else _installed.profiler


def mounted() -> "Exposure | None":
    """Return what an application serves that mounts us, None where none is installed.

    Who reaches it nobody knows, whatever address it is served at: behind a proxy, all requests come
    from this machine.
    """
    return None if _installed is None else _exposure(_installed, loopback=False)


def uninstall() -> None:
    """Take the profiler away again: no thread, collector or socket remains."""
    global _installed
    notice_fork()
    with _lock:
        if _installed is not None:
            undo, _installed = _installed.undo, None
            undo.close()


def _renew() -> None:
    """In a forked child: whoever held the lock does not exist here."""
    global _lock, _installing  # noqa: PLW0603
    _lock = RLock()
    if _installing not in (None, get_ident()):
        _installing = 0


def _resume() -> None:
    """In a forked child: open an endpoint, where it can have one of its own."""
    if _installed is not None and _is_given_to_workers(_installed):
        _serve(_installed)


def _hand_over() -> None:
    """In the master of a server: leave the service and the endpoint to the workers."""
    if _installed is None or _installed.settings.master:
        return
    _installed.ears.close()
    if _is_given_to_workers(_installed):
        _installed.profiler.url = ""
        _installed.doors.close()


def _is_given_to_workers(installed: _Installed) -> bool:
    port = installed.settings.port
    return installed.settings.enabled and port is not None and each_has_its_own(port)


follow_forks(_renew, _resume, _hand_over)


def _assemble(installed: _Installed) -> None:
    """Connect the profiler with all that it needs, and start it."""
    profiler, settings, undo, doors, _ = installed
    undo.callback(profiler.cancel)
    _at_the_end(doors.close, undo)
    if not settings.enabled or sys.is_finalizing():  # nothing can be imported any more
        return
    for choice in settings.recorders:
        quick = choice in ("prometheus", "otel")  # ours: they neither wait nor take long
        profiler.add_recorder(_recorder(choice, installed), quick=quick)
    if settings.routes:
        profiler.add_recorder(SpanFollower(), quick=True)
    _serve(installed)
    profiler.start()
    if settings.run_dir is not None:
        _join_service(installed, settings.run_dir)
    if follow_uwsgi():
        profiler.hand_over()
        _hand_over()


def _at_the_end(close: Callable[[], None], undo: ExitStack) -> None:
    """Have *close* called when the interpreter ends, too: no thread and no file of ours remains."""
    undo.callback(close)
    undo.callback(not_at_end, close)
    at_end(close)


def _recorder(choice: str | Recorder, installed: _Installed) -> Recorder:
    """Return the recorder that one part of the setting `recorders` names or is."""
    profiler, settings, undo = installed[:3]
    try:
        if choice == "prometheus":
            from ox_otel._multiprocess import MULTIPROCESS, MultiprocessRecorder
            from ox_otel.prometheus import PrometheusRecorder

            if os.environ.get(MULTIPROCESS):
                return MultiprocessRecorder(profiler)
            prometheus = PrometheusRecorder(profiler)
            undo.callback(prometheus.close)
            return prometheus
        if choice == "otel":
            from ox_otel.otel import OtelRecorder

            otel = OtelRecorder(
                profiler,
                file_paths=settings.file_paths,
                beside_prometheus="prometheus" in settings.recorders,
            )
            undo.callback(otel.close)
            return otel
        if choice == "otlp_profiles":
            from ox_otel.otlp_profiles import OtlpProfilesRecorder

            return OtlpProfilesRecorder(profiler, settings.tree)
        if not isinstance(choice, str):
            return choice
        module, _, factory = choice.partition(":")
        made = getattr(import_module(module), factory)()
    except Exception as error:
        raise ConfigError(
            f"OX_OTEL_RECORDERS (argument recorders): {choice!r} cannot be had: {error}"
        ) from error
    if not is_recorder(made):
        raise ConfigError(
            f"OX_OTEL_RECORDERS (argument recorders): {choice!r} made {made!r}, "
            "which has no method `record`"
        )
    return made


def _join_service(installed: _Installed, folder: str) -> None:
    """Do as the service does; where that fails, this process is controlled for itself."""
    from ox_otel._service import Service

    try:
        service = Service(folder, installed.profiler)
    except Exception as error:
        warn("ox_otel: no service in %s: %s", folder, error)
        return
    installed.profiler.share = service.share
    installed.ears.callback(service.leave)
    _at_the_end(service.close, installed.undo)


def _serve(installed: _Installed) -> None:
    """Open our own endpoint if there is to be one; where that fails, the host goes on without."""
    profiler, settings, _, doors, _ = installed
    if settings.port is None:
        return
    # here, because the standard library's HTTP server is dear to import
    from ox_otel._endpoint import Endpoint
    from ox_otel.http import is_loopback

    is_local = isinstance(settings.port, str) or is_loopback(settings.host)
    try:
        exposure = _exposure(installed, loopback=is_local)
        endpoint = Endpoint(settings.host, settings.port, exposure)
    except Exception as error:
        warn("ox_otel: no endpoint at %s:%s: %s", settings.host, settings.port, error)
        return
    profiler.url = endpoint.url
    doors.callback(endpoint.close)


def _exposure(installed: _Installed, *, loopback: bool) -> "Exposure":
    """Return what is served of *installed*; see `Exposure`."""
    from ox_otel.http import Exposure

    profiler, settings, *_ = installed
    exposure = Exposure(profiler, None, settings.token, loopback)
    if "prometheus" in settings.recorders:
        from ox_otel.prometheus import expose

        exposure = exposure._replace(metrics=expose)
    return exposure
