"""How code of the user's that came somewhere it should not be is let go."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

__all__ = ["flush_streams", "leave_fork"]


def flush_streams() -> None:
    """Let what the user's code has printed be seen. Its streams may be anything."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def leave_fork(error: BaseException | None) -> NoReturn:
    """A process that a task forked came back into our loop: it must not go on in it."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None and not _released(error):
        code = 1
        with contextlib.suppress(BaseException):
            import traceback  # late: few need it, and it takes two milliseconds

            traceback.print_exception(error)
    flush_streams()
    os._exit(code & 0xFF)


def _released(error: BaseException) -> bool:
    """Whether it is the page that was taken from us after the fork."""
    return isinstance(error, ValueError) and "released memoryview" in str(error)
