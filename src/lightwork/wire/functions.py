"""Functions are sent once to each worker, and then named by a number.

`FunctionTable` (the parent's, one a pool) turns a function into bytes, and equal bytes into the
same key, so that a worker that has seen a key needs nothing more. `FunctionCache` (the worker's)
turns a key back into the function.

A function that can be imported is sent as its name. One that cannot (of the main script, a
lambda, a closure) is sent by value, as it is at the moment of ``ship``: its bytes are used again
only while its `snapshot.Snapshot` holds.
"""

from __future__ import annotations

import functools
import itertools
import sys
import threading
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import CannotUnpickle, InternalError
from . import culprit, references, snapshot
from .pickling import dump_bytes, unpack
from .references import MAIN_MODULES, by_name, importable

__all__ = ["FunctionCache", "FunctionTable", "Shipped"]

Function = Callable[..., Any]

_MAX_FUNCTIONS = 1024  # remembered by identity
_MAX_KEYS = 1024  # remembered by their bytes
_DIGEST_FROM = 1024  # bytes: longer pickles are remembered by their digest


class Shipped(NamedTuple):
    """A function as it is sent.

    Attributes:
        key: the same for the same bytes; never used for others.
        data: what ``FunctionCache.add`` takes.
        name: what people call it, for messages.
        modules: worth importing ahead where workers are forked from.
    """

    key: int
    data: bytes
    name: str
    modules: tuple[str, ...]


class _Entry(NamedTuple):
    function: Function  # kept alive, so that its id stays its own
    holds: Callable[[], bool]
    shipped: Shipped


class FunctionTable:
    """The parent's side; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._keys: OrderedDict[bytes, int] = OrderedDict()

    def ship(self, fn: Function) -> Shipped:
        """Return the bytes and key of `fn` as it is now. Under 1 µs for one that is known.

        Raises:
            CannotPickle: it, or something that it refers to, cannot be sent.
        """
        # Without the lock: an entry is found or not, and is checked before it is believed.
        entry = self._entries.get(id(fn))
        if entry is not None and entry.function is fn and entry.holds():
            return entry.shipped
        return self._ship_anew(fn)

    def _ship_anew(self, fn: Function) -> Shipped:
        name = _name(fn)
        # Before pickling: what changes in between makes the snapshot fail, not lie.
        holds, modules = _watch(fn)
        data = dump_bytes(fn, what=f"the function {name}")
        identity = data if len(data) < _DIGEST_FROM else _digest(data)
        with self._lock:
            key = self._keys.get(identity)
            if key is None:
                key = self._keys[identity] = next(self._numbers)
                if len(self._keys) > _MAX_KEYS:
                    self._keys.popitem(last=False)
            else:
                self._keys.move_to_end(identity)
            shipped = Shipped(key, data, name, modules)
            if holds is not None:
                self._remember(fn, holds, shipped)
        return shipped

    def _remember(self, fn: Function, holds: Callable[[], bool], shipped: Shipped) -> None:
        # First in, first out: one that is still in use comes back at the next ship().
        self._entries.pop(id(fn), None)
        self._entries[id(fn)] = _Entry(fn, holds, shipped)
        if len(self._entries) > _MAX_FUNCTIONS:
            self._entries.popitem(last=False)


def _watch(fn: Function) -> tuple[Callable[[], bool] | None, tuple[str, ...]]:
    """How to see that the bytes of `fn` are still right (None: one cannot), and its modules."""
    if isinstance(fn, (types.FunctionType, types.BuiltinFunctionType, type)) and by_name(fn):
        return functools.partial(by_name, fn), _importable((fn.__module__,))
    if isinstance(fn, (types.FunctionType, functools.partial, functools._lru_cache_wrapper)):
        taken = snapshot.take(fn)
        if taken is not None:
            return taken.holds, _importable(taken.modules)
    return None, _importable(_modules_of(fn))


def _modules_of(fn: Any) -> dict[str, None]:
    """Names of the modules that `fn` refers to, as far as it can be seen without descending."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    names: dict[str, None] = {}
    if isinstance(fn, types.MethodType):
        fn = fn.__func__
    for obj in (fn, type(fn)):
        module = getattr(obj, "__module__", None)
        if isinstance(module, str):
            names[module] = None
    fn = getattr(fn, "__wrapped__", fn)
    if isinstance(fn, types.FunctionType) and fn.__module__ in MAIN_MODULES:
        for name in sorted(snapshot.code_names(fn.__code__)):
            value = fn.__globals__.get(name)
            owner = "__name__" if isinstance(value, types.ModuleType) else "__module__"
            module = getattr(value, owner, None)
            if isinstance(module, str):
                names[module] = None
    return names


def _importable(names: Any) -> tuple[str, ...]:
    return tuple(
        name
        for name in names
        if isinstance(name, str)
        and name not in ("builtins", *MAIN_MODULES)
        and name in sys.modules
        and importable(name)
    )


def _digest(data: bytes) -> bytes:
    import hashlib  # late: it loads OpenSSL

    return hashlib.blake2b(data, digest_size=32).digest()


def _name(fn: Any) -> str:
    """What to call a function: ``module.qualname``, without the module if it is the script."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__qualname__", None)
    if not isinstance(name, str):
        return culprit.describe(fn)
    module = getattr(fn, "__module__", None)
    if not isinstance(module, str) or module in ("builtins", *MAIN_MODULES):
        return name
    return f"{module}.{name}"


class _Loaded(NamedTuple):
    function: Function
    shipments: Any  # what its globals were when it was shipped


class FunctionCache:
    """The worker's side; for one thread. To have one is to be a worker (see `byvalue.adopt`)."""

    def __init__(self) -> None:
        references.in_worker = True
        if "cloudpickle.cloudpickle" in sys.modules:
            from .byvalue import adopt

            adopt()
        self._pickled: dict[int, bytes] = {}
        self._loaded: dict[int, _Loaded] = {}
        self._last_key = 0
        self._last: Function | None = None

    def add(self, key: int, data: bytes) -> None:
        """Take the bytes of a function; they are unpickled when it is first wanted."""
        self._pickled[key] = data

    def discard(self, key: int) -> None:
        """Forget a function; unknown keys are ignored."""
        self._pickled.pop(key, None)
        self._loaded.pop(key, None)
        if key == self._last_key:
            self._last_key, self._last = 0, None

    def get(self, key: int) -> Function:
        """Return the function, with its globals as they were when it was shipped.

        Raises:
            CannotUnpickle: it cannot be rebuilt here; the cause says why. Each call tries anew.
            InternalError: nobody has added this key.
        """
        if key == self._last_key and self._last is not None:
            return self._last
        loaded = self._loaded.get(key)
        if loaded is None:
            loaded = self._load(key)
        elif loaded.shipments:
            # Functions of the script share one namespace, and another one, shipped when the
            # script's globals were different, has run in between.
            from .byvalue import restore

            restore(loaded.shipments)
        self._last_key, self._last = key, loaded.function
        return loaded.function

    def _load(self, key: int) -> _Loaded:
        data = self._pickled.get(key)
        if data is None:
            raise InternalError(f"a task names function {key}, which was never sent")
        if b"lightwork.wire.byvalue" in data:
            from .byvalue import collect

            with collect() as shipments:
                loaded = _Loaded(unpack(data, what="the function"), shipments)
        else:
            loaded = _Loaded(unpack(data, what="the function"), None)
        if not callable(loaded.function):
            raise CannotUnpickle(f"the function was rebuilt as {culprit.describe(loaded.function)}")
        self._loaded[key] = loaded
        del self._pickled[key]
        return loaded
