"""Functions and classes that no other process can import, sent by value (with cloudpickle).

cloudpickle gives every function that is pickled separately a globals dictionary of its own, which
breaks the plainest scripts (an initializer sets a global, the tasks do not see it), and redefines
a class each time that an instance of it passes. This module makes both behave as they do at home:

One namespace for each module
    All functions of the parent's ``__main__`` that come to a worker share one globals dictionary
    there: the worker's own, empty, ``__main__``. What they refer to is merged into it. A name that
    code in the worker has bound itself (the initializer did) is kept. One that still holds what
    an earlier shipment put there is replaced by what the sender has now; unless it is mutable and
    has not changed at the sender: then the worker's object stays, with all that was done to it.

One class, everywhere
    A class has an id. Whoever has a class of this id already keeps it, and takes over only what
    the sender has changed in it; the process where it was defined takes over nothing. So
    ``isinstance`` holds for what comes back.

What the two rules need to know about earlier shipments is kept by the receiver, for each
namespace and class: the object that was put there, and the sender's *mark* of it, a digest of its
state (none for what is immutable).

It is imported when first needed, in both processes. Private names of cloudpickle are used in this
file only; its tests would show a version that changed them.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import os
import pickle
import sys
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import cloudpickle.cloudpickle as cp

from . import references, snapshot
from .references import MAIN_MODULES, by_name, importable

__all__ = ["ValuePickler", "adopt", "class_definition", "collect", "home_reference", "restore"]

_ABSENT = object()
_BufferCallback = Callable[[pickle.PickleBuffer], Any]


# -- the sender ----------------------------------------------------------------------------------


class ValuePickler(cp.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles by value what cannot be found by name.

    Args:
        home: the reader is the process from which our classes came: they go as their ids.
    """

    def __init__(
        self, file: io.BytesIO, buffer_callback: _BufferCallback | None, *, home: bool = False
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self._home = home

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is types.FunctionType:
            return NotImplemented if by_name(obj) else self._dynamic_function_reduce(obj)
        if kind is functools._lru_cache_wrapper:
            return NotImplemented if by_name(obj) else _cached_function_reduce(obj)
        if issubclass(kind, type):
            return self._class_reduce(obj)
        if kind is functools.cached_property:
            # It has a lock, up to Python 3.11.
            return _make_cached_property, (obj.func, obj.attrname)
        if kind is types.CodeType:
            # cloudpickle 3.1.3 forgets the file, without which tracebacks show no source.
            rebuild, args = self.dispatch_table[types.CodeType](obj)
            named = [obj.co_filename if _is_no_file(one) else one for one in args]
            return rebuild, tuple(named)
        return super().reducer_override(obj)

    def _class_reduce(self, cls: type) -> Any:
        if self._home:
            reference = home_reference(cls)
            if reference is not None:
                return reference
        reduced = super().reducer_override(cls)
        if reduced is NotImplemented:
            if by_name(cls) or importable(cls.__module__):
                return NotImplemented
            # cloudpickle takes any module of ours for importable.
            reduced = cp._dynamic_class_reduce(cls)
        if len(reduced) != 6:  # one of the builtin types without a name
            return reduced
        maker, arguments, state, _, _, setter = reduced
        attributes, slots = state
        ident = cp._get_or_create_tracker_id(cls)
        _keep_alive(ident, cls)
        state = (setter, (attributes, _marks(attributes)), slots)
        return _make_class, (ident, maker, arguments), state, None, None, _set_class

    def _dynamic_function_reduce(self, func: types.FunctionType) -> Any:
        reduced = super()._dynamic_function_reduce(func)
        maker, arguments, (attributes, slots), *_ = reduced
        names = slots["__globals__"]
        for name in _names_of_class_bodies(func.__code__):
            if name in func.__globals__:
                names.setdefault(name, func.__globals__[name])
        space = _space_of(func)
        if space is None:
            return reduced
        slots["__globals__"] = {}
        marked = (names, _marks(names))
        arguments = (arguments[0], space, *arguments[2:])
        return maker, arguments, (marked, (attributes, slots)), None, None, _set_function


class _Space:
    """Stands for the namespace that functions of one module share at the receiver."""

    def __init__(self, name: str, names: Mapping[str, Any]) -> None:
        self._name = name
        self._base = {}
        if name != "__main__":
            wanted = ("__name__", "__package__", "__path__", "__file__")
            self._base = {key: names[key] for key in wanted if key in names}

    def __reduce__(self) -> Any:
        return _space, (self._name, self._base)


def _space_of(func: types.FunctionType) -> _Space | None:
    """The shared namespace of a function; None if its globals are nobody's (``exec``)."""
    names = func.__globals__
    main = sys.modules.get("__main__")
    if main is not None and names is main.__dict__:
        return _Space("__main__", names)
    name = names.get("__name__")
    if not isinstance(name, str):
        return None
    module = sys.modules.get(name)
    if names is getattr(module, "__dict__", None) or names is _foreign_spaces.get(name):
        return _Space("__main__" if name in MAIN_MODULES else name, names)
    return None


def _is_no_file(argument: Any) -> bool:
    return type(argument) is str and argument == "<dynamic-code>"


def _names_of_class_bodies(code: types.CodeType) -> Iterator[str]:
    """Names that classes inside a function look up; cloudpickle looks at functions only."""
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            if not constant.co_flags & snapshot.CO_OPTIMIZED:
                yield from constant.co_names
            yield from _names_of_class_bodies(constant)


def _cached_function_reduce(cached: Any) -> Any:
    parameters = cached.cache_parameters()
    arguments = (cached.__wrapped__, parameters["maxsize"], parameters["typed"])
    return _make_cached, arguments, _without_wrapped(cached)


def _without_wrapped(cached: Any) -> dict[str, Any] | None:
    extra = {k: v for k, v in vars(cached).items() if k not in _UPDATED}
    return extra or None


_UPDATED = frozenset({*functools.WRAPPER_ASSIGNMENTS, "__wrapped__", "__type_params__"})


# -- marks ---------------------------------------------------------------------------------------


# Names with their values, and the marks of those that are mutable.
_Marked = tuple[dict[str, Any], dict[str, bytes]]

_token_numbers = itertools.count()
_tokens: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_tokens_lock = threading.Lock()


def _token(obj: Any) -> int:
    """A number for an object that is told apart by identity; never used again, as an id is."""
    with _tokens_lock:
        number = _tokens.get(obj)
        if number is None:
            number = _tokens[obj] = next(_token_numbers)
        return number


class _MarkPickler(pickle.Pickler):
    """Pickles the state of a value, with functions and classes as mere tokens."""

    def persistent_id(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is types.FunctionType or kind is functools._lru_cache_wrapper:
            return _token(obj)
        if issubclass(kind, type):
            return f"{obj.__module__}.{obj.__qualname__}"
        if kind is types.ModuleType:
            return obj.__name__
        return None


_NO_MARK: frozenset[type] = frozenset(
    {
        *(bool, bytes, complex, float, int, str, type(None)),
        *(types.FunctionType, types.ModuleType, types.BuiltinFunctionType),
    }
)


def _mark(value: Any) -> bytes | None:
    """A digest of a mutable value's state; None if it is immutable, or has no state to look at."""
    if type(value) in _NO_MARK or issubclass(type(value), type):
        return None
    digest = hashlib.blake2b(digest_size=16)
    file = io.BytesIO()
    try:
        _MarkPickler(file, 5, buffer_callback=lambda b: digest.update(b.raw())).dump(value)
    except Exception:
        # It travels some other way, or not at all, which its own pickling will tell.
        return None
    digest.update(file.getbuffer())
    return digest.digest()


def _marks(names: Mapping[str, Any]) -> dict[str, bytes]:
    marks = {}
    for name, value in names.items():
        mark = _mark(value)
        if mark is not None:
            marks[name] = mark
    return marks


# -- the receiver: namespaces --------------------------------------------------------------------


class _Put(NamedTuple):
    """What a shipment put under a name."""

    value: Any
    mark: bytes | None


class _Shipment(NamedTuple):
    """Names for one namespace, as they came with one function."""

    target: dict[str, Any]
    names: _Marked


_foreign_spaces: dict[str, dict[str, Any]] = {}  # of modules that exist at the sender only
# Id of a namespace -> the namespace, kept alive so that its id stays its own, and what was put.
_put_in_space: dict[int, tuple[dict[str, Any], dict[str, _Put]]] = {}
_collected = threading.local()


def _space(name: str, base: Mapping[str, Any]) -> dict[str, Any]:
    """The namespace that functions of the sender's module `name` share here."""
    module = sys.modules.get(name)
    if module is not None and (
        name in MAIN_MODULES or importable(name) or not references.in_worker
    ):
        return module.__dict__
    # Not here; or here as it was when this worker was forked.
    return _foreign_spaces.setdefault(name, dict(base))


def _merge(
    put: dict[str, _Put], get: Callable[[str], Any], names: _Marked
) -> Iterator[tuple[str, Any]]:
    """Yield the names that are to be bound, and note them; see the rules at the top."""
    values, marks = names
    for name, value in values.items():
        mark = marks.get(name)
        now = get(name)
        if now is not _ABSENT:
            before = put.get(name)
            if before is None:
                # Not from a shipment. A fresh __main__ has None for __file__, __doc__, ...
                if not (now is None and name.startswith("__")):
                    continue
            elif before.value is not now or (mark is not None and before.mark == mark):
                continue
        put[name] = _Put(value, mark)
        yield name, value


def _merge_space(shipment: _Shipment) -> None:
    target = shipment.target
    _, put = _put_in_space.setdefault(id(target), (target, {}))

    def get(name: str) -> Any:
        return target.get(name, _ABSENT)

    for name, value in _merge(put, get, shipment.names):
        target[name] = value


@contextmanager
def collect() -> Iterator[list[_Shipment]]:
    """Gather the shipments of what is unpickled inside, for `restore`."""
    outer = getattr(_collected, "shipments", None)
    shipments: list[_Shipment] = []
    _collected.shipments = shipments
    try:
        yield shipments
    finally:
        _collected.shipments = outer


def restore(shipments: Iterable[_Shipment]) -> None:
    """Merge again, because other shipments may have come in between."""
    for shipment in shipments:
        _merge_space(shipment)


def _set_function(func: types.FunctionType, state: tuple[_Marked, Any]) -> None:
    """Complete a function: give its namespace the names that it refers to."""
    names, rest = state
    shipment = _Shipment(func.__globals__, names)
    _merge_space(shipment)
    shipments = getattr(_collected, "shipments", None)
    if shipments is not None:
        shipments.append(shipment)
    cp._function_setstate(func, rest)


def _make_cached(func: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(func)


def _make_cached_property(
    func: Callable[[Any], Any], name: str | None
) -> functools.cached_property[Any]:
    made = functools.cached_property(func)
    made.attrname = name
    return made


# -- the receiver: classes -----------------------------------------------------------------------

# Classes that came from elsewhere, with what shipments put into them. All others of the tracker
# are our own, and nobody changes them from outside.
_received: weakref.WeakKeyDictionary[type, dict[str, _Put]] = weakref.WeakKeyDictionary()
_stamps: weakref.WeakKeyDictionary[type, bytes] = weakref.WeakKeyDictionary()

# Instances of a class may come home after the sender dropped it (a notebook redefines it, a
# function's local class): without these strong references they could not be rebuilt.
_KEPT_CLASSES = 1024
_kept_classes: OrderedDict[str, type] = OrderedDict()
_kept_lock = threading.Lock()


def _renew_locks() -> None:
    """After a fork, in the child: another thread may have held one, and does not exist here."""
    global _kept_lock, _tokens_lock
    _kept_lock = threading.Lock()
    _tokens_lock = threading.Lock()
    cp._DYNAMIC_CLASS_TRACKER_LOCK = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def _keep_alive(ident: str, cls: type) -> None:
    with _kept_lock:
        _kept_classes[ident] = cls
        _kept_classes.move_to_end(ident)
        if len(_kept_classes) > _KEPT_CLASSES:
            _kept_classes.popitem(last=False)


def home_reference(cls: type) -> Any:
    """How a class that came from the reader is pickled for it: by its id. None if it did not."""
    if cls not in _received:
        return None
    return _class_at_home, (cp._DYNAMIC_CLASS_TRACKER_BY_CLASS[cls], cls.__qualname__)


def _class_at_home(ident: str, name: str) -> type:
    cls: type | None = cp._DYNAMIC_CLASS_TRACKER_BY_ID.get(ident)
    if cls is None:
        raise LookupError(f"class {name} does not exist any more in the process that defined it")
    return cls


def adopt() -> None:
    """Note that the classes which this process was forked with are the parent's.

    Else it would take them for its own, which no shipment changes.
    """
    for cls in list(cp._DYNAMIC_CLASS_TRACKER_BY_CLASS):
        if isinstance(cls, type) and cls not in _received:
            _received[cls] = _as_put(cls)


def _as_put(cls: type) -> dict[str, _Put]:
    """What a class has, as if a shipment had put it there, so that the next one may change it."""
    return {name: _Put(value, None) for name, value in cls.__dict__.items()}


def _make_class(ident: str, maker: Callable[..., type], arguments: tuple[Any, ...]) -> type:
    cls: type | None = cp._DYNAMIC_CLASS_TRACKER_BY_ID.get(ident)
    if cls is None:
        cls = maker(*arguments)
        # What making it has put there (a NamedTuple's __new__) gives way to what is sent.
        _received[cls] = _as_put(cls)
    return cls


def _set_class(cls: type, state: tuple[Any, _Marked, Any]) -> None:
    """Complete a class, or bring one up to date; never one that was defined here."""
    setter, names, slots = state
    put = _received.get(cls)
    if put is None:
        return
    _stamps.pop(cls, None)
    own = cls.__dict__

    def get(name: str) -> Any:
        return own.get(name, _ABSENT)

    setter(cls, (dict(_merge(put, get, names)), slots))


# -- class definitions, ready to be used again ---------------------------------------------------


class _Definition(NamedTuple):
    snapshot: snapshot.Snapshot
    reduced: Any


_definitions: weakref.WeakKeyDictionary[type, _Definition | None] = weakref.WeakKeyDictionary()


def class_definition(cls: type) -> Any:
    """A reduction of `cls` that costs little for the second instance, or None if there is none.

    The definition is pickled once, and goes along as bytes; a receiver that has loaded the same
    bytes before does not look at them.
    """
    known = _definitions.get(cls, _ABSENT)
    if known is None:
        return None
    if isinstance(known, _Definition) and known.snapshot.holds():
        return known.reduced
    taken = snapshot.take(cls)
    if taken is None:
        _definitions[cls] = None
        return None
    file = io.BytesIO()
    ValuePickler(file, None).dump(cls)
    data = file.getvalue()
    stamp = hashlib.blake2b(data, digest_size=16).digest()
    reduced = _load_class, (cp._get_or_create_tracker_id(cls), stamp, data)
    _definitions[cls] = _Definition(taken, reduced)
    return reduced


def _load_class(ident: str, stamp: bytes, data: bytes) -> type:
    cls: type | None = cp._DYNAMIC_CLASS_TRACKER_BY_ID.get(ident)
    if cls is not None and (cls not in _received or _stamps.get(cls) == stamp):
        return cls
    cls = pickle.loads(data)
    assert isinstance(cls, type)
    _stamps[cls] = stamp
    return cls
