"""The processes of one service: what is wished of one of them over HTTP, all do.

They share a folder. It has a file for each wish, and each process has a socket there on which a
thread of ours is told that one has changed: it waits without waking up, paused or not.
"""

import os
import re
import socket
import stat
from contextlib import suppress

from ox_otel._fork import follow_forks
from ox_otel._native import Worker, get_ident, original
from ox_otel._profiler import Profiler
from ox_otel._status import Wish, Wishes

_CLOSE_SECONDS = 1.0

_EAR = re.compile(r"\d+-[0-9a-f]{8}\.sock")
"""The names of our sockets; others in the folder are not ours to touch."""


class Service:
    """Has *profiler* do as the service that shares *folder* is told, until `close`.

    A forked child joins the service by itself.

    Raises:
        OSError: the folder cannot be had, or others may write there.
        RuntimeError: there is no thread to be had.
        MemoryError: as above.
    """

    def __init__(self, folder: str, profiler: Profiler) -> None:
        self._folder = folder
        self._profiler = profiler
        self._heard: dict[str, str] = {}  # what each file said when we did as it says
        self._ear: socket.socket | None = None
        self._worker: Worker | None = None
        self._closed = False
        os.makedirs(folder, 0o700, exist_ok=True)
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError("it must be a folder of this user's, of mode 0700")
        self._join()
        follow_forks(self._leave_to_parent, self._join_as_child)

    def share(self, wish: Wish) -> None:
        """Have all processes of the service do as this one does now, in this one respect.

        Raises:
            OSError: it cannot be written down; nobody is told then.
        """
        value = getattr(self._profiler.wishes(), wish)
        draft = f"{self._folder}/{wish}.{os.getpid()}-{get_ident()}"
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            # what is wished once more is told from what was wished before
            os.write(file, f"{value!r} {os.urandom(8).hex()}\n".encode())
        finally:
            os.close(file)
        os.replace(draft, f"{self._folder}/{wish}")
        with _new_socket() as mouth:
            mouth.setblocking(False)
            for ear in self._ears():
                with suppress(OSError):  # whoever has so many waiting will look at the files
                    mouth.sendto(b"!", ear)

    def close(self) -> None:
        """Leave the service for good, within a second; children forked later stay away, too."""
        self._closed = True
        self.leave()

    def leave(self) -> None:
        """Leave the service to the children forked from now on, within a second."""
        if self._ear is not None:
            self._ear.shutdown(socket.SHUT_RDWR)
            if self._worker is not None:
                self._worker.join(_CLOSE_SECONDS)
            _remove(self._ear)
            self._ear = None

    def _join(self) -> None:
        """Listen, then do as all others do."""
        self._ear = ear = _new_socket()
        try:
            self._ears()  # so that those of the dead are removed
            # another process may have this number too, seen from its container
            ear.bind(f"{self._folder}/{os.getpid()}-{os.urandom(4).hex()}.sock")
            self._worker = Worker(self._listen, "ox_otel_wishes")
        except BaseException:
            _remove(ear)
            self._ear = None
            raise
        self._obey()

    def _leave_to_parent(self) -> None:
        if self._ear is not None:
            self._ear.close()
            self._ear = None

    def _join_as_child(self) -> None:
        if not self._closed:
            with suppress(OSError, RuntimeError, MemoryError):
                self._join()

    def _ears(self) -> list[str]:
        """Return the addresses of the processes that live; remove those of the others."""
        living = []
        with _new_socket() as prober:
            for name in os.listdir(self._folder):
                if _EAR.fullmatch(name):
                    address = f"{self._folder}/{name}"
                    try:
                        prober.connect(address)
                        living.append(address)
                    except ConnectionRefusedError:
                        with suppress(OSError):  # another process was faster
                            os.unlink(address)
                    except OSError:  # it has just gone
                        pass
        return living

    def _listen(self) -> None:
        ear = self._ear
        while ear is not None and ear.recv(1):
            self._obey()

    def _obey(self) -> None:
        """Do as those files say that have changed, if they say anything.

        What the host has wished of this process alone since then holds until the next request.
        """
        for wish in Wishes._fields:
            with suppress(OSError, ValueError):
                # the one codec that is always loaded: a process that gave up its rights may not be
                # able to read Python's library any more
                with open(f"{self._folder}/{wish}", encoding="utf-8") as file:
                    said = file.read(100)
                if said != self._heard.get(wish):
                    self._heard[wish] = said
                    value, _ = said.split()
                    self._do(wish, value)

    def _do(self, wish: str, value: str) -> None:
        if wish == "interval":
            self._profiler.set_interval(value)
        elif value == "True":
            self._profiler.pause()
        elif value == "False":
            self._profiler.unpause()


def _new_socket() -> socket.socket:
    made: socket.socket = original(socket, "socket")(socket.AF_UNIX, socket.SOCK_DGRAM)
    return made


def _remove(ear: socket.socket) -> None:
    with suppress(OSError):  # it has no address yet, or somebody has emptied the folder
        os.unlink(ear.getsockname())
    ear.close()
