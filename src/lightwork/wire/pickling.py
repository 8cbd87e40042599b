"""Objects to bytes and back: fast for what is plain, by value for what cannot be imported.

Three ways, the first that does it:

1. Atoms and small tuples of them: ``pickle.dumps``, chosen by looking at the types.
2. The C pickler, with a hook for all that is not a plain builtin. It finds out whether the object
   is plain, and stops at a function or class that no other process can import.
3. The whole object again with `byvalue.ValuePickler`.

Whatever goes wrong in the user's code on the way (``__reduce__`` that raises, or exits) is a
`CannotPickle` or `CannotUnpickle` of this object, with the cause kept. KeyboardInterrupt alone
passes, for it is meant for the whole program.
"""

from __future__ import annotations

import functools
import io
import pickle
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..errors import CannotPickle, CannotUnpickle
from . import culprit
from .references import by_name

__all__ = ["OUT_OF_BAND", "Packed", "dump_bytes", "dump_parts", "pack", "pack_plain", "unpack"]

OUT_OF_BAND = 1 << 16  # bytes: smaller buffers travel inside the pickle
_LIFT = 1 << 20  # bytes: such a ``bytes`` at the top is not copied into the pickle


class Packed(NamedTuple):
    """A pickled object.

    Attributes:
        data: the pickle.
        buffers: the big buffers that it refers to, in order; they are the object's own memory, not
            a copy.
        plain: it holds only plain builtin values, so unpickling it cannot fail and runs no
            code of the user's.
    """

    data: bytes
    buffers: tuple[pickle.PickleBuffer, ...]
    plain: bool


_new_packed = tuple.__new__  # without the argument handling of NamedTuple: half the cost
_dumps = pickle.dumps
_NO_BUFFERS: tuple[pickle.PickleBuffer, ...] = ()

_Parts = tuple[bytes, tuple[pickle.PickleBuffer, ...], bool]  # as in Packed

# bytes are not among them, because they may be big.
_ATOMS: frozenset[type] = frozenset({int, float, str, bool, type(None)})
_SHORT = 16  # elements: longer tuples are left to the pickler

# Beyond what the C pickler itself knows: builtin types that reduce to plain values and rebuild
# without fail.
_SAFE: set[type] = {complex, range, slice}
_SAFE_DATES = ("date", "datetime", "time", "timedelta")


def _safe(kind: type) -> bool:
    """Whether this is such a type. Those of ``datetime`` are looked up when the first comes: the
    module takes a millisecond to import."""
    if kind in _SAFE:
        return True
    if kind.__module__ != "datetime" or kind.__name__ not in _SAFE_DATES:
        return False
    import datetime

    _SAFE.update({getattr(datetime, name) for name in _SAFE_DATES})
    return kind in _SAFE


def pack(obj: Any, *, what: str = "the argument", home: bool = False) -> Packed:
    """Pickle `obj`; big buffers stay where they are. May be called from any thread.

    Args:
        what: how the error names `obj`. A pair of a tuple and a dict that is called
            ``"the arguments"`` is named as a call's ``args`` and ``kwargs``.
        home: the reader is the process that our classes came from (a worker packs a result):
            these go by reference, and are the very same classes there.

    Raises:
        CannotPickle: with the path of the part that cannot be pickled; its cause is the error.
    """
    kind = type(obj)
    if kind is tuple and len(obj) < _SHORT:
        for item in obj:
            kind = type(item)
            if kind in _ATOMS:
                continue
            if kind is tuple or kind is list:
                if len(item) < _SHORT and _ATOMS.issuperset(map(type, item)):
                    continue
            elif kind is dict:
                if not item or (
                    len(item) < _SHORT
                    and _ATOMS.issuperset(map(type, item))
                    and _ATOMS.issuperset(map(type, item.values()))
                ):
                    continue
            elif kind is bytes and len(item) < OUT_OF_BAND:
                continue
            return _pack(obj, what, home)
    elif kind not in _ATOMS:
        return _pack(obj, what, home)
    try:
        return _new_packed(Packed, (_dumps(obj, 5), _NO_BUFFERS, True))
    except MemoryError as error:
        raise CannotPickle(f"{what} cannot be pickled: there is no memory for it") from error


