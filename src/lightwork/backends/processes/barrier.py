"""A memory barrier that one side pays for both: the heart of taking calls back without a lock.

A worker announces each call by a store (STARTED) followed by a load (LIMIT). A processor may
carry out the load first: stores wait in a buffer. A fence or a lock for each call would prevent
that, and cost every call for the sake of the rare moment in which something is taken back. Linux
has ``membarrier(2)`` for this: the rare side makes every processor that runs a thread of a
registered process go through a full barrier, in about a microsecond (measured; the same idea as
in user-space RCU: M. Desnoyers et al., "User-Level Implementations of Read-Copy Update", IEEE
TPDS 23(2), 2012). Where it is missing, we wait until the buffer has surely been emptied.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

__all__ = ["barrier", "register"]

_NUMBERS = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}
_QUERY, _GLOBAL_EXPEDITED, _REGISTER_GLOBAL_EXPEDITED = 0, 2, 4

_DRAIN = 100e-6
"""Seconds after which a store buffer is taken to be empty; real ones are within a microsecond."""


def _find() -> Callable[[int], int] | None:
    """The system call as a function of its command, or None where there is none."""
    if sys.platform != "linux":
        return None
    number = _NUMBERS.get(os.uname().machine)  # `platform` takes a millisecond to import
    if number is None:
        return None
    try:
        import ctypes

        # PyDLL, not CDLL: this keeps the GIL. It takes a microsecond, and its caller holds the
        # engine's lock; giving the GIL up could cost 5 ms until some busy thread hands it back.
        syscall = ctypes.PyDLL(None).syscall
        wanted = _GLOBAL_EXPEDITED | _REGISTER_GLOBAL_EXPEDITED
        have = syscall(number, _QUERY, 0, 0)
    except (ImportError, OSError, AttributeError):
        return None
    if have < 0 or have & wanted != wanted:
        return None

    def membarrier(command: int) -> int:
        return int(syscall(number, command, 0, 0))

    return membarrier


_call: Callable[[int], int] | None = None
_sought = False


def _membarrier() -> Callable[[int], int] | None:
    global _call, _sought
    if not _sought:  # found twice by two threads: the same
        _call, _sought = _find(), True
    return _call


def register() -> bool:
    """In the worker: take part in other processes' barriers. False: not possible here."""
    membarrier = _membarrier()
    return membarrier is not None and membarrier(_REGISTER_GLOBAL_EXPEDITED) == 0


def barrier(registered: bool) -> None:
    """In the parent: after this, what the worker loads was stored by us before, or what it stored
    before that load can be seen. `registered`: what `register` said in the worker."""
    membarrier = _membarrier()
    if not registered or membarrier is None or membarrier(_GLOBAL_EXPEDITED) != 0:
        time.sleep(_DRAIN)
