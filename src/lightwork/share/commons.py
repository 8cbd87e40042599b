"""The commons: what the processes of a family have in shared memory, and how it is kept in order.

*Guarantees.* A process may be SIGKILLed at any instruction, and the others go on. Nothing is freed
that a living process uses, or that is on its way in a pickle (see `blocks`); what nobody uses is
freed, also after deaths. Nothing has a name in the file system.

How
    * Whatever one process alone knows, it alone writes: its marks, its threads' slots. One word
      is written in one piece, so such a note is there or not, and a death is no half of it.
    * What several write (who has which entry, slot or record) changes only under the
      *administrative lock*: an ``flock``, which the kernel gives back at a death, on an open file
      of each process's own, and a lock for its threads. The order of the stores is such that a
      death between two of them leaves something unused at worst, and the next sweep finds it.
    * `sweep` clears up after the dead. Whoever waits calls it now and then; one in `_PERIOD` does
      it for all.

*Order of locks.* Nothing is acquired under the administrative lock, and it is held for microseconds
(milliseconds where memory is given back).

*A fork* (``os.fork``, a worker with ``start_method="fork"``) copies all objects of the parent's.
The parent reserves an entry for its child before, with the same marks: so nothing is freed between
the fork and the child's first step. If no child comes, the entry is free a minute later.
"""

from __future__ import annotations

import collections
import fcntl
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from ..wire import family
from . import flights, kinds
from . import layout as at
from .living import at_work, is_alive, milliseconds, start_time
from .memory import Mapping, open_semaphore, pages, punch

__all__ = ["Commons"]

_PERIOD = 50  # milliseconds between two sweeps, whoever does them
_FORK_PATIENCE = 60_000  # milliseconds until a reserved entry without a child is free
_DROP_PATIENCE = 0.1
"""Seconds that a finalizer waits for the administrative lock: microseconds are enough, unless who
holds it has no core."""
_DROP_PAUSE = 50e-6
IN_FLIGHT = 3_600_000
"""Milliseconds that an object which nobody uses waits for a pickle of it to be opened."""


