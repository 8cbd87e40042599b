"""What a function closes over, and whether a call has changed it.

A worker process gets a copy of what a function refers to: of its closure, its globals, the object
that it is a method of. A function that appends to a list of its caller's must therefore stay in
this process. Whether it does is seen in two ways, and both can only see so far:

* `may_change` reads the code, before anything has run: does it refer to something that can be
  changed, and is there an instruction, or the name of a method, that changes things?
* `Look` compares before and after a call, by identity, one level deep: containers, attributes,
  rebound names, and the bytes of buffers of up to a megabyte.

Limitations: what a C function or another thread changes meanwhile, and what lies deeper, is not
told apart or not seen. Who knows better says ``Pool("threads")``.
"""

from __future__ import annotations

import dis
import functools
import logging
import types
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

__all__ = ["Look", "may_change", "parts"]

_MOST = 1000  # elements of a container that are compared
_BYTES = 1 << 20  # bytes of buffers that are compared
_DEPTH = 3  # functions that call functions
_CONTAINERS = (list, dict, set, deque, bytearray)

_STORES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
_CHANGES = frozenset({"STORE_SUBSCR", "DELETE_SUBSCR", "STORE_ATTR", "DELETE_ATTR", "STORE_SLICE"})
_CHANGING = frozenset(
    {
        *("append", "appendleft", "extend", "extendleft", "insert", "add", "update", "setdefault"),
        *("pop", "popleft", "popitem", "remove", "discard", "clear", "sort", "reverse", "fill"),
        *("put", "put_nowait", "write", "writelines", "subtract", "push", "heappush", "heappop"),
        *("__setitem__", "__setattr__", "setattr", "intersection_update", "difference_update"),
    }
)


def parts(fn: Any) -> dict[str, Any]:
    """What `fn` closes over, by name: its cells, its globals, its object, bound arguments."""
    found: dict[str, Any] = {}
    for name, value in _parts(fn, 0):
        found.setdefault(name, value)
    return found


def _parts(fn: Any, depth: int) -> Iterator[tuple[str, Any]]:
    while not isinstance(fn, (types.FunctionType, type)):
        if isinstance(fn, functools.partial):
            yield from ((f"bound argument {at}", one) for at, one in enumerate(fn.args))
            yield from ((f"bound argument {name!r}", one) for name, one in fn.keywords.items())
            fn = fn.func
        elif isinstance(fn, types.BuiltinMethodType):
            if not isinstance(fn.__self__, types.ModuleType):
                yield "self", fn.__self__
            return
        elif isinstance(fn, types.MethodType):
            yield "self", fn.__self__
            fn = fn.__func__
        elif isinstance(fn, functools._lru_cache_wrapper):
            fn = fn.__wrapped__  # its memory is a cache: each process may have its own
        elif callable(inner := getattr(fn, "func", None)):
            fn = inner  # an object around a function, perhaps one of ours
        else:
            yield "self", fn
            fn = _call_of(fn)
    if isinstance(fn, types.FunctionType):
        yield from _parts_of_function(fn, depth)


def _call_of(thing: Any) -> Any:
    """The function that is run when an object is called; a type, where there is none."""
    found = getattr(type(thing), "__call__", object)  # noqa: B004 - not asked whether, but which
    return found if isinstance(found, types.FunctionType) else object


def _parts_of_function(fn: types.FunctionType, depth: int) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or ()):
        try:
            value = cell.cell_contents
        except ValueError:
            value = None  # not set yet
        yield name, value
        yield from _inside(value, fn, depth)
    yield from ((f"default {at}", one) for at, one in enumerate(fn.__defaults__ or ()))
    yield from ((f"default {name}", one) for name, one in (fn.__kwdefaults__ or {}).items())
    for name in _globals(fn.__code__):
        if name in fn.__globals__:
            yield name, fn.__globals__[name]
            yield from _inside(fn.__globals__[name], fn, depth)


def _inside(value: Any, caller: types.FunctionType, depth: int) -> Iterator[tuple[str, Any]]:
    """The parts of a function that is called by `caller`, if it is one of the same program."""
    if depth < _DEPTH and value is not caller and _same_program(value, caller):
        yield from _parts(value, depth + 1)


def _same_program(value: Any, caller: types.FunctionType) -> bool:
    return isinstance(value, types.FunctionType) and value.__module__ == caller.__module__


@functools.lru_cache(maxsize=1024)
def _globals(code: types.CodeType) -> tuple[str, ...]:
    """The names that the code, or code inside it, may look up as globals; in order."""
    names = dict.fromkeys(code.co_names)
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            names.update(dict.fromkeys(_globals(one)))
    return tuple(names)


