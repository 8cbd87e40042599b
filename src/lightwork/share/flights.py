"""Pickles of one object that are on their way: which of them has nobody opened yet?

Each gets a number. The record has the number up to which all are accounted for, and a window of 128
bits for those behind it. A pickle that is still unopened when the window has to move past it is a
*stray*: only counted from then on. One that is opened a second time (a retry, or an initializer's
argument) changes nothing, but may be taken for a stray.

Called with the administrative lock held. A death between two stores leaves one pickle too many on
its way, never one too few.
"""

from __future__ import annotations

from . import layout as at

__all__ = ["issue", "on_their_way", "opened"]

_WINDOW = 128
_WORD = (1 << 64) - 1


def issue(record: memoryview) -> int:
    """The number of a new pickle."""
    number: int = record[at.R_TICKETS] + 1
    record[at.R_TICKETS] = number
    first, bits = _load(record)
    if number - first > _WINDOW:
        record[at.R_STRAY] += 1
        _store(record, *_settle(first + 1, bits >> 1))
    return number


def opened(record: memoryview, number: int) -> None:
    """The pickle of that number was opened."""
    first, bits = _load(record)
    if number > first:
        _store(record, *_settle(first, bits | 1 << (number - first - 1)))
    elif record[at.R_STRAY]:
        record[at.R_STRAY] -= 1


def on_their_way(record: memoryview) -> int:
    """How many have not been opened."""
    first, bits = _load(record)
    pending: int = record[at.R_STRAY] + record[at.R_TICKETS] - first - bits.bit_count()
    return pending


def _load(record: memoryview) -> tuple[int, int]:
    return record[at.R_FIRST], record[at.R_OPENED] | record[at.R_OPENED_TOO] << 64


def _settle(first: int, bits: int) -> tuple[int, int]:
    while bits & 1:
        first += 1
        bits >>= 1
    return first, bits


def _store(record: memoryview, first: int, bits: int) -> None:
    record[at.R_OPENED] = bits & _WORD
    record[at.R_OPENED_TOO] = bits >> 64
    record[at.R_FIRST] = first
