"""The words of a queue in shared memory, and what becomes of them when a reader dies."""

from __future__ import annotations

from . import layout as at
from .commons import Commons
from .memory import PAGE, Mapping, pages, punch
from .ring import BASE, NEXT, READ, Ring

__all__ = ["bury_reader", "free_rings", "settle", "taken"]

# Words of the extent.
# What readers change, what writers change, and what hardly ever changes lie 128 bytes apart, so
# that one of each at work do not take the cache lines from each other.
HEAD, GOT = 0, 1  # the first ring's code; the number of the latest item that was taken
TAIL, PUT = 16, 17  # the last ring's code; the number of the latest item
MOST, CLOSED, REPORTS, LOST = 32, 33, 34, 35
GETTERS, PUTTERS, JOINERS = 36, 37, 38  # how many sleep (at least)
SPECIAL = 39  # true if it is closed, or has a maximum: there is more to look at
GET_BELL, PUT_BELL = 48, 56
# Then, for each process: two hands, which take turns: where READ is, or will be, once it has its
# latest item, or the one before; how many it took, or is about to have taken, so that the last bit
# says which hand; how many it has reported.
HANDS_AT = PAGE // 8
TAKEN_AT = HANDS_AT + 2 * at.PROCESSES
DONE_AT = TAKEN_AT + at.PROCESSES
SIZE = (DONE_AT + at.PROCESSES) * 8


def taken(words: memoryview, process: int, now: int) -> int:
    """How many items a process took; `now`: where READ is, seen before."""
    count: int = words[TAKEN_AT + process]
    return count - (_hand(words, process) > now)


def _hand(words: memoryview, process: int) -> int:
    """Where READ is once a process has its latest item; 0 if it has none in its hand."""
    found: int = words[HANDS_AT + 2 * process + (words[TAKEN_AT + process] & 1)]
    return found


def settle(words: memoryview, process: int, took: int) -> None:
    """A process that died has nothing in its hands, and took so many items.

    In this order, so that whoever is killed in between leaves the next one to find the same.
    """
    first, which = HANDS_AT + 2 * process, words[TAKEN_AT + process] & 1
    words[first + 1 - which] = 0
    words[TAKEN_AT + process] = took
    words[first + which] = 0


def bury_reader(commons: Commons, index: int, process: int, dead: list[int]) -> bool:
    """Count what a dead process had in its hands; see `Commons.sweep`."""
    cells = commons.records[index * at.R_WORDS : (index + 1) * at.R_WORDS]
    extent = Mapping(commons.fd, cells[at.R_SIZE], cells[at.R_EXTENT])
    words = extent.view.cast("Q")
    head = Ring(commons, words[HEAD])
    now = head.words[BASE] + head.words[READ]  # before the look at the hand: it only grows
    in_hand = _hand(words, process)
    took, done = taken(words, process, now), words[DONE_AT + process]
    if words[REPORTS]:
        words[LOST] += max(took - done, 0)
    elif 0 < in_hand <= now and not commons.has_left(process):
        words[LOST] += 1
    if took > done:  # nobody will report these
        words[DONE_AT + process] = took
        for slot in commons.parked(index):
            commons.ring(slot)
    settle(words, process, took)
    # Sleepers that died would be counted for ever; the living say again that they sleep.
    words[GETTERS] = words[PUTTERS] = 0
    return True


def free_rings(commons: Commons, index: int) -> None:
    """Give back the rings of a queue that is freed."""
    cells = commons.records[index * at.R_WORDS : (index + 1) * at.R_WORDS]
    if not cells[at.R_SIZE]:
        return
    words = Mapping(commons.fd, cells[at.R_SIZE], cells[at.R_EXTENT]).view.cast("Q")
    code = words[HEAD]
    while code:
        ring = Ring(commons, code)
        code = ring.words[NEXT]
        ring.free()
    punch(commons.fd, cells[at.R_EXTENT], pages(cells[at.R_SIZE]))
