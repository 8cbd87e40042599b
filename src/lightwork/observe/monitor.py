"""A look at running pools from another terminal: ``Pool(monitor=True)`` and ``lightwork top``.

A pool that asks for it listens on a Unix socket in a folder that only its user can enter
(``lightwork-UID``, 0700, in ``XDG_RUNTIME_DIR`` or the folder for temporary files); who connects as
somebody else (``SO_PEERCRED``) is sent away, the superuser excepted. A connection is one question
and one answer, a line of JSON each. It can be looked at, not told anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Monitor", "ask", "folder", "pools"]

PATIENCE = 2.0
"""Seconds that one who has connected may take to ask, or to answer."""

_MOST = 1 << 20  # bytes of an answer


def folder() -> str:
    """The folder of the sockets; made if it is not there.

    Raises PermissionError when something is there that others could get at.
    """
    base = os.environ.get("XDG_RUNTIME_DIR") or ""
    if not os.path.isdir(base) or os.stat(base).st_uid != os.geteuid():
        base = tempfile.gettempdir()
    path = os.path.join(base, f"lightwork-{os.geteuid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    status = os.lstat(path)
    if (
        not stat.S_ISDIR(status.st_mode)
        or status.st_uid != os.geteuid()
        or stat.S_IMODE(status.st_mode) & 0o077
    ):
        raise PermissionError(f"{path} is not a folder that only its owner can enter")
    return path


class Monitor:
    """Answers who looks at a pool, in a thread of its own.

    Args:
        look: makes the answer: plain values.

    Raises OSError where the socket cannot be had.
    """

    def __init__(self, look: Callable[[], dict[str, Any]]) -> None:
        self._look = look
        self._pid = os.getpid()
        self.path = _free_name(folder())
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(self.path)
            os.chmod(self.path, 0o600)
            self._socket.listen(8)
        except BaseException:
            self._socket.close()
            raise
        self._closing = False
        _monitors.append(self)
        self._thread = threading.Thread(target=self._serve, name="lightwork-monitor", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            if self._closing:
                connection.close()
                return
            with connection, contextlib.suppress(OSError, ValueError):
                connection.settimeout(PATIENCE)
                if _is_ours(connection):
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        if not _line(connection, 64):
            return
        try:
            answer = self._look()
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        connection.sendall(json.dumps(answer).encode() + b"\n")

    def close(self) -> None:
        """End it. May be called again."""
        if self not in _monitors:
            return
        _monitors.remove(self)
        self._closing = True
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # which ends its accept()
        self._socket.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(PATIENCE)


def _free_name(where: str) -> str:
    pid = os.getpid()
    for number in range(10_000):
        path = os.path.join(where, f"{pid}-{number}.sock")
        if not any(one.path == path for one in _monitors):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # of an earlier process of this number
            return path
    raise OSError("there are too many monitored pools in this process")


def _is_ours(connection: socket.socket) -> bool:
    """Whether who has connected is this user, or root."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True  # the folder alone keeps others out
    data = connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
    return struct.unpack("3i", data)[1] in (0, os.geteuid())


def _line(connection: socket.socket, most: int) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) < most:
        more = connection.recv(min(65536, most - len(data)))
        if not more:
            break
        data += more
    return data


# -- for who looks -------------------------------------------------------------------------------


def ask(path: str) -> dict[str, Any] | None:
    """What the pool at this socket answers; None if nobody is there any more."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        connection.settimeout(2 * PATIENCE)
        try:
            connection.connect(path)
            connection.sendall(b"look\n")
            data = _line(connection, _MOST)
            found: dict[str, Any] = json.loads(data)
        except (OSError, ValueError):
            return None
    return found


def pools() -> Iterator[tuple[str, dict[str, Any]]]:
    """The sockets of this user's monitored pools, and their answers. Raises PermissionError.

    What killed processes have left behind is removed.
    """
    where = folder()
    for name in sorted(os.listdir(where)):
        if not name.endswith(".sock"):
            continue
        path = os.path.join(where, name)
        answer = ask(path)
        if answer is not None:
            yield path, answer
        elif not _lives(name.partition("-")[0]):
            with contextlib.suppress(OSError):
                os.unlink(path)


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


# -- forks ---------------------------------------------------------------------------------------

_monitors: list[Monitor] = []


def _after_fork_in_child() -> None:
    """The parent's pools are the parent's to answer for; its sockets' names stay."""
    for monitor in _monitors:
        monitor._socket.close()
    _monitors.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
