"""Do these threads wait for each other in a circle?

Each thread that waits for a lock without a time limit says in its slot what it waits for, and, at
each slice of its sleep, which locks it holds. So a circle can be followed from slot to slot.

*No false alarms.* A circle is reported when it was seen twice, with the same waits (a wait has a
number that no other has), and every thread in it has said what it holds anew in between, while it
waited. So at the second look each of them waited for a lock that another of them held, and
nobody else could give it. A thread that does not wait, sleeps in a condition, or waits with a time
limit is in no circle: those waits end by themselves, or by someone who is not known here.

*One is told.* Of the threads in the circle, the one with the highest slot raises. One that
re-acquires the lock of a condition is passed over as long as there is another, for its caller
counts on having it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import DeadlockError
from . import held
from . import layout as at
from .commons import Commons
from .living import milliseconds
from .threads import Slot

__all__ = ["Circle", "look", "self_deadlock"]


class Circle(NamedTuple):
    """Threads that wait for each other: their slots and the numbers of their waits; when seen."""

    members: tuple[tuple[int, int], ...]
    seen: int


def look(commons: Commons, slot: Slot, before: Circle | None) -> Circle | None:
    """Tell what this thread holds, and look for a circle that it is in.

    Args:
        before: what the last look of this wait returned.

    Raises DeadlockError: there is one, for certain, and this thread is to be told.
    """
    holds = held.by_this_thread(commons.number)
    slot.publish(holds)
    if not holds:
        return None
    members = _follow(commons, slot.number)
    if members is None:
        return None
    if before is None or before.members != members:
        return Circle(members, milliseconds())
    words = commons.threads
    for number, _ in members:
        said = words[number * at.T_WORDS + at.T_PUBLISHED]
        if number != slot.number and said <= before.seen:
            return before
    if _told(commons, members) != slot.number:
        return before
    raise _error(commons, members)


def _follow(commons: Commons, start: int) -> tuple[tuple[int, int], ...] | None:
    """The circle through a slot, in the order "waits for what the next one holds"."""
    holders = {}
    waits = {}
    used = commons.header[at.H_THREADS]
    places = commons.threads[at.T_WAITS :: at.T_WORDS][:used].tolist()
    for number, place in enumerate(places):
        if not place:
            continue
        begin = number * at.T_WORDS
        cells = commons.threads[begin : begin + at.T_WORDS].tolist()
        if not cells[at.T_PUBLISHED] or cells[at.T_FLAGS] & at.F_TIMED:
            continue
        waits[number] = (cells[at.T_WAITS] - 1, cells[at.T_SEQUENCE])
        for index in _holds(cells):
            holders[index] = number
    members: list[tuple[int, int]] = []
    number = start
    while number in waits and len(members) <= len(waits):
        wanted, sequence = waits[number]
        members.append((number, sequence))
        if wanted not in holders:
            return None
        number = holders[wanted]
        if number == start:
            # From the lowest slot on, so that every member sees the same.
            first = members.index(min(members))
            return tuple(members[first:] + members[:first])
    return None


def _holds(cells: list[int]) -> list[int]:
    held_there = cells[at.T_HOLDS : at.T_HOLDS + at.T_MOST_HELD]
    end = held_there.index(0) if 0 in held_there else len(held_there)
    return [place - 1 for place in held_there[:end]]


def _told(commons: Commons, members: tuple[tuple[int, int], ...]) -> int:
    numbers = [number for number, _ in members]
    flags = {n: commons.threads[n * at.T_WORDS + at.T_FLAGS] for n in numbers}
    return max([n for n in numbers if not flags[n] & at.F_FIRM] or numbers)


def _error(commons: Commons, members: tuple[tuple[int, int], ...]) -> DeadlockError:
    circle = tuple(_describe(commons, number) for number, _ in members)
    lines = [f"{len(circle)} threads wait for each other in a circle:"]
    for one in circle:
        task = f", {one['task']}" if one["task"] else ""
        lines.append(
            f"  process {one['pid']}, thread {one['thread']!r}{task}, at {one['where']}: holds "
            f"{', '.join(one['holds'])}; waits for {one['waits_for']}"
        )
    error = DeadlockError("\n".join(lines))
    error.circle = circle
    return error


def _describe(commons: Commons, number: int) -> dict[str, Any]:
    begin = number * at.T_WORDS
    cells = commons.threads[begin : begin + at.T_WORDS].tolist()

    def text(word: int, size: int) -> str:
        start = (begin + word) * 8
        raw = bytes(commons.thread_bytes[start : start + size])
        return raw.split(b"\0", 1)[0].decode(errors="replace")

    return {
        "pid": commons.pid_of(cells[at.T_PROCESS]),
        "thread": text(at.T_NAME, at.T_NAME_BYTES),
        "task": text(at.T_TASK, at.T_TASK_BYTES),
        "where": text(at.T_WHERE, at.T_WHERE_BYTES),
        "holds": [lock_name(commons, index) for index in _holds(cells)],
        "waits_for": lock_name(commons, cells[at.T_WAITS] - 1),
    }


def lock_name(commons: Commons, index: int) -> str:
    """What to call a lock: its kind, the user's name for it, its number."""
    begin = index * at.R_WORDS
    face = commons.records[begin + at.R_FACE]
    start = (begin + at.R_NAME) * 8
    raw = bytes(commons.record_bytes[start : start + at.R_NAME_BYTES]).rstrip(b"\0")
    kind = at.FACES[face] if face < len(at.FACES) else ""
    if not kind:
        return f"an inner lock (number {index})"
    return f"{kind} {raw.decode(errors='replace')!r} (number {index})" if raw else f"{kind} {index}"


def self_deadlock(commons: Commons, slot: Slot, index: int) -> DeadlockError:
    """For a thread that waits for a lock that it holds itself."""
    slot.wait_for(index, 0)
    slot.publish(held.by_this_thread(commons.number))
    one = _describe(commons, slot.number)
    slot.got()
    error = DeadlockError(
        f"process {one['pid']}, thread {one['thread']!r}, at {one['where']}: waits for "
        f"{one['waits_for']}, which it holds itself; only an RLock can be taken again"
    )
    error.circle = (one,)
    return error
