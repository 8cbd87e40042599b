"""Digests by which a later run recognizes the same items, and the same function.

Items are compared by content: equal values have equal digests in every process, whatever their
identities, and whatever seed strings are hashed with. Plain values take a microsecond or two;
all else is pickled without the pickler's memory of identities, which would tell ``(a, a)`` from
``(a, b)`` for equal texts.

A function is compared by its bytecode, constants, defaults and closure, and by the functions,
classes and plain constants of its own top-level package that it names, and those that they name.

Limitations: what a function reaches in other ways (methods that are looked up by name, other
packages, mutable globals, files) is not seen, nor what code in C does. Docstrings, comments and
line numbers do not count.
"""

from __future__ import annotations

import functools
import io
import pickle
import types
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

from ..errors import CannotPickle

__all__ = ["SIZE", "digest", "fingerprint"]

SIZE = 16
"""Bytes of a digest: two different items of a billion share one with probability 1e-21."""

_ATOMS: frozenset[type] = frozenset({int, float, complex, str, bytes, bool, type(None)})


def digest(value: object) -> bytes:
    """The digest of an item. Raises CannotPickle for what has no content that can be told."""
    return blake2b(_bytes(value), digest_size=SIZE).digest()


def _bytes(value: Any) -> bytes:
    kind = type(value)
    if kind is int:
        return b"int %d" % value if -(1 << 63) <= value < 1 << 63 else b"int %x" % value
    if kind is str:
        text: bytes = value.encode("utf-8", "surrogatepass")
        return b"str " + text
    file = io.BytesIO()
    try:
        _Content(file).dump(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise CannotPickle(
            "a checkpoint recognizes items by their content, and this one has none that can be "
            f"pickled: {type(value).__name__}: {type(error).__name__}: {error}"
        ) from error
    return file.getvalue()


class _Content(pickle.Pickler):
    """Writes what a value is made of; nothing can be rebuilt from it."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, 5)
        self.fast = True  # without a memo: see the top of the file

    def persistent_id(self, obj: Any) -> Any:
        kind = type(obj)
        if kind in _ATOMS or kind is tuple or kind is list or kind is dict:
            return None
        if kind is set or kind is frozenset:  # their order depends on the process
            return kind.__name__, sorted(map(digest, obj))
        if kind is types.FunctionType:
            return "function", obj.__qualname__, fingerprint(obj)
        if kind is types.ModuleType:
            return "module", obj.__name__
        if isinstance(obj, type):
            return "class", obj.__module__, obj.__qualname__
        return None


def fingerprint(fn: Callable[..., Any]) -> bytes:
    """The digest of a function: the same as long as it can be expected to do the same.

    Never raises: of what has no content that can be told, the type's name counts.
    """
    walk = _Walk()
    walk.visit(fn)
    return walk.hash.digest()


class _Walk:
    """Feeds a hash with a function and what it refers to, each thing once, in a fixed order."""

    def __init__(self) -> None:
        self.hash = blake2b(digest_size=SIZE)
        self._seen: dict[int, tuple[int, object]] = {}  # the object is kept, and so its id

    def _say(self, *words: object) -> None:
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogatepass")
            self.hash.update(b"%d:" % len(data))
            self.hash.update(data)

    def visit(self, thing: Any) -> None:
        """Take in a function, a class, or a value."""
        known = self._seen.get(id(thing))
        if known is not None:
            self._say("again", known[0])
            return
        if type(thing) not in _ATOMS:
            self._seen[id(thing)] = len(self._seen), thing
        if isinstance(thing, types.FunctionType):
            self._function(thing)
        elif isinstance(thing, types.MethodType):
            self._say("method")
            self.visit(thing.__func__)
            if isinstance(getattr(thing.__self__, "__dict__", None), dict):
                self._instance(thing.__self__)
            else:
                self.visit(thing.__self__)
        elif isinstance(thing, functools.partial):
            self._say("partial")
            for part in (thing.func, *thing.args, *sorted(thing.keywords.items())):
                self.visit(part)
        elif isinstance(thing, type):
            self._class(thing)
        elif isinstance(thing, (types.BuiltinFunctionType, types.ModuleType)):
            self._say("name", getattr(thing, "__module__", None), thing.__name__)
        elif isinstance(getattr(thing, "__wrapped__", None), types.FunctionType):
            self._say("wrapper", type(thing).__qualname__)
            self.visit(thing.__wrapped__)
        elif callable(thing):
            self._instance(thing)
        else:
            self._value(thing)

    def _function(self, fn: types.FunctionType) -> None:
        if _is_ours(fn):
            self._say("ours", fn.__module__, fn.__qualname__)
            return
        self._say("function", fn.__name__)
        self._code(fn.__code__, fn.__doc__)
        self.visit(fn.__defaults__)
        for part in sorted((fn.__kwdefaults__ or {}).items()):
            self.visit(part)
        for cell in fn.__closure__ or ():
            try:
                self.visit(cell.cell_contents)
            except ValueError:
                self._say("empty cell")
        for name in sorted({*_names(fn.__code__)}):
            if name in fn.__globals__:
                self._global(name, fn.__globals__[name], fn.__module__)

    def _global(self, name: str, value: Any, home: str) -> None:
        if _is_constant(value):
            self._say("constant", name)
            self._value(value)
        elif isinstance(value, (types.FunctionType, type)) and _package(value) == _top(home):
            self._say("uses", name)
            self.visit(value)

    def _code(self, code: types.CodeType, doc: str | None = None) -> None:
        self._say(code.co_name, code.co_code, code.co_names, code.co_varnames, code.co_argcount)
        self._say(code.co_kwonlyargcount, code.co_flags, code.co_exceptiontable)
        for at, const in enumerate(code.co_consts):
            if at == 0 and const is not None and const == doc:
                self._say("doc")
            elif isinstance(const, types.CodeType):
                self._code(const)
            else:
                self._value(const)

    def _class(self, cls: type) -> None:
        self._say("class", cls.__qualname__)
        if cls.__module__ == "builtins" or _is_ours(cls):
            return
        for base in cls.__bases__:
            if _package(base) == _package(cls):
                self.visit(base)
            else:
                self._say("base", base.__module__, base.__qualname__)
        for name, part in sorted(vars(cls).items()):
            inner = getattr(part, "__func__", None) or getattr(part, "fget", None) or part
            if isinstance(inner, types.FunctionType):
                self._say(name, type(part).__name__)
                self.visit(inner)
            elif not name.startswith("__") and _is_constant(part):
                self._say(name)
                self._value(part)

    def _instance(self, thing: Any) -> None:
        """An object whose methods are run: its class, and what it holds."""
        self._say("instance", type(thing).__qualname__)
        if type(thing).__module__ != "builtins":
            self.visit(type(thing))
        state = getattr(thing, "__dict__", None)
        for name, part in sorted(state.items()) if isinstance(state, dict) else ():
            self._say(name)
            self.visit(part)

    def _value(self, value: Any) -> None:
        try:
            self._say("value", _bytes(value))
        except CannotPickle:
            self._say("of type", type(value).__module__, type(value).__qualname__)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _names(const)


def _is_constant(value: object) -> bool:
    kind = type(value)
    if kind is tuple or kind is frozenset:
        return all(map(_is_constant, value))  # type: ignore[call-overload]
    return kind in _ATOMS


def _package(thing: Any) -> str:
    return _top(getattr(thing, "__module__", None) or "")


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_ours(thing: Any) -> bool:
    """Whether it is of this package: a new version of it is no change of the user's function."""
    return _package(thing) == _top(__name__)