def _code(fn: Any) -> Iterator[types.CodeType]:
    """The code that a call of `fn` may run, as far as it can be seen."""
    seen: set[int] = set()
    waiting = [(fn, 0)]
    while waiting:
        one, depth = waiting.pop()
        while not isinstance(one, (types.FunctionType, type)):
            one = (
                getattr(one, "func", None)
                or getattr(one, "__func__", None)
                or getattr(one, "__wrapped__", None)
                or _call_of(one)
            )
        if not isinstance(one, types.FunctionType) or id(one) in seen:
            continue
        seen.add(id(one))
        codes = [one.__code__]
        while codes:
            code = codes.pop()
            yield code
            codes += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
        if depth < _DEPTH:
            called = [one.__globals__.get(name) for name in _globals(one.__code__)]
            for cell in one.__closure__ or ():
                try:
                    called.append(cell.cell_contents)
                except ValueError:
                    continue  # not set yet
            waiting += [(inner, depth + 1) for inner in called if _same_program(inner, one)]


@functools.lru_cache(maxsize=1024)
def _instructions(code: types.CodeType) -> tuple[bool, bool]:
    """Whether the code stores to outer names, and whether it changes objects."""
    stores = changes = False
    for one in dis.get_instructions(code):
        if one.opname in _STORES or (
            one.opname == "STORE_DEREF" and one.argval in code.co_freevars
        ):
            stores = True
        if one.opname in _CHANGES:
            changes = True
    return stores, changes or not _CHANGING.isdisjoint(code.co_names)


def may_change(fn: Any) -> bool:
    """Whether its code looks as if it could change what it closes over. Runs nothing of it."""
    if isinstance(fn, types.BuiltinMethodType) and not isinstance(fn.__self__, types.ModuleType):
        return _is_mutable(fn.__self__)  # such as results.append
    stores = changes = False
    for code in _code(fn):
        found = _instructions(code)
        stores, changes = stores or found[0], changes or found[1]
    return stores or (changes and any(_is_mutable(one) for one in parts(fn).values()))


def _is_mutable(value: Any) -> bool:
    if isinstance(value, _CONTAINERS):
        return True
    if isinstance(value, (types.ModuleType, types.FunctionType, type, logging.Logger)):
        return False
    return hasattr(value, "__dict__") or _bytes_of(value) is not None


class Look:
    """How things are before a call; `changed` tells what the call has changed.

    Args:
        fn, args, kwargs: the call. Its arguments are looked at as well: what it does to them
            would be lost in a process, too.
    """

    def __init__(
        self, fn: Callable[..., Any], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> None:
        self._fn = fn
        self._args = {f"argument {at}": one for at, one in enumerate(args)}
        self._args.update({f"argument {name!r}": one for name, one in (kwargs or {}).items()})
        self._left = _BYTES
        self._before = {name: (one, self._picture(one)) for name, one in self._all().items()}

    def _all(self) -> dict[str, Any]:
        return {**parts(self._fn), **self._args}

    def changed(self) -> str:
        """The name of something that has changed since, or the empty string."""
        self._left = _BYTES
        now = self._all()
        for name, (value, picture) in self._before.items():
            if name not in now or now[name] is not value:
                return name
            if not _same(picture, self._picture(value)):
                return name
        return next((name for name in now if name not in self._before), "")

    def _picture(self, value: Any) -> Any:
        if isinstance(value, (types.ModuleType, types.FunctionType, logging.Logger)):
            return None
        inside = self._flat(value)
        if inside is not None:
            return inside
        attributes = getattr(value, "__dict__", None)
        if not isinstance(attributes, (dict, types.MappingProxyType)):
            return None
        names = list(islice(list(attributes), _MOST))
        values = [attributes[name] for name in names if name in attributes]
        return [len(attributes), *names, *values, *[self._length(one) for one in values]]

    def _flat(self, value: Any) -> Any:
        """The elements of a container, or a checksum of a buffer; None for anything else."""
        try:
            if isinstance(value, (list, deque, set)):
                return [len(value), *islice(value, _MOST)]
            if isinstance(value, dict):
                return [len(value), *islice(value, _MOST), *islice(value.values(), _MOST)]
        except RuntimeError:  # changed by another thread while we look
            return object()
        view = _bytes_of(value)
        if view is None or view.nbytes > self._left:
            return None
        self._left -= view.nbytes
        return [view.nbytes, zlib.crc32(view)]

    @staticmethod
    def _length(value: Any) -> int:
        return len(value) if type(value) in _CONTAINERS else -1


def _bytes_of(value: Any) -> memoryview | None:
    """The memory of an object that lets itself be written through a buffer."""
    if isinstance(value, (str, int, float, bytes, tuple, type)) or value is None:
        return None
    try:
        view = memoryview(value)
        return None if view.readonly or not view.c_contiguous else view.cast("B")
    except (TypeError, ValueError, BufferError):
        return None


def _same(one: Any, other: Any) -> bool:
    """Whether two pictures show the same: sizes and checksums by value, all else by identity."""
    if not isinstance(one, list) or not isinstance(other, list):
        return one is other
    if len(one) != len(other):
        return False
    return all(a is b or (type(a) is int and type(b) is int and a == b) for a, b in zip(one, other))