def unpack(
    data: bytes | memoryview, buffers: Sequence[Any] = (), *, what: str = "the value"
) -> Any:
    """Rebuild what `pack` made.

    Args:
        data: ``Packed.data``.
        buffers: the contents of ``Packed.buffers``, in order. Arrays are built on them, not
            copied from them.
        what: how the error names it.

    Raises:
        CannotUnpickle: its cause is what rebuilding raised, SystemExit included.
    """
    try:
        return pickle.loads(data, buffers=buffers)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise CannotUnpickle(f"{what} cannot be rebuilt: {culprit.say(error)}") from error


def pack_plain(values: Sequence[Any]) -> bytes | None:
    """Pickle `values` in one piece if there are only plain builtins inside, else return None.

    What it returns can be unpickled without fail, and without running code of the user's.
    """
    if values and type(values[0]) is bytes and len(values[0]) >= _LIFT:
        return None  # one by one, they need not be copied into a pickle
    file = io.BytesIO()
    try:
        _PlainPickler(file, 5).dump(values)
    except Exception:
        # Not plain; or nested too deeply, or changed meanwhile: one by one, it shows whose fault.
        return None
    return file.getvalue()


def dump_bytes(obj: Any, *, what: str, home: bool = False) -> bytes:
    """Pickle `obj` as `pack` does, but into one piece, with all buffers inside.

    Raises:
        CannotPickle: as `pack`.
    """
    return _pack(obj, what, home, whole=True).data


class _NotPlain(Exception):
    """Raised to stop `_PlainPickler`."""


class _PlainPickler(pickle.Pickler):
    """Stops at the first object that is not a plain builtin."""

    def reducer_override(self, obj: Any) -> Any:
        if _safe(type(obj)) or (type(obj) is type and _safe(obj)):
            return NotImplemented
        raise _NotPlain


class _ByValue(Exception):
    """Raised to stop `_FastPickler`: something can only be pickled by value."""


class _FastPickler(pickle.Pickler):
    """The C pickler, which tells whether it met more than plain builtins."""

    plain = True
    home = False

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if _safe(kind) or (kind is type and _safe(obj)):
            return NotImplemented
        self.plain = False
        if kind is types.FunctionType or kind is functools._lru_cache_wrapper:
            if not by_name(obj):
                raise _ByValue
        elif issubclass(kind, type) and not by_name(obj):
            return self._class_by_value(obj)
        return NotImplemented

    def _class_by_value(self, cls: type) -> Any:
        from . import byvalue

        reduced = byvalue.home_reference(cls) if self.home else None
        if reduced is None:
            reduced = byvalue.class_definition(cls)
        if reduced is None:
            raise _ByValue
        return reduced


class _Bytes:
    """Stands for big ``bytes``, so that they go out of band like an array: copied once less."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def __reduce_ex__(self, protocol: Any) -> Any:
        return bytes, (pickle.PickleBuffer(self._value),)


def _lift(obj: Any, depth: int = 2) -> Any:
    """Replace big ``bytes`` at the top of `obj`: itself, in a tuple, or among a call's arguments.

    Only where no one can tell the copy of the container from the original. Not a bytearray: an
    export of its buffer, held until it is sent, would forbid its owner to resize it.
    """
    kind = type(obj)
    if kind is bytes:
        return _Bytes(obj) if len(obj) >= _LIFT else obj
    if kind is not tuple or not depth or len(obj) >= _SHORT:
        return obj
    lifted = [_lift(item, depth - 1) if type(item) in _MAY_LIFT else item for item in obj]
    if depth == 2 and len(obj) == 2 and type(obj[0]) is tuple and type(obj[1]) is dict and obj[1]:
        lifted[1] = {name: _lift(value, 0) for name, value in obj[1].items()}
    for new, old in zip(lifted, obj):
        if new is not old:
            return tuple(lifted)
    return obj


_MAY_LIFT = (tuple, bytes)


def _pack(obj: Any, what: str, home: bool, whole: bool = False) -> Packed:
    """Pickle anything. `whole`: no buffer goes out of band."""
    try:
        parts = dump_parts(obj if whole else _lift(obj), home, whole)
        return _new_packed(Packed, parts)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # Only what ended the search for the culprit may be reported as its cause, so this is
        # not inside another handler of the same error.
        failure = error
    try:
        raise _explain(obj, what, home, failure) from failure
    finally:
        del failure  # see `dump_parts`


class _Tool(NamedTuple):
    """A pickler, and where it puts what it makes."""

    pickler: _FastPickler
    pieces: list[bytes]
    buffers: _Buffers
    dump: Callable[[Any], None]
    clear: Callable[[], None]

    @classmethod
    def new(cls, whole: bool) -> _Tool:
        file, buffers = _File(), _Buffers()
        keep = None if whole else buffers.keep
        pickler = _FastPickler(file, 5, buffer_callback=keep)
        return cls(pickler, file.pieces, buffers, pickler.dump, pickler.clear_memo)


class _File:
    """What a pickler writes to: a small pickle comes in one piece, and needs no copy."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.write = self.pieces.append


