"""Find the part of an object that cannot be pickled, so that the error can name it."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

from .snapshot import code_names

__all__ = ["describe", "find", "say"]

_MAX_DEPTH = 30
_MAX_TRIES = 300
_MAX_CHILDREN = 1000

Try = Callable[[Any], BaseException | None]
_Child = tuple[str, Any]


def find(obj: Any, path: str, error: BaseException, attempt: Try) -> tuple[str, Any, BaseException]:
    """Descend from `obj`, which fails with `error`, to the smallest part that fails by itself.

    Args:
        path: how `obj` is called.
        attempt: tries to pickle an object; returns the error, or None.

    Returns:
        What the part is called, the part, and its error.
    """
    tries = _MAX_TRIES
    seen = set()
    for _ in range(_MAX_DEPTH):
        seen.add(id(obj))
        for step, child in _children(obj):
            if id(child) in seen:
                continue
            tries -= 1
            if tries < 0:
                return path, obj, error
            child_error = attempt(child)
            if child_error is not None:
                path, obj, error = path + step, child, child_error
                break
        else:
            return path, obj, error
    return path, obj, error


def _children(obj: Any) -> Iterator[_Child]:
    try:
        for number, child in enumerate(_parts(obj)):
            if number >= _MAX_CHILDREN:
                return
            yield child
    except Exception:
        # The user's own attributes and iterators: what cannot be looked at is not the answer.
        return


def _parts(obj: Any) -> Iterator[_Child]:
    if isinstance(obj, dict):
        for key, value in list(obj.items()):
            yield f"[{_short(key)}]", value
            yield f" (key {_short(key)})", key
    elif isinstance(obj, (list, tuple)):
        for number, value in enumerate(obj):
            yield f"[{number}]", value
    elif isinstance(obj, (set, frozenset)):
        for value in obj:
            yield f" (element {_short(value)})", value
    elif isinstance(obj, types.FunctionType):
        yield from _function_parts(obj)
    elif isinstance(obj, types.MethodType):
        yield ".__self__", obj.__self__
        yield ".__func__", obj.__func__
    elif isinstance(obj, functools.partial):
        yield ".func", obj.func
        yield ".args", obj.args
        yield ".keywords", obj.keywords
    else:
        yield from _attributes(obj)


def _function_parts(func: types.FunctionType) -> Iterator[_Child]:
    for name, cell in zip(func.__code__.co_freevars, func.__closure__ or ()):
        try:
            yield f", closure variable {name!r}", cell.cell_contents
        except ValueError:
            continue
    for name in sorted(code_names(func.__code__)):
        if name in func.__globals__:
            yield f", global {name!r}", func.__globals__[name]
    yield ".__defaults__", func.__defaults__
    yield ".__kwdefaults__", func.__kwdefaults__
    yield ".__dict__", func.__dict__


def _attributes(obj: Any) -> Iterator[_Child]:
    if hasattr(obj, "__dict__"):
        for name, value in list(vars(obj).items()):
            yield f".{name}", value
    for cls in type(obj).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(obj, name):
                yield f".{name}", getattr(obj, name)


def _short(obj: Any) -> str:
    if not isinstance(obj, (str, bytes, int, float, tuple, type(None))):
        return f"a {type(obj).__name__}"
    text = repr(obj)
    return text if len(text) <= 40 else text[:37] + "..."


def describe(obj: Any) -> str:
    """What kind of thing `obj` is, in words: ``"a _thread.lock"``, ``"the function f"``."""
    try:
        kind = type(obj)
        if kind is types.FunctionType or isinstance(obj, type):
            what = "class" if isinstance(obj, type) else "function"
            return f"the {what} {obj.__module__}.{obj.__qualname__}"
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        article = "an" if (module + kind.__qualname__)[:1].lower() in "aeiou" else "a"
        return f"{article} {module}{kind.__qualname__}"
    except Exception:
        return "an object that cannot be described"


def say(error: BaseException) -> str:
    """An error's type and text in one line; never raises."""
    name = type(error).__name__
    try:
        text = " ".join(str(error).split())
    except BaseException:  # the text of a saboteur: SystemExit, or worse
        return f"{name}, whose text cannot be had"
    if len(text) > 500:
        text = text[:497] + "..."
    return f"{name}: {text}" if text else name
