"""Turns what a worker answered into results: rebuilds values and errors. User code may run here.

A value that cannot be rebuilt is its own call's error, never the channel's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import CannotUnpickle
from ...wire.pickling import unpack
from ...wire.remote import unpack_error
from ..base import Parcel, Result
from .messages import ATOM, ERROR, GROUP, Hold

__all__ = ["Record", "to_results"]

Record = tuple[tuple[Any, ...], list[tuple[Parcel, int, int]]]
"""A worker's record (messages.Results), and whose calls it answers: (parcel, lo, hi)."""


def to_results(records: Sequence[Record], hold: Hold, *, apart: bool = False) -> list[Result]:
    """Rebuild what the records hold.

    Answers of one task that follow each other become one, unless they are to stay `apart`.
    """
    results: list[Result] = []
    values: list[Any] = []  # of the last one of `results`, as long as it may go on
    for record, whose in records:
        if record[1] == GROUP:
            _group(record, whose, hold, results)
            values = []
            continue
        _, kind, started, seconds, item = record
        parcel, lo, hi = whose[0]
        value, error = (item, None) if kind == ATOM else _rebuild(kind, item, hold)
        if values and not apart:
            task, attempt, first, before, _, errors, begun, spent = results[-1]
            if before == lo and task == parcel.task and attempt == parcel.attempt:
                values.append(value)
                if error is not None:
                    errors = {**(errors or {}), lo: error}
                results[-1] = Result(
                    task, attempt, first, hi, values, errors, begun, spent + seconds
                )
                continue
        values = [value]
        errors = None if error is None else {lo: error}
        results.append(
            Result(parcel.task, parcel.attempt, lo, hi, values, errors, started, seconds)
        )
    return results


def _group(
    record: tuple[Any, ...],
    whose: list[tuple[Parcel, int, int]],
    hold: Hold,
    results: list[Result],
) -> None:
    """Results of a group of tiny calls, which may belong to several tasks."""
    _, _, started, seconds, values, others = record
    wrong: dict[int, BaseException] = {}
    for place, (kind, item) in others.items():
        value, error = _rebuild(kind, item, hold)
        values[place] = value
        if error is not None:
            wrong[place] = error
    each = seconds / len(values)
    # Calls that had been answered before (by the journal) are at the front.
    place = len(values) - sum([hi - lo for _, lo, hi in whose])
    for parcel, lo, hi in whose:
        calls = hi - lo
        errors = None
        if wrong:
            shift = lo - place
            mine = {at + shift: error for at, error in wrong.items() if lo <= at + shift < hi}
            errors = mine or None
        part = values if calls == len(values) else values[place : place + calls]
        task, attempt = parcel.task, parcel.attempt
        results.append(Result(task, attempt, lo, hi, part, errors, started, each * calls))
        place += calls


def _rebuild(kind: int, item: Any, hold: Hold) -> tuple[Any, BaseException | None]:
    try:
        data, buffers = hold.open(item)
        if kind == ERROR:
            return None, unpack_error(data)
        return unpack(data, buffers), None
    except (CannotUnpickle, OSError, MemoryError) as error:
        return None, error
    except BaseException as error:
        # KeyboardInterrupt out of somebody's __setstate__: this is no thread to interrupt.
        wrapped = CannotUnpickle(f"the result cannot be rebuilt: {type(error).__name__}: {error}")
        wrapped.__cause__ = error
        return None, wrapped