_idle: list[_Tool] = []
"""Used again, since a new one costs five times as much as a small pickle. One at work is not in
here: user code that a pickler calls, and that pickles, gets another, and so does another thread.
One that met an exception does not come back."""
_SMALL = 1024
"""Bytes: after a longer pickle the memo is big, and clearing it would cost more than a new one."""


def dump_parts(obj: Any, home: bool = False, whole: bool = False) -> _Parts:
    """What is in `pack`'s answer, as a bare tuple, 0.3 us sooner, and with big ``bytes`` in one
    piece.

    Args:
        whole: no buffer goes out of band.

    Raises what pickling raised; `pack` then says of the same object what is wrong.
    """
    try:
        tool = _Tool.new(whole) if whole else _idle.pop()
    except IndexError:
        tool = _Tool.new(whole)
    pickler, pieces, buffers, dump, clear = tool
    if home:
        pickler.home = True
    try:
        dump(obj)
        data = pieces.pop() if len(pieces) == 1 else b"".join(pieces)
        plain = pickler.plain
        found = tuple(buffers) if buffers else _NO_BUFFERS
        if len(data) <= _SMALL and not whole:
            clear()
            if home:
                pickler.home = False
            if not plain:
                pickler.plain = True
            if found:
                buffers.clear()
            _idle.append(tool)
        return data, found, plain
    except (_ByValue, pickle.PicklingError, TypeError, AttributeError) as error:
        # cloudpickle knows a way for more than what cannot be imported: modules, loggers,
        # properties, views of a dict.
        failure = error
    from .byvalue import ValuePickler

    buffers.clear()
    file = io.BytesIO()
    try:
        ValuePickler(file, None if whole else buffers.keep, home=home).dump(obj)
    except Exception as error:
        if isinstance(failure, _ByValue) or isinstance(error, RecursionError):
            raise
        raise failure from None
    finally:
        # It has our frame in its traceback, and we have it: together they would keep the frames of
        # our callers, with the user's arguments, until the garbage collector comes.
        del failure
    return file.getvalue(), tuple(buffers), False


class _Buffers(list[pickle.PickleBuffer]):
    """The buffers of one pickle that go out of band."""

    def keep(self, buffer: pickle.PickleBuffer) -> bool:
        """A pickler's buffer_callback: true sends the buffer in band."""
        try:
            if buffer.raw().nbytes < OUT_OF_BAND:
                return True
        except BufferError:
            # Not contiguous: in band it is refused with a clear error.
            return True
        self.append(buffer)
        return False


def _explain(obj: Any, what: str, home: bool, error: BaseException) -> CannotPickle:
    """The error for the user, with the part named."""
    if _too_deep(error):
        return CannotPickle(
            f"{what} cannot be pickled: it is nested too deeply ({culprit.say(error)})"
        )

    def attempt(part: Any) -> BaseException | None:
        try:
            dump_parts(part, home, False)
        except KeyboardInterrupt:
            raise
        except BaseException as failure:
            return failure
        return None

    path = ""
    part: Any = obj
    if what == "the arguments" and type(obj) is tuple and len(obj) == 2:
        args, kwargs = obj
        first = attempt(args)
        path, part = ("args", args) if first is not None else ("kwargs", kwargs)
    path, part, cause = culprit.find(part, path or what, error, attempt)
    because = "" if path == what else f" because of {path}"
    kind = f"{culprit.describe(part)}: {culprit.say(cause)}"
    return CannotPickle(f"{what} cannot be pickled{because}, {kind}")


def _too_deep(error: BaseException | None) -> bool:
    """Whether the recursion limit is at the bottom of it (cloudpickle wraps it)."""
    return isinstance(error, RecursionError) or (
        isinstance(error, pickle.PicklingError) and isinstance(error.__cause__, RecursionError)
    )
