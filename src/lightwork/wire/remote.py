"""Exceptions across processes: as themselves where possible, as `RemoteError` where not.

The worker tries each way of rebuilding before it relies on it:

1. as the exception pickles itself;
2. without its ``__init__``, from ``args`` and attributes: this brings home the many classes whose
   ``__init__`` takes other arguments than it hands on;
3. else, as a `RemoteError` with its type's name, text, traceback and attributes.

The text of the whole remote traceback travels beside, and becomes the ``__cause__``, in the form
that ``concurrent.futures`` gives it.
"""

from __future__ import annotations

import builtins
import pickle
import types
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import InternalError, RemoteError
from . import culprit
from .pickling import dump_bytes

__all__ = ["pack_error", "unpack_error"]

_TEXT_LIMIT = 1 << 18  # characters of a traceback or text; what is in the middle goes
_REPR_LIMIT = 1000
_ATTRIBUTE_LIMIT = 1 << 20  # bytes: bigger attributes of a stand-in are shown as text

_ITSELF, _GROUP, _STAND_IN = "itself", "group", "stand-in"

_ATOMS = frozenset({int, float, complex, str, bytes, bool, type(None)})

_MAX_DEPTH = 20  # of groups in groups, each with the tracebacks of all its parts

# What builtin exceptions keep outside of ``args`` and ``__dict__``.
_HIDDEN: tuple[tuple[type[BaseException], tuple[str, ...]], ...] = (
    (OSError, ("errno", "strerror", "filename", "filename2")),
    (SystemExit, ("code",)),
    (StopIteration, ("value",)),
    (ImportError, ("msg", "name", "path")),
    (AttributeError, ("name",)),
    (NameError, ("name",)),
    (SyntaxError, ("msg", "filename", "lineno", "offset", "text", "end_lineno", "end_offset")),
    (UnicodeDecodeError, ("encoding", "object", "start", "end", "reason")),
    (UnicodeEncodeError, ("encoding", "object", "start", "end", "reason")),
)


def pack_error(exc: BaseException) -> bytes:
    """Turn an exception into bytes that `unpack_error` can always rebuild something from.

    Never raises, whatever the exception's own methods do.
    """
    return _pack(exc, 0)


def _pack(exc: BaseException, depth: int) -> bytes:
    """`pack_error` of a part of so many groups."""
    try:
        return pickle.dumps(_report(exc, depth), 5)
    except BaseException as failure:
        name = type(exc).__name__
        text = f"{name} (it could not be reported: {culprit.say(failure)})"
        return pickle.dumps((_STAND_IN, None, (name, text, {}), ""), 5)


def unpack_error(data: bytes | memoryview) -> BaseException:
    """Rebuild what `pack_error` took: that exception, or a `RemoteError`. Never raises.

    Its cause is the remote traceback; as in ``concurrent.futures``, what the exception's cause or
    context was is in that text.
    """
    try:
        report = pickle.loads(data)
        return _rebuild(report)
    except BaseException as failure:
        error = InternalError(f"the report of an error was damaged ({culprit.say(failure)})")
        error.__cause__ = failure
        return error


# -- in the worker -------------------------------------------------------------------------------
#
# A report is (form, payload, (type's name, text, attributes), traceback): only plain values, for
# it must be readable where the payload is not.


def _report(exc: BaseException, depth: int) -> tuple[Any, ...]:
    text = _format(exc)
    if _is_plain(exc):
        return _ITSELF, pickle.dumps(exc, 5), (_type_name(exc), _text(exc), {}), text
    if type(exc) in (ExceptionGroup, BaseExceptionGroup) and depth < _MAX_DEPTH:
        parts = [_pack(part, depth + 1) for part in exc.exceptions]  # type: ignore[attr-defined]
        notes = _plain_notes(exc)
        payload = (exc.message, parts, notes)  # type: ignore[attr-defined]
        return _GROUP, payload, _summary(exc), text
    itself = _pickled_itself(exc)
    form = _STAND_IN if itself is None else _ITSELF
    return form, itself, _summary(exc), text