class Commons:
    """One family's shared memory, as this process sees it.

    Attributes:
        fd: the descriptor of the family's file.
        number: the family's.
        me: the number of this process in it.
        marks: this process's marks, one byte a record.
    """

    def __init__(self, fd: int) -> None:
        head = family.read_head(fd)
        if head is None:
            raise OSError("this descriptor is not that of a family's shared memory")
        self.fd = fd
        self.number, self.root_pid, self.root_fd = head
        if os.fstat(fd).st_size < at.EXTENTS_AT:
            os.pwrite(fd, b"\0", at.EXTENTS_AT - 1)  # never shrinks, as ftruncate might
        self._mapping = Mapping(fd, at.LOCALS_AT)
        view = self._mapping.view
        self.address = self._mapping.address
        self.header = view[: at.HEADER_BYTES].cast("Q")
        self.processes = view[at.PROCESSES_AT : at.THREADS_AT].cast("Q")
        self.threads = view[at.THREADS_AT : at.RECORDS_AT].cast("Q")
        self.thread_bytes = view[at.THREADS_AT : at.RECORDS_AT]
        self.records = view[at.RECORDS_AT : at.STATES_AT].cast("Q")
        self.record_bytes = view[at.RECORDS_AT : at.STATES_AT]
        self.states = view[at.STATES_AT : at.MARKS_AT]
        self.all_marks = view[at.MARKS_AT : at.LOCALS_AT]
        self.handles: collections.Counter[int] = collections.Counter()
        """Objects of this process for each record that it uses."""
        self.dropped: collections.deque[int] = collections.deque()
        """Records that one object less uses; entered by finalizers, anywhere."""
        self._begin()
        with self:
            self._register()

    def _begin(self) -> None:
        """What a fork must not share."""
        self.pid = os.getpid()
        self._threads_lock = threading.Lock()
        self._holder = 0  # the thread that has it
        self._lock_fd = os.open(f"/proc/self/fd/{self.fd}", os.O_RDWR | os.O_CLOEXEC)

    # -- the administrative lock -----------------------------------------------------------------

    def __enter__(self) -> Self:
        self._threads_lock.acquire()
        self._holder = threading.get_ident()
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
            self._let_go()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._unlock()
        if self.dropped:  # meanwhile, by a finalizer that did not wait for us
            self._let_go_soon()

    def _unlock(self) -> None:
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)
        finally:
            self._holder = 0
            self._threads_lock.release()

    def try_lock(self) -> bool:
        """Enter without waiting, if that can be."""
        if not self._threads_lock.acquire(blocking=False):
            return False
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._threads_lock.release()
            return False
        except BaseException:
            self._threads_lock.release()
            raise
        self._holder = threading.get_ident()
        return True

    # -- processes -------------------------------------------------------------------------------

    def _register(self) -> None:
        self.me = self._free_entry()
        entry = self.me * at.P_WORDS
        self.processes[entry + at.P_PID] = self.pid
        self.processes[entry + at.P_START] = start_time(self.pid)
        self.processes[entry + at.P_LEFT] = 0
        self.processes[entry + at.P_STATE] = at.P_LIVE
        self._take_place()

    def _take_place(self) -> None:
        self.marks = self._marks_of(self.me)
        size = at.RECORDS * at.LOCAL_BYTES
        self._locals = Mapping(self.fd, size, at.LOCALS_AT + self.me * size)

    def local_address(self, index: int) -> int:
        """Where this process's own semaphore for a mutex is."""
        return self._locals.address + index * at.LOCAL_BYTES

    def _free_entry(self) -> int:
        for swept in (False, True):
            used = self.header[at.H_PROCESSES]
            for number in range(used):
                if self.processes[number * at.P_WORDS + at.P_STATE] == at.P_FREE:
                    return number
            if used < at.PROCESSES:
                self.header[at.H_PROCESSES] = used + 1
                return used
            if not swept:
                self._sweep()
        raise OSError(f"more than {at.PROCESSES} processes at a time share objects")

    def _marks_of(self, process: int) -> memoryview:
        return self.all_marks[process * at.RECORDS : (process + 1) * at.RECORDS]

    def used_processes(self) -> list[int]:
        """The numbers of the processes that have an entry."""
        used = self.header[at.H_PROCESSES]
        states = self.processes[at.P_STATE :: at.P_WORDS][:used].tolist()
        return [number for number, state in enumerate(states) if state != at.P_FREE]

    def is_alive(self, process: int) -> bool:
        """Whether that process still runs (of one that is just being forked: may come)."""
        if process == self.me:
            return True
        entry = process * at.P_WORDS
        state, pid, started = self.processes[entry : entry + 3].tolist()
        if state == at.P_FREE:
            return False
        if state == at.P_FORKING:
            age = milliseconds() - self.processes[entry + at.P_SINCE]
            return age < _FORK_PATIENCE and is_alive(pid, started)
        return is_alive(pid, started)

    def is_coming(self, process: int) -> bool:
        """Whether it is just being forked, and has not done anything yet."""
        return bool(self.processes[process * at.P_WORDS + at.P_STATE] == at.P_FORKING)

    def pid_of(self, process: int) -> int:
        """Its process id."""
        return self.processes[process * at.P_WORDS + at.P_PID]

    def leave(self) -> None:
        """This process ends as it should: what it had in its hands is no loss."""
        if self.pid == os.getpid():
            self.processes[self.me * at.P_WORDS + at.P_LEFT] = 1

    def has_left(self, process: int) -> bool:
        """Whether a dead process had ended as it should."""
        return bool(self.processes[process * at.P_WORDS + at.P_LEFT])

    # -- forks -----------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Reserve an entry for the child; then keep our other threads out until the fork is
        done."""
        self._heir = -1
        self._threads_lock.acquire()
        self._holder = threading.get_ident()
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        try:
            self._heir = self._free_entry()
            entry = self._heir * at.P_WORDS
            own = self.me * at.P_WORDS
            self.processes[entry + at.P_PID] = self.pid
            self.processes[entry + at.P_START] = self.processes[own + at.P_START]
            self.processes[entry + at.P_LEFT] = 0
            self.processes[entry + at.P_SINCE] = milliseconds()
            self.processes[entry + at.P_STATE] = at.P_FORKING
            theirs = self._marks_of(self._heir)
            for index in list(self.handles):
                theirs[index] = at.M_USES
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def after_fork_in_parent(self) -> None:
        self._holder = 0
        self._threads_lock.release()
        self._let_go_soon()

    def after_fork_in_child(self) -> None:
        os.close(self._lock_fd)
        self._begin()
        if self._heir < 0:  # there was no entry free for it
            with self:
                self._register()
                for index in list(self.handles):
                    self.marks[index] = at.M_USES
            return
        self.me = self._heir
        self._take_place()
        entry = self.me * at.P_WORDS
        self.processes[entry + at.P_START] = start_time(self.pid)
        self.processes[entry + at.P_PID] = self.pid
        self.processes[entry + at.P_STATE] = at.P_LIVE

    # -- records ---------------------------------------------------------------------------------

    def new_record(self, kind: int, parent: int | None = None) -> int:
        """With the lock held: a record that this process uses, all zero but for its head."""
        index = self._free_record()
        begin = index * at.R_WORDS
        self.record_bytes[begin * 8 : (begin + at.R_WORDS) * 8] = bytes(at.R_WORDS * 8)
        generation = self.header[at.H_GENERATION] + 1
        self.header[at.H_GENERATION] = generation
        self.records[begin + at.R_GENERATION] = generation
        self.records[begin + at.R_KIND] = kind
        self.records[begin + at.R_PARENT] = 0 if parent is None else parent + 1
        self.marks[index] = at.M_USES
        self.handles[index] += 1
        self.header[at.H_RECORDS] = max(self.header[at.H_RECORDS], index + 1)
        self.states[index] = 1
        return index

    def _free_record(self) -> int:
        hint = self.header[at.H_RECORD_HINT]
        for begin, end in ((hint, at.RECORDS), (0, hint)):
            for start in range(begin, end, 4096):
                found = bytes(self.states[start : min(start + 4096, end)]).find(0)
                if found >= 0:
                    self.header[at.H_RECORD_HINT] = start + found
                    return start + found
        raise MemoryError(f"more than {at.RECORDS} shared objects at a time")

    def use(self, index: int, generation: int) -> None:
        """With the lock held: one object more of this process's for the record.

        Raises ReferenceError: it was freed.
        """
        if not self.states[index] or self.records[index * at.R_WORDS] != generation:
            raise ReferenceError(
                "a shared object is gone: the last process that used it let go of it, or ended, "
                "before this pickle of it was opened"
            )
        if not self.handles[index]:
            self.marks[index] = at.M_USES
        self.handles[index] += 1

    def drop(self, index: int) -> None:
        """An object of this process's is gone. From finalizers: waits `_DROP_PATIENCE` at most."""
        self.dropped.append(index)
        self._let_go_soon()

    def _let_go_soon(
        self,
        at_work: Callable[[], bool] = at_work,  # at the end of the interpreter, names are gone
        getpid: Callable[[], int] = os.getpid,
    ) -> None:
        """See to what was dropped: this process may not use the commons again for a long time, and
        somebody may wait for just this.

        A finalizer may run in the thread that has the lock: it does not wait for itself, for who
        lets go of the lock looks afterwards whether there is anything.
        """
        while self.dropped and at_work() and self.pid == getpid():
            end = time.monotonic() + _DROP_PATIENCE
            while not self.try_lock():
                if self._holder == threading.get_ident() or time.monotonic() > end:
                    return  # whoever has it was stopped: the next of ours to come in sees to it
                time.sleep(_DROP_PAUSE)
            try:
                self._let_go()
            finally:
                self._unlock()

    def _let_go(self) -> None:
        while self.dropped:
            index = self.dropped.popleft()
            self.handles[index] -= 1
            if self.handles[index] <= 0:
                del self.handles[index]
                self.marks[index] = at.M_NONE
                self.free_if_unused(index)

    def users(self, index: int) -> list[int]:
        """The processes that use a record, dead ones that were not swept yet among them."""
        used = self.header[at.H_PROCESSES]
        column = self.all_marks[index :: at.RECORDS][:used].tolist()
        return [number for number, mark in enumerate(column) if mark]

    def free_if_unused(self, index: int, *, after_death: bool = False) -> None:
        """With the lock held: free the record if nobody can want it any more.

        A pickle that nobody has opened keeps it, for an hour at most; and since a task whose worker
        was killed may be tried again with the same pickle, so does one that was opened by the dead.
        """
        if not self.states[index] or self.users(index):
            return
        begin = index * at.R_WORDS
        record = self.records[begin : begin + at.R_WORDS]
        if record[at.R_PARENT]:
            return  # it is freed with its parent
        wanted = flights.on_their_way(record) or (after_death and record[at.R_TICKETS])
        if wanted and milliseconds() - record[at.R_FLIGHT] < IN_FLIGHT:
            return
        children = record[at.R_CHILDREN : at.R_CHILDREN + at.R_MOST_CHILDREN].tolist()
        for one in (*[child - 1 for child in children if child], index):
            self._free(one)

    def _free(self, index: int) -> None:
        begin = index * at.R_WORDS
        extent, size = self.records[begin + at.R_EXTENT], self.records[begin + at.R_SIZE]
        end = kinds.at_end(self.records[begin + at.R_KIND])
        if end is not None:
            end(self, index)
        self.states[index] = 0
        self.header[at.H_RECORD_HINT] = min(self.header[at.H_RECORD_HINT], index)
        if size:
            punch(self.fd, extent, size)

    def reserve(self, size: int) -> int:
        """Room for `size` bytes in the file that nothing else will ever be put in."""
        with self:
            return self.reserve_locked(size)

    def reserve_locked(self, size: int) -> int:
        """The same, with the lock held."""
        start = self.header[at.H_NEXT_EXTENT] or pages(at.EXTENTS_AT)
        self.header[at.H_NEXT_EXTENT] = start + pages(size)
        return start

    # -- sweeping --------------------------------------------------------------------------------

    def sweep(self, *, now: bool = False) -> None:
        """Clear up after processes that have died, unless somebody just did (or does).

        Cheap enough to be called at each slice of a wait.
        """
        period = max(_PERIOD, self.header[at.H_PROCESSES])
        if not now and milliseconds() - self.header[at.H_SWEPT] < period:
            return
        if not self.try_lock():
            return
        try:
            self._sweep()
        finally:
            self.__exit__()

    def _sweep(self) -> None:
        self.header[at.H_SWEPT] = milliseconds()
        dead = [number for number in self.used_processes() if not self.is_alive(number)]
        for number in dead:
            self._sweep_process(number, dead)
        if milliseconds() - self.header[at.H_COLLECTED] > IN_FLIGHT // 4:
            self.header[at.H_COLLECTED] = milliseconds()
            self._collect()

    def _sweep_process(self, number: int, dead: list[int]) -> None:
        marks = self._marks_of(number)
        left = self.has_left(number)
        open_cases = False
        for index in _nonzero(marks[: self.header[at.H_RECORDS]]):
            if not self.states[index]:
                marks[index] = at.M_NONE
                continue
            bury = kinds.at_death(self.records[index * at.R_WORDS + at.R_KIND])
            if bury is not None and not bury(self, index, number, dead):
                open_cases = True
                continue
            marks[index] = at.M_NONE
            self.free_if_unused(index, after_death=not left)
        if open_cases:
            return
        for slot in self.slots_of(number):
            self.pass_on(slot)
            self.threads[slot * at.T_WORDS + at.T_STATE] = at.T_FREE
        self.processes[number * at.P_WORDS + at.P_STATE] = at.P_FREE

    def _collect(self) -> None:
        """Free what only pickles refer to that are too old."""
        for index in _nonzero(self.states[: self.header[at.H_RECORDS]]):
            self.free_if_unused(index)

    # -- threads' slots: see `threads` and `waiting` ----------------------------------------------

    def slots_of(self, process: int) -> list[int]:
        """The slots of a process's threads."""
        used = self.header[at.H_THREADS]
        owners = self.threads[at.T_PROCESS :: at.T_WORDS][:used].tolist()
        states = self.threads[at.T_STATE :: at.T_WORDS][:used].tolist()
        return [n for n in range(used) if owners[n] == process and states[n] != at.T_FREE]

    def parked(self, index: int) -> list[int]:
        """The slots of the threads that are parked at a record and were not rung, oldest first."""
        used = self.header[at.H_THREADS]
        places = self.threads[at.T_PARKED :: at.T_WORDS][:used].tolist()
        wanted = index + 1
        found = []
        for slot, place in enumerate(places):
            if place == wanted:
                begin = slot * at.T_WORDS
                if not self.threads[begin + at.T_RUNG]:
                    found.append((self.threads[begin + at.T_TICKET], slot))
        found.sort()
        return [slot for _, slot in found]

    def ring(self, slot: int) -> None:
        """Wake a parked thread."""
        self.threads[slot * at.T_WORDS + at.T_RUNG] = 1
        self.bell(slot).release()

    def bell(self, slot: int) -> Any:
        """The semaphore that a thread sleeps on while it is parked."""
        return open_semaphore(self.address + at.THREADS_AT + (slot * at.T_WORDS + at.T_BELL) * 8)

    def pass_on(self, slot: int) -> None:
        """What a dead thread was rung for, and had not begun to do, is another's to do."""
        begin = slot * at.T_WORDS
        place = self.threads[begin + at.T_PARKED]
        rung = self.threads[begin + at.T_RUNG]
        self.threads[begin + at.T_PARKED] = 0
        self.threads[begin + at.T_WAITS] = 0
        kind = self.records[(place - 1) * at.R_WORDS + at.R_KIND] if place else 0
        if rung and kind in (kinds.K_CONDITION, kinds.K_SEMAPHORE):  # the others look by themselves
            for other in self.parked(place - 1)[:1]:
                self.ring(other)


def _nonzero(marks: memoryview) -> list[int]:
    """Where there is a mark. A column is sparse: whole pages of zeros are skipped quickly."""
    found = []
    zeros = bytes(4096)
    for start in range(0, len(marks), 4096):
        part = bytes(marks[start : start + 4096])
        if part != zeros[: len(part)]:
            found += [start + offset for offset, mark in enumerate(part) if mark]
    return found
