"""Results as JSON: exactly where JSON can, sensibly where a person would, else a clear error.

JSON's own types go straight through. Behind that: sets become lists (sorted when they can be),
bytes become base64 text, NumPy arrays lists and NumPy scalars numbers, dataclasses objects,
paths, dates, decimals, fractions and UUIDs text, enums their values, and the floats that JSON
has no number for the texts ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, which ``float()``
reads back. Everything else is an error that names the place, for a ``repr()`` in its stead would
look like a result; unless that was asked for (``--default``).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["NotJSON", "encode"]

Default: TypeAlias = Callable[[object], str] | None
"""What makes text of a part that has no other form; None: nothing does."""

_fast = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_TEXT = ("datetime", "decimal", "fractions", "pathlib", "uuid")


class NotJSON(TypeError):
    """A result has no form in JSON; the message names the part."""


def encode(value: object, default: Default = None) -> str:
    """Return `value` as one line of JSON. Raises NotJSON."""
    try:
        return _fast(value)
    except (TypeError, ValueError, RecursionError):
        pass  # the slow way finds a form for it, or says what is wrong with which part
    try:
        plain = _plain(value, "the result", default)
        if hasattr(sys, "set_int_max_str_digits"):
            # The limit guards those who read numbers from strangers; this one was computed here.
            sys.set_int_max_str_digits(0)
        return _fast(plain)
    except RecursionError:
        raise NotJSON("the result refers to itself, or is nested too deeply") from None


def _plain(value: Any, path: str, default: Default) -> Any:
    """The same in JSON's types. `path` says where in the result we are."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, dict):
        return {
            _key(key, path, default): _plain(one, f"{path}[{key!r}]", default)
            for key, one in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_plain(one, f"{path}[{at}]", default) for at, one in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return [_plain(one, f"an element of {path}", default) for one in _sorted(value)]
    if isinstance(value, (bytes, bytearray, memoryview)):
        import base64

        return base64.b64encode(value).decode("ascii")
    return _other(value, path, default)


def _other(value: Any, path: str, default: Default) -> Any:
    import dataclasses
    import enum

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: _plain(getattr(value, name), f"{path}.{name}", default) for name in names}
    if isinstance(value, enum.Enum):
        return _plain(value.value, f"{path}.value", default)
    numpy = sys.modules.get("numpy")  # who returns its objects has imported it
    if numpy is not None and isinstance(value, numpy.generic) and value.dtype != object:
        return _plain(value.item(), path, default)
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _plain(value.tolist(), path, default)
    for kind in type(value).__mro__:
        if kind.__module__.partition(".")[0] in _TEXT:
            return value.isoformat() if hasattr(value, "isoformat") else str(value)
    if default is not None:
        return default(value)
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    raise NotJSON(f"{path} is of type {name}, which JSON has no form for")


def _finite(value: float) -> float | str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return float(value)


def _key(key: Any, path: str, default: Default) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, (bool, int, float)):
        return _fast(key) if not isinstance(key, float) else str(_finite(key))
    plain = _plain(key, f"a key of {path}", default)
    if isinstance(plain, (str, int, float)):
        return str(plain)
    if default is not None:
        return default(key)
    raise NotJSON(f"a key of {path} is of type {type(key).__qualname__}; JSON's keys are text")


def _sorted(values: Any) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:
        return list(values)