def _is_plain(exc: BaseException) -> bool:
    """Whether it is a builtin exception of plain arguments: nothing can go wrong then."""
    return (
        getattr(builtins, type(exc).__name__, None) is type(exc)
        and not vars(exc)
        and _ATOMS.issuperset(map(type, exc.args))
        and not isinstance(exc, (AttributeError, NameError, OSError, SyntaxError, ImportError))
    )


def _pickled_itself(exc: BaseException) -> bytes | None:
    """Bytes from which a faithful copy has been rebuilt here, or None."""
    text = _str(exc)
    if text is None:
        return None
    for form in _forms(type(exc)):
        try:
            data = form(exc)
            copy = pickle.loads(data)
        except BaseException:  # whatever the user's classes do, SystemExit included
            continue
        if type(copy) is type(exc) and _str(copy) == text and _same_shape(copy, exc):
            return data
    return None


def _forms(cls: type[BaseException]) -> list[Callable[[BaseException], bytes]]:
    """The ways to try for a class, the most faithful first."""
    for base in cls.__mro__:
        if base.__module__ != "builtins" and not _OWN_PICKLING.isdisjoint(base.__dict__):
            return [_as_it_pickles, _completed]  # it says how
    if isinstance(cls.__init__, types.FunctionType) or any(_slots(cls)):
        # By default slots are left out, and __init__ is called with ``args``, which are often
        # not what it takes, or make another text.
        return [_without_init, _as_it_pickles]
    return [_as_it_pickles, _without_init]


_OWN_PICKLING = frozenset(
    {
        *("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"),
        *("__getnewargs__", "__getnewargs_ex__"),
    }
)


def _slots(cls: type) -> Iterator[str]:
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__"):
                # A private name is stored under another, as in the class's own code.
                private = name.startswith("__") and not name.endswith("__")
                yield f"_{base.__name__.lstrip('_')}{name}" if private else name


def _as_it_pickles(exc: BaseException) -> bytes:
    return dump_bytes(exc, what="the exception", home=True)


def _completed(exc: BaseException) -> bytes:
    """As it pickles, and then the attributes and notes that its own reduction leaves out."""
    return dump_bytes(_Recipe(_complete, exc, dict(vars(exc))), what="the exception", home=True)


def _complete(exc: BaseException, attributes: dict[str, Any]) -> BaseException:
    for name, value in attributes.items():
        exc.__dict__.setdefault(name, value)
    return exc


def _without_init(exc: BaseException) -> bytes:
    state: dict[str, Any] = {}
    for base, names in _HIDDEN:
        if isinstance(exc, base):
            state.update({name: getattr(exc, name) for name in names if hasattr(exc, name)})
    # None set is not the same as not set to OSError's text.
    state = {name: value for name, value in state.items() if value is not None}
    state.update({name: getattr(exc, name) for name in _slots(type(exc)) if hasattr(exc, name)})
    recipe = _Recipe(_make, type(exc), exc.args, state, dict(vars(exc)))
    return dump_bytes(recipe, what="the exception", home=True)


class _Recipe:
    """Pickles as what the function makes of the arguments."""

    def __init__(self, make: Callable[..., BaseException], *arguments: Any) -> None:
        self._make = make
        self._arguments = arguments

    def __reduce__(self) -> Any:
        return self._make, self._arguments


def _make(
    cls: type[BaseException],
    args: tuple[Any, ...],
    state: dict[str, Any],
    attributes: dict[str, Any],
) -> BaseException:
    exc = cls.__new__(cls, *args)
    exc.args = args
    for name, value in state.items():
        setattr(exc, name, value)
    exc.__dict__.update(attributes)
    return exc


def _same_shape(copy: BaseException, exc: BaseException) -> bool:
    """Whether a copy has the arguments and attributes of the original, as far as names go."""
    try:
        return len(copy.args) == len(exc.args) and vars(copy).keys() == vars(exc).keys()
    except Exception:
        return False


