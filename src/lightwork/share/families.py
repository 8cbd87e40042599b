"""The families that this process takes part in: its own, and those that objects came from."""

from __future__ import annotations

import os
import threading

from ..wire import family
from . import living
from .commons import Commons

__all__ = ["attached", "find", "home"]

attached: dict[int, Commons] = {}
"""By their numbers. Usually one: the own. Another comes with an object of another program's."""

_attaching = threading.Lock()


def home() -> Commons:
    """The commons of this process's own family."""
    return _attach(family.home())


def find(number: int, where: tuple[tuple[int, int], ...]) -> Commons:
    """The commons of the family `number`.

    Args:
        where: processes, and descriptors of theirs for the family's file, of which one at least
            is still there.

    Raises ReferenceError: no process that has it can be found any more.
    """
    known = attached.get(number)
    if known is not None:
        return known
    for pid, fd in ((os.getpid(), family.home()) if family.has_home() else (0, 0), *where):
        try:
            opened = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        head = family.read_head(opened)
        if head is None or head[0] != number:
            os.close(opened)
            continue
        if family.adopt(opened):
            return _attach(family.home())
        return _attach(os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR | os.O_CLOEXEC))
    raise ReferenceError(
        "a shared object cannot be reached: the process that sent it is gone, and this one is "
        "no worker of its program"
    )


def _attach(fd: int) -> Commons:
    head = family.read_head(fd)
    if head is None:
        raise OSError("this descriptor is not that of a family's shared memory")
    with _attaching:
        if head[0] not in attached:
            attached[head[0]] = Commons(fd)
        return attached[head[0]]


def _leave() -> None:
    living.end()
    for commons in attached.values():
        commons.leave()


def _before_fork() -> None:
    _attaching.acquire()
    for commons in attached.values():
        commons.before_fork()


def _after_fork_in_parent() -> None:
    for commons in attached.values():
        commons.after_fork_in_parent()
    _attaching.release()


def _after_fork_in_child() -> None:
    global _attaching
    if _leave not in family.leavers:
        family.leavers.append(_leave)
    _attaching = threading.Lock()
    for commons in attached.values():
        commons.after_fork_in_child()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
family.leavers.append(_leave)
