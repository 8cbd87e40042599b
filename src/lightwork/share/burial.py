"""A process died with its local semaphore taken: was the shared one of that mutex with it?

Nobody wrote down who had it, so it is proved that nobody alive has. Called with the administrative
lock held, again and again (by `Commons.sweep`), until it is settled.

If the semaphore is free, or parked already, it was not with the dead. Else it is taken, by one of
those that are here. Of those alive, one that does not wait *at the door* (its slot says so)
may have it. One that waits there may have got it in this instant, and have had no time to say so.
So the first time that all the living wait at the door, the burial notes the time and the mutex's
version. It is proved that the dead had it once each of them has said *after that* that it is still
without, and the version is the same:

    Suppose one alive has it now. At the time of the note it was taken, and not by a process that
    was not at the door; so by one at the door, or the dead. If by one at the door, then it was
    passed on since (that one has said that it has none), and its first act with it was to raise the
    version.

1. a process takes and gives the semaphore without waiting, again and again;  2. another does;
3. our look at the first falls between its turns, and our look at the second between its. Then
nobody seems to have it. So the look is repeated, a hundred times: in one of them one of the two is
seen, or the semaphore is free.

A process that is stopped (SIGSTOP) at the door says nothing: then nothing is proved until it goes
on, and that is right, for it may have it.

*Was it in the middle of something?* If the dead waited at the door, it had not begun: then the
semaphore is simply given back. Else it is parked for the next waiter, with the word DEAD.
"""

from __future__ import annotations

from . import layout as at
from .commons import Commons
from .living import milliseconds
from .memory import PAGE, Mapping, make_semaphore, open_semaphore

__all__ = ["bury_mutex"]

_LOOKS = 100


class _Locals:
    """The local semaphores of a mutex: which processes have a thread here?

    The administrative lock is held, so no process begins to use the mutex meanwhile.
    """

    def __init__(self, commons: Commons, index: int, processes: list[int]) -> None:
        self.addresses: dict[int, int] = {}
        self._mappings = []
        self._semaphores = {}
        for process in processes:
            if commons.is_coming(process):
                continue
            where = at.LOCALS_AT + (process * at.RECORDS + index) * at.LOCAL_BYTES
            mapping = Mapping(commons.fd, PAGE, where // PAGE * PAGE)
            self._mappings.append(mapping)
            self.addresses[process] = mapping.address + where % PAGE
            self._semaphores[process] = open_semaphore(self.addresses[process])

    def here(self) -> list[int]:
        """The processes."""
        return [one for one, sem in self._semaphores.items() if not sem._get_value()]


def bury_mutex(commons: Commons, index: int, process: int, dead: list[int]) -> bool:
    """Whether it is settled that `process` does not have the mutex `index` (any more)."""
    begin = index * at.R_WORDS
    cells = commons.records[begin : begin + at.R_WORDS]
    # Most of the dead had most of what they used for use only: one look, before those at all
    # others.
    if not _Locals(commons, index, [process]).here():
        return True
    every = _Locals(commons, index, commons.users(index))
    address = commons.address + at.RECORDS_AT + (begin + at.R_SEM) * 8
    semaphore = open_semaphore(address)
    for _ in range(_LOOKS):
        if semaphore._get_value() or cells[at.R_DEAD]:
            cells[at.R_NOTED] = 0
            make_semaphore(every.addresses[process], 1)
            return True
        waiting = _at_the_door(commons, index, every.here(), dead)
        if waiting is None:
            cells[at.R_NOTED] = 0
            return False
    version = cells[at.R_VERSION] + 1  # zero means: nothing was noted
    if waiting:
        if cells[at.R_NOTED] != version:
            cells[at.R_NOTED_AT] = milliseconds()
            cells[at.R_NOTED] = version
            return False
        if any(said <= cells[at.R_NOTED_AT] for said in waiting):
            return False
        if cells[at.R_VERSION] + 1 != version or semaphore._get_value():
            return False
    cells[at.R_NOTED] = 0
    gone = [one for one in every.here() if one in dead]
    began = any(_door_slot(commons, index, one) is None for one in gone)
    # All the dead at this mutex are settled by this: one of them had it. First the shared
    # semaphore, then the local ones: killed in between, the next burial finds it accounted for.
    if began:
        cells[at.R_LEFT_PID] = 0
        cells[at.R_DEAD] = 1
    else:
        semaphore.release()
    for one in gone:
        make_semaphore(every.addresses[one], 1)
    return True


def _at_the_door(
    commons: Commons, index: int, here: list[int], dead: list[int]
) -> list[int] | None:
    """When each of the living here has last said that it is without; None if one may have it."""
    said = []
    for process in here:
        if process in dead:
            continue
        slot = _door_slot(commons, index, process)
        if slot is None:
            return None
        said.append(commons.threads[slot * at.T_WORDS + at.T_SLICES])
    return said


def _door_slot(commons: Commons, index: int, process: int) -> int | None:
    for slot in commons.slots_of(process):
        begin = slot * at.T_WORDS
        if commons.threads[begin + at.T_WAITS] != index + 1:
            continue
        if commons.threads[begin + at.T_FLAGS] & at.F_DOOR:
            return slot
    return None