def _summary(exc: BaseException) -> tuple[str, str, dict[str, tuple[bytes | None, str]]]:
    """What a RemoteError would show, should the exception not survive the journey."""
    attributes = {}
    try:
        items = list(vars(exc).items())
    except Exception:
        items = []
    for name, value in items:
        if name == "__notes__" or not isinstance(name, str):
            continue
        attributes[name] = (_pickled_attribute(value), _repr(value))
    return _type_name(exc), _text(exc), attributes


def _pickled_attribute(value: Any) -> bytes | None:
    try:
        data = dump_bytes(value, what="the attribute", home=True)
        if len(data) > _ATTRIBUTE_LIMIT:
            return None
        pickle.loads(data)
        return data
    except BaseException:
        return None


def _format(exc: BaseException) -> str:
    """The traceback of the exception and its chain, without our own frames on top."""
    try:
        import traceback  # late: few need it, and it takes two milliseconds

        lines = traceback.format_exception(type(exc), exc, _users_part(exc))
        return _shorten("".join(lines), _TEXT_LIMIT)
    except BaseException as failure:
        return f"{_type_name(exc)} (its traceback cannot be shown: {culprit.say(failure)})\n"


def _users_part(exc: BaseException) -> Any:
    part = exc.__traceback__
    while part is not None:
        name = part.tb_frame.f_globals.get("__name__", "")
        if not str(name).startswith("lightwork."):
            return part
        part = part.tb_next
    return exc.__traceback__


def _plain_notes(exc: BaseException) -> list[str]:
    notes = getattr(exc, "__notes__", ())
    if not isinstance(notes, (list, tuple)):
        return []
    return [note for note in notes if type(note) is str]


def _str(exc: BaseException) -> str | None:
    try:
        repr(exc)
        return str(exc)
    except BaseException:
        return None


def _text(exc: BaseException) -> str:
    text = _str(exc)
    if text is None:
        return "<its str() or repr() failed>"
    return _shorten(text, _TEXT_LIMIT)


def _repr(value: Any) -> str:
    try:
        return _shorten(repr(value), _REPR_LIMIT)
    except BaseException:
        return f"<{type(value).__name__}: its repr() failed>"


def _type_name(exc: BaseException) -> str:
    cls = type(exc)
    module = cls.__module__
    return cls.__qualname__ if module == "builtins" else f"{module}.{cls.__qualname__}"


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


# -- in the parent -------------------------------------------------------------------------------


def _rebuild(report: tuple[Any, ...]) -> BaseException:
    form, payload, summary, text = report
    error: BaseException | None = None
    if form == _GROUP:
        error = _rebuild_group(payload)
    elif form == _ITSELF:
        try:
            error = pickle.loads(payload)
        except BaseException as failure:
            # It could be rebuilt in the worker: the class exists only there.
            error = _stand_in(summary, text)
            error.add_note(f"It could not be rebuilt here: {culprit.say(failure)}")
    if not isinstance(error, BaseException):
        error = _stand_in(summary, text)
    error.__cause__ = _remote_traceback(text)
    return error


def _rebuild_group(payload: tuple[Any, ...]) -> BaseException:
    message, parts, notes = payload
    # Its constructor makes it an ExceptionGroup where all parts are Exceptions.
    group = BaseExceptionGroup(message, [unpack_error(part) for part in parts])
    for note in notes:
        group.add_note(note)
    return group


def _stand_in(summary: tuple[str, str, Any], text: str) -> RemoteError:
    type_name, message, attributes = summary
    error = RemoteError(f"{type_name}: {message}" if message else type_name)
    error.type_name = type_name
    error.text = message
    error.traceback = text
    error.attributes = {}
    for name, (data, shown) in attributes.items():
        error.attributes[name] = shown
        if data is not None:
            try:
                error.attributes[name] = pickle.loads(data)
            except BaseException:  # its class is missing here: the text has to do
                continue
    return error


def _remote_traceback(text: str) -> BaseException:
    from concurrent.futures import process  # late: it imports multiprocessing

    make: Any = process._RemoteTraceback
    error: BaseException = make(f'\n"""\n{text}"""')
    return error
